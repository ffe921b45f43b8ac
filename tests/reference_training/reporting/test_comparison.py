"""Tables of methods from fabricated numbers: cells to the letter."""

from reference_training.corruptions import CORRUPTIONS
from reference_training.reporting import comparison
from tests.reference_training.fabricated import full, metrics


def column(table, name):
    return [row[table.header.index(name)] for row in table.rows]


def test_main_table_cells():
    table = comparison.main_table({"run": full()})
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
    assert column(table, "Paper: Clean ↑") == ["76.82", "75.11", "75.81", "76.23"]
    assert column(table, "Paper: Seen ↑") == ["39.17", "58.43", "61.65", "63.44"]
    assert column(table, "Paper: Unseen ↑") == ["47.11", "–", "60.23", "62.90"]
    assert column(table, "Paper: mCE (AlexNet = 100) ↓") == ["76.50", "51.31", "49.50", "46.37"]
    assert "over 2 seeds" in table.caption
    assert "ImageNet with ResNet-50" in table.notes[1]


def test_missing_vanilla_leaves_the_normalised_column_out_and_says_why():
    table = comparison.main_table({"mine": metrics(ulfd=(0.7,), my_method=(0.6,))})
    assert not [title for title in table.header if title.startswith("mCE")]
    assert table.notes[0].startswith("mine has no normalised mCE: it divides by")
    assert not [note for note in table.notes if note.startswith("mCE:")]
    assert column(table, "Method") == ["+ uncertainty (ULFD)", "my method"]


def test_perfect_vanilla_leaves_the_normalised_column_out_too():
    table = comparison.main_table({"run": metrics(vanilla=(1.0,), ulfd=(0.7,))})
    assert "makes no error on" in table.notes[0]


def test_one_seed_has_no_spread():
    table = comparison.main_table({"run": metrics(ulfd=(0.7,))})
    assert column(table, "Seen ↑") == ["70.0"]
    assert table.caption.endswith("one seed, no spread")


def test_difference_table_cells():
    zero = "0.00 ± 0.00"
    mse, ce = comparison.difference_tables(full())
    # mCE: seen errors of 0.4 and 0.3 by 0.8, and by 0.6; their difference is lower, thus better.
    assert ce.rows == (
        (
            "+ feature distillation (MSE)",
            *(zero, "+10.00 ± 0.00 ▲", zero, "−14.58 ± 2.08 ▲", "+3.22"),
        ),
        ("+ uncertainty (ULFD)", zero, "+12.00 ± 0.50 ▲", zero, "−17.60 ± 3.23 ▲", "+5.01"),
    )
    (row,) = mse.rows
    assert (row[2], row[-1]) == ("+2.00 ± 0.50 ▲", "+1.79")


def test_what_is_compared():
    mse, default = "feature_distillation@lambda=1.0", "ulfd@lambda=0.3,uem=default"
    seen = {"cross_entropy": (0.6, 0.6), mse: (0.7, 0.7), default: (0.7, 0.7), "ulfd": (0.5, 0.5)}
    pairs = comparison.compared_pairs(metrics(**seen, augmix=(0.6, 0.6)))
    with_ce = [(name, "cross_entropy") for name in (mse, default, "ulfd")]
    assert pairs == [(default, mse), ("ulfd", mse), *with_ce]


def test_the_verdict_is_that_of_seen():
    data = metrics(feature_distillation=(0.7, 0.7), ulfd=(0.60, 0.61))
    (said,) = comparison.verdicts(data)
    assert "(ULFD)” did not beat “+ feature distillation (MSE)”: −9.50 ± 0.50 points" in said
    assert comparison.verdicts(metrics(ulfd=(0.7,)))[0].startswith("No verdict")
    (said,) = comparison.verdicts(metrics(vanilla=(0.7, 0.7), ulfd=(0.60, 0.61)))
    assert "did not beat “Vanilla (clean only)”: −9.50 ± 0.50 points" in said


def test_detection_table_cells():
    table = comparison.detection_table(full())
    softmax = ("–", "70.0 ± 0.0")
    assert table.rows[0] == ("Vanilla (clean only)", "–", "–", *softmax, *softmax)
    said = ("−0.50 ± 0.00", "+0.25 ± 0.00", "80.0 ± 0.0", "70.0 ± 0.0", "60.0 ± 0.0", "70.0 ± 0.0")
    assert table.rows[3] == ("+ uncertainty (ULFD)", *said)
    assert table.header[3:] == ("θ, seen", "max-softmax, seen", "θ, unseen", "max-softmax, unseen")
    assert len(table.notes) == 1
    backwards = full()
    for result in backwards["results"]["ulfd"].values():
        for each in result["calibration"]["auroc"]["corruptions"].values():
            each[:] = [0.4] * len(each)
    _, warning = comparison.detection_table(backwards).notes
    assert warning == (
        "Below 50, θ is larger on clean images; do not detect with it: + uncertainty (ULFD)."
    )
    before = full()
    for result in before["results"]["vanilla"].values():
        del result["auroc_max_softmax"], result["rank_correlation"]
    assert comparison.detection_table(before).rows[0][1:] == ("–",) * 6


def test_corruption_table_has_every_corruption():
    table = comparison.corruption_table(full())
    names = [name.removesuffix(" (unseen)").replace(" ", "_") for name in table.header[1:]]
    assert names == list(CORRUPTIONS)
    assert column(table, "gaussian noise") == ["30.0", "60.0", "70.0", "72.0"]
    assert column(table, "saturate (unseen)") == ["50.0"] * 4


def test_uncertainty_table():
    table, sigma = comparison.uncertainty_tables(full())
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["snow"] == ("0.2000", "0.3000", "0.4000", "0.5000", "0.6000", "+1.00 ± 0.00")
    assert rows["fog"][-1] == "–"
    assert "in every seed for 18 of 19" in table.notes[0]
    assert "minimum −9.50" in sigma.text
    assert comparison.uncertainty_tables(metrics(vanilla=(0.5,))) == []
