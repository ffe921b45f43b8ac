"""The paper's tables: every row of the paper has its network, and the cells are the numbers."""

import pytest

from reference_training.corruptions import SEEN, UNSEEN
from reference_training.methods.trainings import method_of, network_of
from reference_training.paper.experiments import EXPERIMENTS, ROWS, Row
from reference_training.paper.results import PAPER, printed
from reference_training.reporting.measures import MEASURES
from reference_training.reporting.result_tables import paper_doubts, table


@pytest.mark.parametrize("name", ROWS)
def test_every_row_names_a_network(name):
    assert network_of(method_of(ROWS[name]))


@pytest.mark.parametrize("key", [key for key in PAPER if key.startswith("table_")])
def test_every_printed_row_has_its_entry(key):
    name = key.replace("_", "", 1)
    rows = {row.key: row for row in EXPERIMENTS[name].rows}
    for entry in PAPER[key]["rows"]:
        row = rows[entry["row"]]
        assert row.arch == entry["architecture"].lower().replace("-", "_")
        shown = [printed(key, row.key, MEASURES[at].printed) for at in EXPERIMENTS[name].columns]
        numbers = [value for value in entry.values() if isinstance(value, float)]
        assert set(shown) - {None} == set(numbers) - {entry.get("lambda")}


def result(seen: float, unseen: float, clean: float) -> dict:
    corruptions = dict.fromkeys(SEEN, [seen] * 5) | dict.fromkeys(UNSEEN, [unseen] * 5)
    return {"clean": clean, "corruptions": corruptions, "draws": [{"corruptions": corruptions}] * 5}


def cells(experiment: str, results: dict, beside: str) -> dict[str, list[str]]:
    rows = EXPERIMENTS[experiment].rows
    halves = {seed: dict.fromkeys(SEEN, [0.5] * 5) for seed in ("0", "1")}
    made = table(
        EXPERIMENTS[experiment],
        results,
        {row.arch: halves for row in rows},
        networks={row.arch: row.arch for row in rows},
        dataset="digits",
        beside=beside,
    )
    return {row.key: list(line[2:]) for row, line in zip(rows, made.rows, strict=True)}


RESULTS = {
    "cross_entropy": {"0": result(0.60, 0.5, 0.80), "1": result(0.62, 0.5, 0.80)},
    "ulfd": {"0": result(0.65, 0.5, 0.81), "1": result(0.65, 0.5, 0.81)},
}


def test_small_data_is_compared_by_differences_paired_by_seed():
    found = cells("table5", RESULTS, "order")
    # clean 80 and 81; mCE = error / 0.5
    assert found["cross_entropy"][:4] == ["80.0 ± 0.0", "75.11", "–", "–"]
    assert found["ulfd"][:4] == ["81.0 ± 0.0", "76.23", "+1.00 ± 0.00 ▲", "+1.12"]
    # 80 and 76 against 70 and 70
    assert found["ulfd"][4:] == ["70.0 ± 0.0", "46.37", "−8.00 ± 2.00 ▲", "−4.94"]
    assert found["feature_distillation"][0] == "–"


def test_imagenet_is_compared_number_by_number():
    found = cells("table5", {"ulfd": {"0": RESULTS["ulfd"]["0"]}}, "number")
    assert found["ulfd"] == ["81.0", "76.23", "+4.77", "70.0", "46.37", "+23.63"]


def test_on_other_data_at_full_scale_the_papers_numbers_are_left_out():
    found = cells("table5", RESULTS, "nothing")
    assert found["ulfd"] == ["81.0 ± 0.0", "+1.00 ± 0.00 ▲", "70.0 ± 0.0", "−8.00 ± 2.00 ▲"]


def test_few_images_have_the_spread_of_their_draws_and_are_compared_by_seed():
    """Two seeds, two draws: 50 and 60 of one, 52 and 66 of the other; the mean is over seeds."""

    def drawn(*seen: float) -> dict:
        return result(0.6, 0.5, 0.8) | {"draws": [result(at, 0.5, 0.8) for at in seen]}

    adapted = {"0": drawn(0.50, 0.60), "1": drawn(0.52, 0.66)}
    first = {"0": drawn(0.40, 0.60), "1": drawn(0.40, 0.60)}
    found = cells("table4", {"vanilla": first, "bn": adapted}, "order")
    # draws 51 and 63: mean 57, deviation 12 / √2; seeds 55 − 50 and 59 − 50
    assert found["bn"][4:] == ["57.0 ± 8.5", "60.20", "+7.00 ± 2.00 ▲", "+17.90"]
    exact = cells("table4", {"bn": adapted}, "number")
    assert exact["bn"][3:] == ["57.0 ± 8.5", "60.20", "−3.20 ± 8.49"]


def test_unseen_is_the_mean_of_table_2():
    """As in the paper, whose two tables agree to 0.01."""
    for entry in PAPER["table_2"]["rows"]:
        mean = sum(entry[name] for name in UNSEEN) / len(UNSEEN)
        whole = next(row for row in PAPER["table_1"]["rows"] if row["row"] == entry["row"])
        assert mean == pytest.approx(whole["unseen"], abs=0.0101)
    measure = MEASURES["unseen"]
    assert measure.value(result(0.1, 0.4, 0.9), {}) == pytest.approx(0.4)


def test_a_row_is_its_training_and_its_adaptation():
    assert method_of(Row("a", "A", "ulfd@beta=.5", adaptation="bn")) == "ulfd@beta=0.5+bn"


def test_doubts_of_the_papers_numbers_are_said():
    doubts = paper_doubts(["vanilla", "ulfd"])
    assert any(doubt.startswith("Table 1, Vanilla: HQ 76.82 does not fit") for doubt in doubts)
    assert not any("67.1" in doubt for doubt in doubts)  # that is of the other network
    assert paper_doubts(["mine"]) == []
