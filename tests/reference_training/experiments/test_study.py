"""The study: λ is chosen on validation alone, every part resolves, a part runs to its page."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from reference_training.config import SHORT, Pretraining
from reference_training.corruptions import SEEN, UNSEEN
from reference_training.evaluation import measurements
from reference_training.experiments import study
from reference_training.experiments.small import check
from reference_training.experiments.study import resolved, select_weights
from reference_training.methods.trainings import canonical
from reference_training.paper.study import CANDIDATES, PARTS, Part, with_lambda
from reference_training.runtime.errors import RunError

CHOOSERS = {part.chosen_by for part in PARTS.values()}


def result(seen: float) -> dict:
    corruptions = dict.fromkeys(SEEN, [seen] * 5) | dict.fromkeys(UNSEEN, [0.9] * 5)
    return {"clean": 0.95, "corruptions": corruptions}


def validation(best: dict[str, float]) -> dict:
    """One network each, better at the λ that is to be chosen."""
    return {
        "results": {
            canonical(with_lambda(name, weight)): {
                "10": result(0.8 + 0.01 * (weight == best[candidate]))
            }
            for candidate, (name, weights) in CANDIDATES.items()
            for weight in weights
        }
    }


def test_the_best_weight_of_each_candidate_is_chosen(monkeypatch, tmp_path):
    best = {
        name: weights[number % 4] for number, (name, (_, weights)) in enumerate(CANDIDATES.items())
    }
    assert select_weights(validation(best), CANDIDATES) == best
    monkeypatch.setattr(measurements, "read", lambda place: validation(best))
    frozen = canonical(f"ulfd@teacher=frozen,lambda={best['best_ulfd_frozen']}")
    beta = canonical(f"ulfd@beta=0.5,lambda={best['best_ulfd_beta']}")
    part = Part("", ("cross_entropy", "best_ulfd_frozen", "best_ulfd_beta", frozen))
    assert resolved(part, tmp_path) == ("cross_entropy", frozen, beta)


@pytest.mark.parametrize("name", PARTS)
def test_every_part_can_start(name):
    part = PARTS[name]
    first = {
        candidate: with_lambda(base, weights[0])
        for candidate, (base, weights) in part.candidates.items()
    }
    check(replace(part.run, methods=tuple(first.get(method, method) for method in part.methods)))
    assert len(part.run.seeds) == {"validation": 2}.get(name, 1 if name in CHOOSERS else 5)


def test_validation_sees_no_test_image_and_no_seed_of_the_others():
    for name, part in PARTS.items():
        chooser = PARTS[part.chosen_by].run
        assert chooser.validation_images > 0
        if name not in CHOOSERS:
            assert not set(part.run.seeds) & set(chooser.seeds)
            assert part.run.validation_images == 0
        assert len({len(weights) for _, weights in part.candidates.values()}) == 1  # one budget


def test_the_page_in_the_repository_is_the_one_of_its_data(tmp_path):
    kept = Path(__file__).parents[3] / "results"
    for path in kept.iterdir():
        if path.name != "README.md":
            shutil.copy(path, tmp_path)
    study.execute(results=tmp_path, tables=True)
    assert (tmp_path / "README.md").read_text() == (kept / "README.md").read_text()


def test_a_part_runs_and_its_page_is_made_again_from_its_data(tmp_path, monkeypatch, capsys):
    tiny = replace(
        PARTS["digits"].run,
        seeds=(0, 1),
        recipe=replace(SHORT, iterations=2, batch_size=16),
        pretraining=Pretraining(iterations=2, batch_size=16),
        evaluation_images=20,
    )
    part = replace(PARTS["digits"], run=tiny, methods=("cross_entropy", "ulfd"))
    monkeypatch.setitem(PARTS, "digits", part)
    results, runs = tmp_path / "results", tmp_path / "runs"
    study.execute(("digits",), results=results, runs=runs)
    data = measurements.read(results / "digits")
    metrics = json.loads((runs / "digits/metrics.json").read_text())
    assert data["versions"]
    for method in ("cross_entropy", "ulfd"):
        for seed in ("0", "1"):
            expected = metrics["results"][method][seed]["corruptions"]
            assert data["results"][method][seed]["corruptions"] == expected
    page = (results / "README.md").read_text()
    assert "digits: Another dataset" in page
    (results / "README.md").unlink()
    study.execute(results=results, tables=True)
    assert (results / "README.md").read_text() == page
    capsys.readouterr()


def test_what_is_missing_is_said(tmp_path, capsys):
    with pytest.raises(RunError, match="run that first"):
        study.execute(("chosen",), results=tmp_path)
    with pytest.raises(RunError, match="unknown parts"):
        study.execute(("nothing",), results=tmp_path)
    with pytest.raises(RunError, match="no data yet"):
        study.execute(("full_fashion_mnist",), results=tmp_path)
    assert "full_fashion_mnist needs --data fashion-mnist=FOLDER" in capsys.readouterr().err
    assert study.main(["--tables", "--results", str(tmp_path)]) == 1
    assert "error: " in capsys.readouterr().err
