"""One run's report: the terminal's table, one whole page, and its Markdown."""

import html.parser
import re

import matplotlib.image
import pytest
import torch

from reference_training.reporting import pages
from reference_training.reporting.blocks import Heading, Paragraph
from reference_training.reporting.finished import FinishedRun, read_runs
from reference_training.runtime.errors import RunError
from tests.reference_training.fabricated import RUN, full, metrics, write_run

VOID = {"meta", "img", "source", "link"}


def test_no_pair_no_differences():
    run = FinishedRun("run", metrics(vanilla=(0.5,)), RUN, None)
    blocks = pages.report_blocks(run)
    assert not [b for b in blocks if isinstance(b, Heading) and "Differences" in b.text]
    assert [b for b in blocks if isinstance(b, Paragraph) and "No verdict" in b.text]


def test_terminal_table_is_aligned_and_ends_with_the_verdict():
    text = pages.terminal_table(full(), RUN)
    lines = text.splitlines()
    rows = [line for line in lines if line.startswith(("Vanilla (", "CE on clean", "+ "))]
    tables = [rows[:4], rows[4:5], rows[5:7], rows[7:]]  # all, − MSE, − CE, the uncertainty
    assert len(rows) == 11
    assert all(len({len(row) for row in table}) == 1 for table in tables)
    assert text.index("beat “+ feature distillation (MSE)”: +2.00 ± 0.50") > text.index(rows[-1])


class Page(html.parser.HTMLParser):
    """Collects what the page loads, and fails on tags that do not nest."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.loads, self.cells = [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.tags.append(tag)
        loads = [v for k, v in attrs if k in {"src", "srcset", "href", "data", "action"}]
        self.loads += [load for load in loads if not load.startswith("#")]
        assert tag != "iframe"

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.cells.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("runs") / "run", full())
    pages.write_report(folder, example=torch.full((3, 32, 32), 77, dtype=torch.uint8))
    return folder


def test_html_is_one_well_formed_file_that_loads_nothing(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert "script" not in page.tags
    assert page.tags.count("img") == 3
    assert page.loads[0] == "data:,"  # no icon either
    assert len(page.loads) == 4
    assert all(load.startswith("data:image/png;base64,") for load in page.loads[1:])
    assert not re.search(r"url\(|@import|https?://", text)
    assert "<b>&" in "".join(page.cells)  # the description, escaped and read back
    assert "72.0 ± 0.7" in page.cells


def test_markdown_has_the_tables_and_its_figures_exist(folder):
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "| + uncertainty (ULFD) | 90.0 ± 0.0 | 72.0 ± 0.7 | 50.0 ± 0.0 |" in text
    assert "| wall_seconds | 123.4 |" in text
    assert "| git.commit | c0ffee |" in text
    assert "| dataset.licence | MIT |" in text
    assert "| recipe.iterations | 10 |" in text
    paths = re.findall(r"!\[.*\]\((.*)\)", text)
    names = ("corruptions", "accuracy", "uncertainty")
    assert paths == [f"figures/{name}.png" for name in names]
    for path in paths:
        pixels = matplotlib.image.imread(folder / path)
        assert pixels.std() > 0.02


def test_missing_metrics_are_explained(tmp_path):
    with pytest.raises(RunError, match="no folder of a finished run"):
        pages.write_report(tmp_path)


def test_a_report_of_a_run_without_figures_has_all_but_the_sheet(tmp_path):
    run = write_run(tmp_path / "run", full())
    page = pages.page_of_runs(read_runs([run]))
    assert page.count("<img") == 2  # drawn from the numbers
    assert not (run / "figures").exists()
    pages.write_report(run)
    written = sorted(path.name for path in (run / "figures").iterdir())
    assert written == ["accuracy.png", "uncertainty.png"]
    assert (run / "report.html").read_text(encoding="utf-8") == page
