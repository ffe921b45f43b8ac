"""A meter's numbers against another way through the network, and what it refuses."""

import math
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, special

from reference_training.data import load
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import write_json
from reference_training.uncertainty.meter import load_meter

IMAGES = load("digits").test_images[:5]


@torch.no_grad()
def forward(step, x, layer="layer3"):
    """σ, ẑ and the logits of normalised images."""
    modules = dict(step.model.named_children())
    feature = x
    for name in ("stem", "layer1", "layer2", "layer3"):
        feature = modules[name](feature)
        if name == layer:
            tapped = feature
    sigma, logits = step.uem(tapped), step.model.fc(feature.mean((2, 3)))
    return sigma.double().numpy(), tapped.double().numpy(), logits.double().numpy()


def test_scores_by_their_definitions(run):
    folder, step = run("ulfd")
    sigma, feature, logits = forward(step, IMAGES.float() / 127.5 - 1)
    meter = load_meter(folder)
    other, _, _ = forward(
        type("Step", (), {"model": step.model, "uem": meter.untrained}), IMAGES.float() / 127.5 - 1
    )
    laplacian = [ndimage.laplace(image)[1:-1, 1:-1] for image in IMAGES.double().mean(1).numpy()]
    expected = {
        "theta": np.exp(sigma / 2).mean((1, 2, 3)),
        "untrained": np.exp(other / 2).mean((1, 2, 3)),
        "confidence": 1 - special.softmax(logits, axis=1).max(1),
        "activation": -feature.mean((1, 2, 3)),
        "smoothness": -np.abs(laplacian).mean((1, 2)),
    }
    found = meter.score(IMAGES)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert values.std() > 1e-4  # or any order would do
        # The network computes in float32, and in another memory order.
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    assert np.abs(expected["theta"] - expected["untrained"]).min() > 1e-4
    places = meter.theta_map(IMAGES).numpy()
    np.testing.assert_allclose(places, np.exp(sigma / 2).mean(1), rtol=1e-5, atol=1e-6)


def test_the_untrained_uem_is_always_the_same(run):
    folder, _ = run("ulfd")
    first = load_meter(folder).score(IMAGES)
    torch.manual_seed(7)
    assert load_meter(folder).score(IMAGES) == first


@pytest.mark.parametrize(
    ("name", "layer"),
    [("ulfd@layer=shallow,uem.blocks=1", "stem"), ("ulfd@uem.log_variance=spatial", "layer3")],
)
def test_a_trainings_name_says_what_it_changed(name, layer, run):
    folder, step = run(name)
    sigma, _, _ = forward(step, IMAGES.float() / 127.5 - 1, layer)
    found = load_meter(folder).score(IMAGES)["theta"]
    np.testing.assert_allclose(found, np.exp(sigma / 2).mean((1, 2, 3)), rtol=1e-5, atol=1e-6)


def test_a_uem_that_reconstructs(run):
    folder, step = run("ulfd_reconstruct")
    meter = load_meter(folder)
    outputs = []  # the module stands inside the network
    step.uem.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.no_grad():
        step.model(IMAGES.float() / 127.5 - 1)
    (output,) = outputs
    expected = (output.log_variance.double() / 2).exp().mean((1, 2, 3))
    np.testing.assert_allclose(meter.score(IMAGES)["theta"], expected, rtol=1e-5, atol=1e-6)


def test_an_export_is_enough(exported):
    folder, step = exported
    meter = load_meter(folder)
    assert load_meter(folder.parent).score(IMAGES) == meter.score(IMAGES)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))
    pixels = meter.view(image)
    whole = np.asarray(image.resize((40, 40), Image.Resampling.BILINEAR))
    assert np.array_equal(pixels.movedim(0, -1).numpy(), whole[4:36, 4:36])
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    sigma, _, _ = forward(step, ((pixels / 255 - mean) / std)[None])
    expected = np.exp(sigma / 2).mean()
    assert meter.score(pixels[None])["theta"] == pytest.approx([expected], rel=1e-5)


def test_damaged_and_foreign_models_are_named(run, exported, tmp_path):
    run_folder, _ = run("ulfd")
    with pytest.raises(RunError, match=r"seed-0 holds neither .*seed-0/ulfd"):
        load_meter(run_folder.parent)
    with pytest.raises(RunError, match="none holds neither"):
        load_meter(tmp_path / "none")
    with pytest.raises(RunError, match="vanilla has no UEM"):
        load_meter(run("vanilla")[0])
    weights = run_folder / "00000001.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(RunError, match="damaged"):
        load_meter(run_folder)
    folder, _ = exported
    (folder / "uem.safetensors").write_bytes(pickle.dumps(print))
    with pytest.raises(RunError, match=r"uem.safetensors is not readable as weights"):
        load_meter(folder)
    write_json(folder / "config.json", {"arch": "resnet8"})
    with pytest.raises(RunError, match=r"is not of this version .*'classes'"):
        load_meter(folder)
    (folder / "config.json").unlink()
    with pytest.raises(RunError, match=r"config.json"):
        load_meter(folder)


def test_scores_that_are_no_numbers_end_it(run):
    meter = load_meter(run("ulfd")[0])
    with torch.no_grad():
        meter.uem.deconv.bias.fill_(math.nan)
    with pytest.raises(RunError, match="theta"):
        meter.score(IMAGES)
