"""The page in a real browser: it sorts, it fits a phone, it complains of nothing, loads nothing."""

import struct

import pytest

from reference_training.reporting import pages
from reference_training.reporting.finished import read_runs
from tests.reference_training.chromium import EXECUTABLE, Chromium
from tests.reference_training.fabricated import RUN, metrics, write_run

pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason="needs Chromium (Debian's chromium)")

FIRST_TABLE = "document.querySelector('table')"
# Rows of the first table, as arrays of cells.
ROWS = f"[...{FIRST_TABLE}.tBodies[0].rows].map(r => [...r.cells].map(c => c.textContent))"


@pytest.fixture(scope="module")
def browser():
    with Chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two runs of two datasets; the second with forty methods of one seed, some called long."""
    folder = tmp_path_factory.mktemp("page")
    # Means of 98, 8 and 60: as text, 8 would be the highest.
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


def column(browser, title):
    """The header's expression, and the column's cells from top to bottom."""
    header = f"[...{FIRST_TABLE}.tHead.rows[0].cells].find(h => h.textContent == '{title}')"
    index = browser.evaluate(f"{header}.cellIndex")
    return header, [row[index] for row in browser.evaluate(ROWS)]


SEEN = "Seen\u00a0↑"
ERROR = "Mean corruption error\u00a0↓"
AGAINST = "Seen − that of CE\u00a0↑"


def number(cell):
    return float(cell.split(" ± ")[0].replace("−", "-"))


@pytest.mark.parametrize(
    ("title", "falling_first"), [(SEEN, True), (ERROR, False), (AGAINST, True)]
)
def test_a_click_sorts_by_number_and_another_turns_it_round(browser, page, title, falling_first):
    browser.open(page)
    header, before = column(browser, title)
    numbers = [number(cell) for cell in before if cell != "–"]
    missing = len(before) - len(numbers)
    assert missing == (41 if title == AGAINST else 0)
    assert title != AGAINST or "−90.00 ± 2.00 ▼" in before
    for falling in (falling_first, not falling_first):
        browser.click(f"{header}.querySelector('button')")
        _, after = column(browser, title)
        assert after != before
        assert [number(c) for c in after[: len(numbers)]] == sorted(numbers, reverse=falling)
        assert after[len(numbers) :] == ["–"] * missing  # last, whichever way
        direction = "descending" if falling else "ascending"
        assert browser.evaluate(f"{header}.getAttribute('aria-sort')") == direction
    assert browser.evaluate(f"{FIRST_TABLE}.querySelectorAll('[aria-sort]').length") == 1
    assert browser.complaints() == []


def test_the_keyboard_sorts_words(browser, page):
    browser.open(page)
    header, before = column(browser, "Method")
    browser.evaluate(f"{header}.querySelector('button').focus()")
    browser.press("Enter", 13, "\r")
    after = column(browser, "Method")[1]
    assert after != before
    assert browser.evaluate(f"{header}.getAttribute('aria-sort')") == "ascending"
    # Numbers inside of words count as numbers.
    widths = [cell for cell in after if cell.startswith("+ uncertainty (ULFD), λ")]
    assert widths.index(next(c for c in widths if c.endswith("width 9"))) < widths.index(
        next(c for c in widths if c.endswith("width 10"))
    )
    browser.press(" ", 32, " ")
    assert browser.evaluate(f"{header}.getAttribute('aria-sort')") == "descending"
    # Whole rows move: the method still has its number.
    row = next(r for r in browser.evaluate(ROWS) if r[0] == "CE on clean + degraded")
    assert "98.0 ± 1.4" in row


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_loaded_complained_of_or_wider_than_a_phone(browser, page, scheme):
    browser.open(page, width=380, scheme=scheme)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 380
    assert browser.evaluate("innerWidth") == 380
    # What is wider, as a table, scrolls by itself, and is not cut off.
    wide = browser.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, pre, svg')"
        " && e.getBoundingClientRect().right > 381).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
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


def test_ticking_a_method_shows_it_in_this_run_only(browser, page):
    browser.open(page)
    visible = "[...document.querySelectorAll('#{} g, #{} .bars li')].filter(e => "
    visible += "getComputedStyle(e).display != 'none').length"
    one, two = (visible.format(name, name) for name in ("run-1", "run-2"))
    before = browser.evaluate(one), browser.evaluate(two)
    # Two panels of curves and 19 of bars; in `one`, ULFD has 19 more of its uncertainty.
    assert before == (3 * 21 + 19, 8 * 21)
    browser.click("document.querySelector('#run-2 .chooser input:not(:checked)')")
    assert (browser.evaluate(one), browser.evaluate(two)) == (before[0], 9 * 21)
    browser.click("document.querySelector('#run-2 .chooser input:checked')")
    assert (browser.evaluate(one), browser.evaluate(two)) == before


def test_the_page_is_complete_without_script(browser, page):
    browser.open(page, script=False)
    assert browser.evaluate("document.querySelectorAll('thead button').length") == 0
    assert browser.evaluate("document.querySelector('.chooser').checkVisibility()") is False
    assert len(browser.evaluate(ROWS)) == 43
    left_out = "[...document.querySelectorAll('#run-2 details p')].map(p => p.textContent)"
    assert any(text.startswith("Left out") for text in browser.evaluate(left_out))


def test_no_other_script_runs(browser, page, tmp_path):
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
    assert browser.evaluate("document.querySelectorAll('thead button').length") > 0
