"""The page in a real browser: it fits a phone, it complains of nothing, loads nothing."""

import struct

import pytest

from reference_training.reporting import pages
from reference_training.reporting.finished import read_runs
from tests.reference_training.chromium import EXECUTABLE, Chromium
from tests.reference_training.fabricated import RUN, metrics, write_run

pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason="needs Chromium (Debian's chromium)")


@pytest.fixture(scope="module")
def browser():
    with Chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two runs of two datasets; the second with forty methods of one seed, some called long."""
    folder = tmp_path_factory.mktemp("page")
    one = metrics(vanilla=(0.05, 0.11), cross_entropy=(0.97, 0.99), ulfd=(0.6, 0.6))
    names = [f"ulfd@lambda=0.{number},uem.width={number}" for number in range(38)]
    names += ["a" * 70, "<img src=x onerror=alert(1)>"]
    two = metrics(**{name: (0.2 + index / 100,) for index, name in enumerate(names)})
    two["dataset"] = "another"
    runs = [
        write_run(folder / "one", one),
        write_run(folder / "two", two, dataset=RUN["dataset"] | {"description": "d" * 200}),
    ]
    path = folder / "page with a space.html"
    path.write_text(pages.page_of_runs(read_runs(runs)), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_loaded_complained_of_or_wider_than_a_phone(browser, page, scheme):
    browser.open(page, width=380, scheme=scheme)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 380
    assert browser.evaluate("innerWidth") == 380
    # What is wider, as a table, scrolls by itself, and is not cut off.
    wide = browser.evaluate(
        "[...document.querySelectorAll('main *')]"
        ".filter(e => !e.closest('.scroll, pre, p:has(> img)'))"
        ".filter(e => e.getBoundingClientRect().right > 381).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    drawn = "[...document.images].map(i => [i.naturalWidth > 0, i.width >= 500])"
    assert browser.evaluate(drawn) == [[True, True]] * 3  # wide enough to be read, and scrolled
    assert browser.requested() == [page.resolve().as_uri()]
    assert browser.complaints() == []


def test_the_page_follows_the_colour_scheme(browser, page, tmp_path):
    colours = {}
    for scheme in ("light", "dark"):
        browser.open(page, scheme=scheme)
        colours[scheme] = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        browser.screenshot(tmp_path / "page.png")
        width, height = struct.unpack(">II", (tmp_path / "page.png").read_bytes()[16:24])
        assert (width, height > 2000) == (1200, True)
    assert colours == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}


def test_no_script_runs(browser, page, tmp_path):
    """The page's own policy stops what an escaping that failed would let in."""
    text = page.read_text(encoding="utf-8")
    hostile = tmp_path / "hostile.html"
    hostile.write_text(
        text.replace("</main>", "<script>document.title = 'taken'</script></main>"),
        encoding="utf-8",
    )
    browser.open(hostile)
    assert browser.evaluate("document.title") == "Report of 2 runs"
    assert any("Content Security Policy" in said for said in browser.complaints())
