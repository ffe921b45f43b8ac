"""The notebook runs from top to bottom, and what it measures is what it says."""

import contextlib
import io
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

pytest.importorskip("skimage")

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples/uncertainty_map.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def ran():
    """The names that it leaves behind, and what it printed; tiny, as the training is."""
    names, printed = {"__name__": "notebook"}, io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("ULFD_QUICK", "1")
        plt.switch_backend("agg")
        for number, cell in enumerate(CODE):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    plt.close("all")
    return names, printed.getvalue()


def test_it_is_kept_without_outputs():
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CODE)
    assert (NOTEBOOK.parents[1] / "docs/uncertainty_map.ipynb").read_bytes() == (
        NOTEBOOK.read_bytes()
    )


def test_training_and_testing_share_no_pixel(ran):
    names, _ = ran
    for left, name in zip(names["training"], names["NAMES"], strict=True):
        photograph = names["whole"][name]
        assert torch.equal(torch.cat([left, names["testing"][name]], dim=2), photograph)
    assert "coffee" not in names["NAMES"]


def test_pairs_are_degraded_in_a_rectangle(ran):
    names, _ = ran
    torch.manual_seed(0)
    masks = names["rectangles"](200)
    sides = [masks.any(axis).sum(-1) for axis in (2, 3)]
    assert torch.equal(masks.sum((2, 3)), sides[0] * sides[1])  # full: rows × columns
    assert 0.2 < masks.float().mean() < 0.3  # (E[range of three uniforms])² = 1/4
    clean, degraded, labels = names["pairs"](32, in_part=True)
    assert clean.shape == degraded.shape == (32, 3, 64, 64)
    assert labels.max() < len(names["NAMES"])
    changed = (clean != degraded).any(1).float().mean()
    clean, degraded, _ = names["pairs"](32, in_part=False)
    assert 0.02 < changed < 0.5 < (clean != degraded).any(1).float().mean()


def test_the_network_sees_grey_levels(ran):
    names, _ = ran
    seen = names["grey"](torch.tensor([0, 255, 0], dtype=torch.uint8).view(1, 3, 1, 1))
    assert torch.allclose(seen, torch.full((1, 3, 1, 1), 2 / 3 - 1))


def test_only_the_square_is_degraded(ran):
    names, _ = ran
    photograph = names["testing"]["coffee"]
    mask = names["square"](photograph, seed=1)
    found = names["degraded_in"](mask, photograph, "gaussian_noise")
    changed = (found != photograph).any(0)
    assert not changed[~mask].any()
    assert changed[mask].float().mean() > 0.9
    assert mask.sum() == 128**2


def test_low_contrast_is_of_the_grey_image(ran):
    names, _ = ran
    ramp = (torch.arange(32) ** 2 // 8).to(torch.uint8).expand(3, 16, 32)
    flat = torch.full((3, 16, 32), 7, dtype=torch.uint8)
    of_ramp, of_flat = (names["low_contrast"](one, (2, 4)) for one in (ramp, flat))
    assert (of_flat == 0).all()
    assert (of_ramp < 0).all()


def test_the_table_is_what_was_measured(ran):
    names, printed = ran
    rows = {line[:34].strip(): line[34:].split() for line in printed.splitlines()}
    distance = [float(value) for value in rows["distance"]]
    # The feature changes where the image does: whatever the network, if maps and squares agree.
    assert min(distance) > 0.9
    for name in ("θ, pairs degraded in part", "θ, untrained (mean of 5)", "low contrast"):
        assert len(rows[name]) == len(names["KINDS"])
    values = names["measured"]["low contrast", "gaussian_noise"]
    assert float(rows["low contrast"][0]) == pytest.approx(np.mean(values), abs=0.0051)
    assert np.mean(values) < 0.2  # noise has contrast
    blurred = names["measured"]["low contrast", "gaussian_blur"]
    assert np.mean(blurred) > 0.7
