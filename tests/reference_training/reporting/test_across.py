"""Several runs side by side: one table of all, and differences on the same test images alone."""

from reference_training.reporting import pages
from reference_training.reporting.blocks import Paragraph
from reference_training.reporting.comparison import main_table
from reference_training.reporting.finished import read_runs
from tests.reference_training.fabricated import RUN, full, write_run


def column(table, name):
    return [row[table.header.index(name)] for row in table.rows]


def apart(blocks):
    """What is said of differences that are not computed."""
    paragraphs = (block.text for block in blocks if isinstance(block, Paragraph))
    return [text for text in paragraphs if "are not computed" in text]


def test_all_methods_of_all_runs_stand_in_one_table(first, second):
    table = main_table({run.name: run.metrics for run in read_runs([first, second])})
    assert column(table, "Run") == ["one"] * 4 + ["two"] * 3
    assert column(table, "Seeds") == ["2"] * 4 + ["3", "3", "1"]
    assert column(table, "Seen ↑")[3:6] == ["72.0 ± 0.7", "60.0 ± 0.0", "76.0 ± 3.5"]
    assert column(table, "Mean corruption error ↓")[3] == "28.0 ± 0.7"
    mce = column(table, "mCE (vanilla = 100) ↓")
    assert mce[:2] == ["100.0 ± 0.0", "58.3 ± 11.8"]
    assert mce[4:] == ["–"] * 3  # the second run has no vanilla network
    assert any(note.startswith("two has no normalised mCE") for note in table.notes)
    against = column(table, "Seen − that of CE ↑")
    assert against[1:4] == ["–", "+10.00 ± 0.00 ▲", "+12.00 ± 0.50 ▲"]
    assert against[6] == "+30.00"
    assert column(table, "Paper: Seen ↑")[3:] == ["63.44", "58.43", "63.44", "–"]
    assert "Data" not in table.header


def test_the_same_test_images_are_subtracted_by_seed(first, second):
    assert apart(pages.comparison_blocks(read_runs([first, second]))) == []
    table = pages.run_difference_table(read_runs([first, second]))
    assert table.header == ("Method", "Run", "Seeds", "Clean ↑", "Seen ↑", "Unseen ↑")
    zero = "0.00 ± 0.00"
    assert table.rows == (
        ("CE on clean + degraded", "two", "2", zero, zero, zero),
        ("+ uncertainty (ULFD)", "two", "2", zero, "+2.00 ± 0.00 ▲", zero),
    )


def test_other_test_images_are_not_subtracted_and_the_page_says_so(first, other, tmp_path):
    runs = read_runs([first, other])
    blocks = pages.comparison_blocks(runs)
    (said,) = apart(blocks)
    assert "one: 100 test images of toy (SHA-256 5a, frost procedural); three: 100 test" in said
    assert not [b for b in blocks if getattr(b, "caption", "").startswith("Difference")]
    assert (
        column(main_table({run.name: run.metrics for run in runs}), "Data")
        == ["toy"] * 4 + ["clothes"] * 2
    )
    # The same name and number of images are not enough.
    changed = write_run(tmp_path / "changed", full(), dataset=RUN["dataset"] | {"sha256": "beef"})
    (said,) = apart(pages.comparison_blocks(read_runs([first, changed])))
    assert "SHA-256 5a," in said
    assert "SHA-256 beef," in said


def test_only_settings_that_differ_and_matter_are_listed(first, second):
    table = pages.settings_table(read_runs([first, second]))
    assert table.header == ("Run", "recipe.iterations")
    assert table.rows == (("one", "10"), ("two", "20"))
    runs = read_runs([first])
    assert pages.settings_table([*runs, *runs]).rows == ()
