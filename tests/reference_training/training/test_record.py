"""What a run writes down is read again as what it was."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from reference_training.config import Recipe, SmallRun
from reference_training.presets import PRESETS
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import write_json
from reference_training.training.record import BEFORE, check_same_run, plain, restored


@pytest.mark.parametrize("name", PRESETS)
def test_a_run_is_restored_from_its_description(name):
    run = replace(PRESETS[name], data_root=Path("images"), checkpoint=Path("weights.pth"))
    assert restored(SmallRun, plain(run)) == run


def test_a_run_of_a_version_without_some_fields_is_the_same_if_it_did_what_they_say_now(tmp_path):
    run, path = PRESETS["digits"], tmp_path / "run.json"
    now = {"config": plain(run), "dataset": {"name": "digits"}}
    old = {**now, "config": plain(run)}
    assert BEFORE.keys() <= {entry.name for entry in fields(Recipe)}
    for name in BEFORE:  # version 0.2.0
        del old["config"]["recipe"][name]
    write_json(path, old)
    assert check_same_run(path, now)
    for name, other in {"gamma": 0.0, "optimizer": "sgd", "warm_up": 0.1, "epsilon": 1e-6}.items():
        changed = plain(replace(run, recipe=replace(run.recipe, **{name: other})))
        message = rf"recipe.{name} was {BEFORE[name]!r} and is now {other!r}\. Use another folder"
        with pytest.raises(RunError, match=message):
            check_same_run(path, {**now, "config": changed})
    del old["config"]["side"]
    write_json(path, old)
    with pytest.raises(RunError, match=r"side was absent .* now 32 \(an earlier version began it"):
        check_same_run(path, now)
    write_json(path, {"config": {}})
    with pytest.raises(RunError, match="does not describe a run"):
        check_same_run(path, now)


def test_an_unknown_field_is_no_run():
    with pytest.raises(KeyError, match="new"):
        restored(SmallRun, {"new": 1})
