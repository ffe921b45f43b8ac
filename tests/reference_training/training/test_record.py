"""What a run writes down is read again as what it was."""

from dataclasses import replace
from pathlib import Path

import pytest

from reference_training.config import SmallRun
from reference_training.presets import PRESETS
from reference_training.training.record import plain, restored


@pytest.mark.parametrize("name", PRESETS)
def test_a_run_is_restored_from_its_description(name):
    run = replace(PRESETS[name], data_root=Path("images"), checkpoint=Path("weights.pth"))
    assert restored(SmallRun, plain(run)) == run


def test_an_unknown_field_is_no_run():
    with pytest.raises(KeyError, match="new"):
        restored(SmallRun, {"new": 1})
