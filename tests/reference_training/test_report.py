"""The report from fabricated numbers: cells to the letter, honest verdicts, one whole page."""

import html.parser
import re

import matplotlib.image
import pytest
import torch

from reference_training.corruptions import CORRUPTIONS
from reference_training.reporting import blocks, comparison, figures, one_run, pages
from reference_training.reporting.blocks import (
    Heading,
    Paragraph,
    Table,
    html_document,
    markdown_document,
)
from reference_training.reporting.uncertainty_tables import uncertainty_tables
from reference_training.runtime.errors import RunError
from tests.reference_training.fabricated import RUN, full, metrics, write_run

VOID = {"meta", "img", "source", "link", "input"}


def column(table, name):
    return [row[table.header.index(name)] for row in table.rows]


def test_main_table_cells():
    table = comparison.main_table(full())
    assert column(table, "Method") == [
        "Vanilla (clean only)",
        "CE on clean + degraded",
        "+ feature distillation (MSE)",
        "+ uncertainty (ULFD)",
    ]
    assert column(table, "Clean ↑") == ["90.0 ± 0.0"] * 4
    # Sample deviations: √2 · 10 and √2 / 2.
    assert column(table, "Seen ↑") == ["30.0 ± 14.1", "60.0 ± 0.0", "70.0 ± 0.0", "72.0 ± 0.7"]
    assert column(table, "Unseen ↑") == ["50.0 ± 0.0"] * 4
    assert column(table, "Mean corruption error ↓")[3] == "28.0 ± 0.7"
    # Each seed by its own vanilla network: 0.4/0.8 and 0.4/0.6.
    assert column(table, "mCE (vanilla = 100) ↓")[:2] == ["100.0 ± 0.0", "58.3 ± 11.8"]
    assert column(table, "Paper: clean ↑") == ["76.82", "75.11", "75.81", "76.23"]
    assert column(table, "Paper: Seen ↑") == ["39.17", "58.43", "61.65", "63.44"]
    assert column(table, "Paper: Unseen ↑") == ["47.11", "–", "60.23", "62.90"]
    assert column(table, "Paper: mCE (AlexNet = 100) ↓") == ["76.50", "51.31", "49.50", "46.37"]
    assert "over 2 seeds" in table.caption
    assert "ImageNet with ResNet-50" in table.notes[1]


def test_missing_vanilla_leaves_the_normalised_column_out_and_says_why():
    table = comparison.main_table(metrics(ulfd=(0.7,), my_method=(0.6,)))
    assert not [title for title in table.header if title.startswith("mCE")]
    assert "vanilla network, which is not in this run" in table.notes[0]
    assert column(table, "Method") == ["+ uncertainty (ULFD)", "my method"]


def test_perfect_vanilla_leaves_the_normalised_column_out_too():
    table = comparison.main_table(metrics(vanilla=(1.0,), ulfd=(0.7,)))
    assert "makes no error on" in table.notes[0]


def test_one_seed_has_no_spread():
    table = comparison.main_table(metrics(ulfd=(0.7,)))
    assert column(table, "Seen ↑") == ["70.0"]
    assert table.caption.endswith("one seed, no spread")


def test_difference_table_cells():
    table = comparison.difference_table(full())
    assert table.header == ("Difference", "Mean", "Seed 0", "Seed 1", "Paper")
    assert table.rows == (
        ("ulfd − feature_distillation", "+2.00 ± 0.50 ▲", "+1.50", "+2.50", "+1.79"),
        ("ulfd − cross_entropy", "+12.00 ± 0.50 ▲", "+11.50", "+12.50", "+5.01"),
        ("feature_distillation − cross_entropy", "+10.00 ± 0.00 ▲", "+10.00", "+10.00", "+3.22"),
    )


def test_no_pair_no_differences():
    blocks = one_run.report_blocks(metrics(vanilla=(0.5,)), RUN, [])
    assert not [b for b in blocks if isinstance(b, Heading) and "Differences" in b.text]
    assert [b for b in blocks if isinstance(b, Paragraph) and "No verdict" in b.text]


def test_corruption_table_has_every_corruption():
    table = comparison.corruption_table(full())
    assert [row[0].replace(" ", "_") for row in table.rows] == list(CORRUPTIONS)
    assert table.rows[0] == ("gaussian noise", "seen", "30.0", "60.0", "70.0", "72.0")
    assert table.rows[-1][1:3] == ("unseen", "50.0")
    # The shade goes from the table's lowest value, 30, to its highest, 72.
    assert table.shades[0] == pytest.approx((0, 30 / 42, 40 / 42, 1))


def test_many_methods_are_the_rows_of_the_corruption_table():
    table = comparison.corruption_table(metrics(**{f"m{i}": (i / 10,) for i in range(9)}))
    assert table.header[:2] == ("Method", "gaussian noise")
    assert table.header[-1] == "saturate (unseen)"
    assert [row[1] for row in table.rows] == [f"{10 * i}.0" for i in range(9)]
    assert table.shades[4][0] == pytest.approx(0.5)
    assert {row[-1] for row in table.rows} == {"50.0"}


def test_severity_table():
    data = metrics(ulfd=(0.5,))
    data["results"]["ulfd"]["0"]["corruptions"]["fog"] = [0.5, 0.5, 0.5, 0.5, 0.2]
    table = comparison.severity_table(data)
    assert table.header[1::5] == ("Seen 1", "Unseen 1")
    # 14 of the 15 seen corruptions stay at 50.
    assert table.rows == (("+ uncertainty (ULFD)", *["50.0"] * 4, "48.0", *["50.0"] * 5),)


def test_uncertainty_table():
    table, sigma = uncertainty_tables(full())
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["snow"] == ("0.2000", "0.3000", "0.4000", "0.5000", "0.6000", "+1.00 ± 0.00")
    assert rows["fog"][-1] == "–"
    assert "in every seed for 18 of 19" in table.notes[0]
    assert "minimum −9.50" in sigma.text
    assert uncertainty_tables(metrics(vanilla=(0.5,))) == []


def test_terminal_table_is_aligned_and_ends_with_the_verdict():
    text = pages.terminal_table(full(), RUN)
    lines = text.splitlines()
    rows = [line for line in lines if line.startswith(("Vanilla (", "CE on clean", "+ "))]
    assert len(rows) == 4
    assert len({len(row) for row in rows}) == 1
    assert "beat plain MSE: +2.00 ± 0.50" in text.replace("\n", " ")


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
        self.tags.append(tag)

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
    assert page.tags.count("script") == 1
    assert page.tags.count("img") == 1
    assert page.loads[0] == "data:,"  # no icon either
    assert len(page.loads) == 3  # the sheet of corruptions, in light and in dark
    assert all(load.startswith("data:image/png;base64,") for load in page.loads[1:])
    assert not re.search(r"url\(|@import|https?://", text)
    assert "<b>&;" in "".join(page.cells)  # the description, escaped and read back
    assert "72.0 ± 0.7" in page.cells


def test_markdown_has_the_tables_and_its_figures_exist(folder):
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "| + uncertainty (ULFD) | 90.0 ± 0.0 | 72.0 ± 0.7 | 50.0 ± 0.0 |" in text
    assert "2 min 3 s of all starts" in text
    assert "c0ffee, with uncommitted changes" in text
    assert "| recipe.iterations | 10 |" in text
    paths = re.findall(r"!\[.*\]\((.*)\)", text)
    names = ("corruptions", "accuracy", "uncertainty")
    assert paths == [f"figures/{name}.png" for name in names]
    for path in paths:
        pixels = matplotlib.image.imread(folder / path)
        assert pixels.std() > 0.02


def test_missing_metrics_are_explained(tmp_path):
    with pytest.raises(RunError, match=r"no .*metrics\.json: run"):
        pages.write_report(tmp_path)


def test_blocks_escape_their_text():
    blocks = [Paragraph("+ a <i> *b* `c`"), Table(("x", "y|z"), (("a_b", "<script>"),), "t")]
    text = markdown_document(blocks)
    assert text.startswith("\\+ a \\<i> \\*b\\* \\`c\\`")
    assert "| x | y\\|z |" in text
    assert "| a_b | \\<script> |" in text
    page = html_document("<t>", blocks)
    assert page.count("<script>") == 1
    assert "&lt;script&gt;" in page
    assert "<i>" not in page
    assert "<title>&lt;t&gt;</title>" in page


def test_a_row_that_does_not_fit_its_header_is_refused():
    with pytest.raises(ValueError, match="2 cells under 1"):
        Table(("a",), (("1", "2"),), "t")


def test_corruption_sheet_shows_every_corruption_and_severity(monkeypatch):
    asked = []

    def corrupt(images, name, severity, *, seeds, frost):
        assert images.shape == (1, 3, 32, 32)
        asked.append((name, severity, seeds.tolist(), frost))
        return images

    monkeypatch.setattr(figures, "corrupt", corrupt)
    image = torch.full((3, 32, 32), 77, dtype=torch.uint8)
    sheet = figures.corruption_sheet(image, 4, frost="procedural")
    assert asked == [(c, s, [4], "procedural") for c in CORRUPTIONS for s in range(1, 6)]
    labels = [label.get_text() for axes in sheet.axes for label in axes.get_yticklabels()]
    assert labels == ["clean", *(name.replace("_", " ") for name in CORRUPTIONS)]
    shown = [axes.images[0].get_array() for axes in sheet.axes]
    pixels = sum(int((block[..., 3] == 255).sum()) for block in shown)
    assert pixels == (1 + 19 * 5) * 32 * 32
    with pytest.raises(ValueError, match="uint8 image"):
        figures.corruption_sheet(image.float(), 0)


def test_severity_figure_draws_each_curve_once_in_the_legend():
    curves = [figures.Curve("a", 0, [1, 2, 3, 4, 5, 6]), figures.Curve("b", 1, [2] * 6, [1] * 6)]
    figure = figures.severity_figure({"p": curves, "q": curves}, ylabel="%", columns=2)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["p", "q"]
    assert figures.png(figure) == figures.png(figure)
    curves.append(figures.Curve("c", 2, [3] * 6, shown=False))
    figure = figures.severity_figure({"p": curves}, ylabel="%", columns=1)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_forty_methods_look_different():
    looks = [figures.Look.of(style) for style in range(49)]
    assert len({(look.colour, look.marker) for look in looks}) == 49


def test_the_page_has_the_colours_of_the_figures():
    style = (blocks.ASSETS / "page.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    for theme, rules in ((figures.LIGHT, light), (figures.DARK, dark)):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", rules))
        assert [colours[f"curve-{i}"] for i in range(7)] == list(theme.curves)
        ours = (theme.page, theme.ink, theme.grid)
        assert tuple(colours[name] for name in ("paper", "ink", "line")) == ours
