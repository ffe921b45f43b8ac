"""What σ buys at test time: measured of a run's networks, kept, and put on a page."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch

from reference_training.corruptions import UNSEEN
from reference_training.data import load
from reference_training.experiments import stages, test_time
from reference_training.methods.trainings import training
from reference_training.networks import small as networks
from reference_training.presets import PRESETS
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import write_json
from reference_training.training import checkpoint, record
from reference_training.training.checkpoint import Checkpoint
from tests.reference_training.fabricated import write_checkpoint

METHOD = "ulfd@uem.log_variance=spatial,uem=default"
RUN = replace(PRESETS["digits"], methods=("cross_entropy", METHOD), seeds=(0, 1, 2))


@pytest.fixture
def folder(tmp_path):
    """A run whose networks have the weights that they begin with."""
    run = replace(RUN, out=tmp_path / "digits")
    for seed in run.seeds:
        torch.manual_seed(seed)
        step = training(METHOD).make_step(networks.classifier(run, 10), run.recipe, run.uem)
        torch.nn.init.normal_(step.uem.head.weight)
        tensors = {f"{checkpoint.STEP}{name}": value for name, value in step.state_dict().items()}
        for name, at in (("vanilla", 150), (METHOD, run.recipe.iterations)):
            write_checkpoint(stages.folder_of(run, seed, name), Checkpoint(at, tensors, {}))
    write_json(run.folder / "run.json", record.describe(run, load("digits").describe()))
    return run.folder


def test_the_networks_of_a_run_are_measured_and_the_page_is_made_again(folder, tmp_path):
    out = tmp_path / "test_time.csv"
    test_time.execute((folder,), severities=(5,), images=10, out=out)
    rows, facts = test_time.read(out)
    assert [(row["run"], row["method"], row["seed"]) for row in rows] == [
        ("digits", METHOD, seed) for seed in ("0", "1", "2")
    ]
    assert facts["digits"]["images"] == 10
    run = replace(RUN, out=folder, evaluation_images=10)
    for row in rows:
        name = f"{METHOD}/{row['seed']}"
        found = [stages.measure_set(run, corruption, 5, [name]) for corruption in UNSEEN]
        top1 = fmean(result["results"][name]["top1"] for result in found)
        assert row["pooling mean @ unseen"] == pytest.approx(100 * top1, abs=0.006)
    page = tmp_path / "TEST_TIME.md"
    first = page.read_text()
    page.unlink()
    test_time.execute(out=out)
    assert page.read_text() == first

    place = stages.folder_of(run, 2, METHOD)
    earlier = replace(checkpoint.read_latest(place), iteration=50)  # as if it were in training
    write_checkpoint(place, earlier)
    test_time.execute((folder,), severities=(1,), images=10, out=out)
    rows, facts = test_time.read(out)
    assert [row["seed"] for row in rows] == ["0", "1"]
    assert facts["digits"]["severities"] == [1]

    description = json.loads((folder / "run.json").read_text())
    description["dataset"]["sha256"] = "other"
    (folder / "run.json").write_text(json.dumps(description))
    with pytest.raises(RunError, match=r"data\.sha256 was 'other'"):
        test_time.execute((folder,), out=out)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        test_time.execute((tmp_path,), out=tmp_path / "test_time.csv")
    with pytest.raises(RunError, match="no data yet"):
        test_time.execute(out=tmp_path / "test_time.csv")


def test_the_page_in_the_repository_is_the_one_of_its_data(tmp_path):
    kept = Path(__file__).parents[3] / "results"
    for name in ("test_time.csv", "test_time.json"):
        shutil.copy(kept / name, tmp_path)
    test_time.execute(out=tmp_path / "test_time.csv")
    assert (tmp_path / "TEST_TIME.md").read_text() == (kept / "TEST_TIME.md").read_text()
