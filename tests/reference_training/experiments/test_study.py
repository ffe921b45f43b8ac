"""The study: λ is chosen on validation alone, effects are marked by rule, every part resolves."""

import json
from dataclasses import replace
from math import sqrt

import pytest

from reference_training.config import SHORT, Pretraining
from reference_training.corruptions import SEEN, UNSEEN
from reference_training.experiments import study
from reference_training.experiments.small import check
from reference_training.experiments.study import (
    CANDIDATES,
    PARTS,
    Study,
    chosen_weights,
    resolved,
    with_lambda,
)
from reference_training.reporting import study_page
from reference_training.runtime.errors import RunError


def result(seen: float) -> dict:
    corruptions = dict.fromkeys(SEEN, [seen] * 5) | dict.fromkeys(UNSEEN, [0.9] * 5)
    return {"clean": 0.95, "corruptions": corruptions}


def validation(best: dict[str, float]) -> dict:
    """One network each, better at the λ that is to be chosen."""
    return {
        "results": {
            with_lambda(name, weight): {"10": result(0.8 + 0.01 * (weight == best[candidate]))}
            for candidate, (name, weights) in CANDIDATES.items()
            for weight in weights
        }
    }


def test_the_best_weight_of_each_candidate_is_chosen():
    best = {
        name: weights[number % 4] for number, (name, (_, weights)) in enumerate(CANDIDATES.items())
    }
    assert chosen_weights(validation(best)) == best
    methods = resolved(("cross_entropy", "best_ulfd_frozen", "best_ulfd_beta"), best)
    assert methods == (
        "cross_entropy",
        f"ulfd@lambda={best['best_ulfd_frozen']},teacher=frozen",
        f"ulfd@beta=0.5,lambda={best['best_ulfd_beta']}",
    )


@pytest.mark.parametrize("name", PARTS)
def test_every_part_can_start(name):
    run = PARTS[name].run
    weights = {candidate: weights[0] for candidate, (_, weights) in CANDIDATES.items()}
    check(replace(run, methods=resolved(run.methods, weights)))
    assert len(run.seeds) == (2 if name == "validation" else 5)


def test_validation_sees_no_test_image_and_no_seed_of_the_others():
    run = PARTS["validation"].run
    assert run.validation_images > 0
    for name, part in PARTS.items():
        if name != "validation":
            assert not set(part.run.seeds) & set(run.seeds)
            assert part.run.validation_images == 0
    assert len({len(weights) for _, weights in CANDIDATES.values()}) == 1  # the same budget


def test_parts_that_share_a_folder_differ_in_their_methods_alone():
    for one in PARTS.values():
        for other in PARTS.values():
            if one.folder == other.folder is not None:
                assert replace(one.run, methods=()) == replace(other.run, methods=())


@pytest.mark.parametrize(
    ("points", "mark"),
    [
        ((1.0, 1.1, 0.9), " ▲"),
        ((-1.0, -1.1, -0.9), " ▼"),
        ((1.0, -1.1, 0.9), ""),
        ((0.5, 1.5, 0.1), ""),  # mean 0.70, twice the standard error 0.83
    ],
)
def test_an_effect_is_more_than_two_standard_errors(points, mark):
    theirs = {str(seed): 0.5 for seed in range(3)}
    ours = {str(seed): 0.5 + at / 100 for seed, at in enumerate(points)}
    shown = study_page.gain(ours, theirs, lambda accuracy: accuracy)
    mean = sum(points) / 3
    error = sqrt(sum((at - mean) ** 2 for at in points) / 2 / 3)
    assert shown == f"{mean:+.2f} ± {error:.2f}{mark}".replace("-", "−")
    assert study_page.gain({"0": 1.0}, theirs, lambda accuracy: accuracy) == "+50.00"


def test_a_part_runs_and_its_page_is_made_again_from_its_data(tmp_path, monkeypatch, capsys):
    tiny = replace(
        PARTS["digits"].run,
        methods=("cross_entropy", "ulfd"),
        seeds=(0, 1),
        recipe=replace(SHORT, iterations=2, batch_size=16),
        pretraining=Pretraining(iterations=2, batch_size=16),
        evaluation_images=20,
    )
    monkeypatch.setitem(PARTS, "digits", replace(PARTS["digits"], run=tiny))
    job = Study(parts=("digits",), results=tmp_path / "results", runs=tmp_path / "runs")
    study.execute(job)
    data = json.loads((tmp_path / "results/digits.json").read_text())
    assert set(data["results"]) == {"cross_entropy", "ulfd"}
    page = (tmp_path / "results/README.md").read_text()
    assert "digits: Another dataset" in page
    (tmp_path / "results/README.md").unlink()
    study.execute(replace(job, parts=tuple(PARTS), tables=True))
    assert (tmp_path / "results/README.md").read_text() == page
    capsys.readouterr()


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(RunError, match="run that first"):
        study.execute(Study(parts=("chosen",), results=tmp_path))
    with pytest.raises(RunError, match="unknown parts"):
        study.execute(Study(parts=("nothing",), results=tmp_path))
    with pytest.raises(RunError, match="no data yet"):
        study.execute(Study(results=tmp_path, tables=True))
