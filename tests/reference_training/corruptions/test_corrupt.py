"""What holds for every corruption: types, ranges, seeds, independence, messages."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reference_training.corruptions import (
    CORRUPTIONS,
    SEEN,
    SEVERITIES,
    UNSEEN,
    batch,
    corrupt,
    frost_source,
)
from reference_training.corruptions.registry import SEMANTICS

SEEDLESS = {
    "defocus_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
    "gaussian_blur",
    "saturate",
}
# Types whose table grows in every number; the others mix effects.
MONOTONE = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "speckle_noise",
    "gaussian_blur",
    "defocus_blur",
    "motion_blur",
    "zoom_blur",
    "fog",
    "brightness",
    "contrast",
    "jpeg_compression",
)
EVERY = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]


def run(images, corruption, severity, seeds, **options):
    return corrupt(images, corruption, severity, seeds=seeds, **{"frost": "procedural"} | options)


@pytest.fixture(scope="module")
def alone(images):
    """Every image under every type and severity, one call for each pair; seeds 0, 1, ..."""
    seeds = torch.arange(len(images))
    return {pair: run(images, *pair, seeds) for pair in EVERY}


def test_names():
    assert len(SEEN) == 15
    assert len(UNSEEN) == 4
    assert CORRUPTIONS == SEEN + UNSEEN
    assert CORRUPTIONS[:3] == ("gaussian_noise", "shot_noise", "impulse_noise")
    assert CORRUPTIONS[14:] == (
        "jpeg_compression",
        "speckle_noise",
        "gaussian_blur",
        "spatter",
        "saturate",
    )


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_definitions_are_complete(semantics):
    functions, sets = SEMANTICS[semantics]
    assert tuple(functions) == CORRUPTIONS
    for _, _, rows in sets.values():
        assert set(rows) == set(CORRUPTIONS)
        for name, function in functions.items():
            takes = len(inspect.signature(function).parameters) - 2 - (name == "frost")
            assert [len(row) for row in rows[name]] == [takes] * len(SEVERITIES), name


@pytest.mark.parametrize(("name", "severity"), EVERY)
def test_shape_dtype_effect_and_determinism(images, alone, name, severity):
    result = alone[name, severity]
    assert result.shape == images.shape
    assert result.dtype == torch.uint8
    changed = (result != images).flatten(1).any(dim=1)
    # Pure grey has no hue and little to lose; a sigma of 0.05 leaves glass blur a pure copy.
    assert changed.sum() >= len(images) - 1
    assert torch.equal(result, run(images, name, severity, torch.arange(len(images))))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_seeds(images, name):
    first, second = (run(images, name, 3, torch.arange(6) + start) for start in (0, 1000))
    equal = (first == second).flatten(1).all(dim=1)
    # A short line blur has few different angles.
    assert equal.all() if name in SEEDLESS else equal.sum() <= 1


def test_types_and_severities_draw_different_numbers():
    grey = torch.full((1, 3, 32, 32), 128, dtype=torch.uint8)
    kinds = [("gaussian_noise", 4), ("gaussian_noise", 5), ("speckle_noise", 5)]
    noise = [run(grey, *kind, 0).flatten().double() for kind in kinds]
    correlation = torch.corrcoef(torch.stack(noise)) - torch.eye(3)
    assert correlation.abs().max() < 5 / grey.numel() ** 0.5


def test_each_image_as_if_alone(images, alone):
    pairs = [(name, severity, i) for name, severity in EVERY for i in range(len(images))]
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0)).tolist()
    names, severities, members = zip(*(pairs[k] for k in order), strict=True)
    members = torch.tensor(members)
    mixed = run(images[members], names, torch.tensor(severities), members)
    for result, name, severity, member in zip(mixed, names, severities, members, strict=True):
        assert torch.equal(result, alone[name, severity][member]), (name, severity)


# Beside the 32x32 images above: other sizes, also one that no vector of a processor divides, and
# the other definition. Small enough to run at every type and severity.
@pytest.fixture(
    scope="module",
    params=[
        (64, {}),
        (37, {"parameters": "cifar32"}),
        (224, {}),
        (224, {"semantics": "imagecorruptions"}),
    ],
    ids=["64", "37", "224", "224, imagecorruptions"],
)
def larger(request, images):
    side, options = request.param
    pixels = torch.nn.functional.interpolate(images[:3].float(), size=side, mode="bicubic")
    return pixels.round().clamp(0, 255).to(torch.uint8), options


def test_independent_at_other_sizes(larger):
    images, options = larger
    names, severities = zip(*EVERY, strict=True)
    seeds = torch.arange(len(EVERY))
    mixed = run(images[seeds % 3], names, severities, seeds, **options)
    assert mixed.unique().numel() == 256
    for name, severity in EVERY:
        i = EVERY.index((name, severity))
        alone = run(images[i % 3][None], name, severity, i, **options)[0]
        assert torch.equal(alone, mixed[i]), (name, severity)


@pytest.mark.parametrize("together", [1, 2, 3])
def test_however_many_are_worked_on_together(larger, monkeypatch, together):
    images, options = larger
    seeds = torch.arange(3)
    for name in CORRUPTIONS:
        single = [run(images[i : i + 1], name, 3, seeds[i : i + 1], **options) for i in range(3)]
        with monkeypatch.context() as patch:
            patch.setattr(batch, "_CHUNK_PIXELS", together * images.shape[-1] ** 2)
            assert torch.equal(run(images, name, 3, seeds, **options), torch.cat(single)), name


def test_definitions_differ_where_they_say(images):
    large = torch.nn.functional.interpolate(images[:2].float(), size=224).to(torch.uint8)
    differ = set()
    for name in CORRUPTIONS:
        one, other = (run(large, name, 2, torch.arange(2), semantics=s) for s in SEMANTICS)
        differ |= set() if torch.equal(one, other) else {name}
    assert differ == {"motion_blur", "snow", "frost", "elastic_transform"}


@pytest.mark.parametrize(("name", "severity"), EVERY)
def test_batch_of_one(images, alone, name, severity):
    assert torch.equal(run(images[5:], name, severity, 5), alone[name, severity][5:])


@settings(max_examples=25)
@given(data=st.data())
def test_independent_of_batch_and_order(images, data):
    size = data.draw(st.integers(2, 9))
    pick = st.lists(st.integers(0, 5), min_size=size, max_size=size)
    members = images[data.draw(pick)]
    subset = ["gaussian_noise", "shot_noise", "glass_blur", "fog", "elastic_transform", "snow"]
    choose = st.lists(st.sampled_from(subset), min_size=size, max_size=size)
    names = data.draw(choose)
    severities = [1 + s % 5 for s in data.draw(pick)]
    wide = st.integers(-(2**63), 2**63 - 1)
    seeds = data.draw(st.lists(wide, min_size=size, max_size=size))
    order = data.draw(st.permutations(range(size)))
    kept = order[: data.draw(st.integers(1, size))]

    whole = run(members, names, severities, torch.tensor(seeds))
    part = run(
        members[kept],
        [names[k] for k in kept],
        [severities[k] for k in kept],
        torch.tensor([seeds[k] for k in kept]),
    )
    assert torch.equal(part, whole[kept])


@pytest.mark.parametrize("name", MONOTONE)
def test_stronger_with_severity(images, alone, name):
    distance = [(alone[name, s].float() - images.float()).abs().mean() for s in SEVERITIES]
    assert distance == sorted(distance)
    assert distance[-1] > 1.2 * distance[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_float_images_are_eight_bit_images(images, alone, name, dtype):
    result = run(images.to(dtype) / 255, name, 4, torch.arange(6))
    assert result.dtype == dtype
    torch.testing.assert_close(result, alone[name, 4].to(dtype) / 255)


@pytest.mark.parametrize("nudge", [-0.4, 0.4])
def test_float_images_are_rounded_first(images, alone, nudge):
    nudged = (images.float() / 255 + nudge / 255).clamp(0, 1)
    result = run(nudged, "fog", 2, torch.arange(6))
    torch.testing.assert_close(result, alone["fog", 2].float() / 255)


def test_half_precision(images):
    result = run(images.half() / 255, "contrast", 1, torch.arange(6))
    assert result.dtype == torch.float16
    assert result.max() <= 1


def test_given_images_are_left_alone(images):
    before = images.clone()
    for name in CORRUPTIONS:
        run(images, name, 5, torch.arange(6))
    assert torch.equal(images, before)


def test_strided_images(images, alone):
    channels_last = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    for name in CORRUPTIONS:
        assert torch.equal(run(channels_last, name, 2, torch.arange(6)), alone[name, 2])


def test_torch_global_generator_is_left_alone(images):
    state = torch.get_rng_state()
    for name in CORRUPTIONS:
        run(images, name, 1, torch.arange(6))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_empty_batch(dtype):
    empty = torch.zeros(0, 3, 32, 32, dtype=dtype)
    for names, severities in (("fog", 1), ([], [])):
        result = run(empty, names, severities, torch.zeros(0, dtype=torch.int64))
        assert result.shape == (0, 3, 32, 32)
        assert result.dtype == dtype


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_other_shapes_by_name(name):
    wide = torch.randint(0, 256, (2, 3, 40, 48), generator=torch.Generator().manual_seed(0))
    result = run(wide.to(torch.uint8), name, 3, [1, 2], parameters="cifar32")
    assert result.shape == wide.shape


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": [1]}, TypeError, r"a NumPy array or a PIL\.Image, got list"),
        ({"images": torch.zeros(32, 32)}, ValueError, r"got \(32, 32\); a grey.*\.unsqueeze\(0\)"),
        ({"images": torch.zeros(2, 3, 0, 5)}, ValueError, "at least one pixel each way"),
        ({"images": np.zeros((2, 32, 32))}, ValueError, r"got \(2, 32, 32\); in NumPy.*reshape"),
        ({"images": np.zeros((2, 3, 32, 32))}, ValueError, r"np\.moveaxis\(images, -3, -1\)"),
        ({"images": np.zeros((2, 32, 32, 3), np.int32)}, TypeError, "floating point.*int32"),
        ({"images": np.zeros((2, 32, 32, 3), object)}, TypeError, "got object"),
        ({"images": np.full((2, 9, 9, 3), 255.0)}, ValueError, "got 255 to 255; corrupt before"),
        ({"images": Image.new("RGBA", (8, 8))}, TypeError, r"got RGBA; .*\.convert\(.RGB.\)"),
        ({"images": Image.new("P", (8, 8))}, TypeError, "got P"),
        (
            {"seeds": None, "seed": 2**31},
            ValueError,
            r"seed: expected -2\^31 to 2.*, got 2147",
        ),
        ({"seeds": None, "seed": 0.5}, TypeError, r"seed: expected a whole number, got 0\.5"),
        (
            {"images": torch.zeros(2, 3, 1, 50), "corruption": "pixelate"},
            ValueError,
            "1x50 pixels are too few for pixelate at severity 1",
        ),
        ({"images": torch.zeros(2, 3, 32, 32, dtype=torch.int64)}, TypeError, "got torch.int64"),
        ({"images": torch.full((2, 3, 32, 32), 2.0)}, ValueError, "before normalising"),
        ({"images": torch.full((2, 3, 32, 32), torch.nan)}, ValueError, "nan"),
        ({"images": torch.full((2, 3, 32, 32), -0.1)}, ValueError, "-0.1"),
        ({"corruption": "gausian_noise"}, ValueError, "did you mean 'gaussian_noise'.*saturate"),
        ({"corruption": "zzz"}, ValueError, "'zzz' is unknown; known are gaussian_noise"),
        ({"corruption": ["fog"]}, ValueError, r"the batch \(2\), got 1"),
        ({"images": torch.zeros(2, 32, 32, 3)}, ValueError, r"\.permute\(0, 3, 1, 2\)"),
        ({"images": torch.zeros(32, 32, 3)}, ValueError, r"\.permute\(2, 0, 1\)"),
        ({"images": torch.zeros(2, 4, 32, 32)}, ValueError, "images have one or three channels"),
        ({"corruption": [1, 2]}, TypeError, "expected names, got int"),
        ({"severity": 0}, ValueError, "got 0"),
        ({"severity": [1, 6]}, ValueError, "got 6"),
        ({"severity": 1.5}, TypeError, "got 1.5"),
        ({"severity": torch.tensor([1.0, 2.0])}, TypeError, "whole numbers"),
        ({"severity": [1, 2, 3]}, ValueError, "got 3"),
        ({"seeds": 1}, ValueError, r"each image of the batch \(2\), got one number; `seed=` makes"),
        (
            {"seeds": [1]},
            ValueError,
            r"expected one for each image of the batch \(2\), got 1",
        ),
        ({"seeds": torch.arange(3)}, ValueError, "got 3"),
        ({"seeds": torch.zeros(2, 1, dtype=torch.int64)}, ValueError, r"got \(2, 1\)"),
        ({"seeds": torch.zeros(2)}, TypeError, "got torch.float32"),
        (
            {"parameters": "cifar"},
            ValueError,
            "'cifar' is unknown; known here are 'cifar32'",
        ),
        ({"semantics": "kornia"}, ValueError, "'kornia' is unknown; known are 'imagenet_c', 'imag"),
        (
            {"semantics": "imagecorruptions", "parameters": "cifar32"},
            ValueError,
            "'cifar32' is unknown; known here are 'imagenet224'",
        ),
        ({"frost": "ice"}, ValueError, "'ice' is unknown; choose one of auto.*or name a folder"),
        ({"frost": Path("ice")}, FileNotFoundError, "ice lacks frost1.png, frost2.png"),
        ({"frost": "./ice"}, FileNotFoundError, "./ice lacks frost1.png, frost2.png"),
    ],
)
def test_messages(change, error, message):
    good = {
        "images": torch.zeros(2, 3, 32, 32),
        "corruption": "fog",
        "severity": 1,
        "seeds": torch.arange(2),
    }
    corrupt(**good)
    with pytest.raises(error, match=message):
        corrupt(**good | change)


def test_frost_source_names_the_overlays():
    assert "stand-in" in frost_source("procedural")
    with pytest.raises(ValueError, match="'ice' is unknown"):
        frost_source("ice")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_same_on_a_gpu(images, alone, name):
    for severity in SEVERITIES:
        result = run(images.cuda(), name, severity, torch.arange(6)).cpu()
        difference = (result.int() - alone[name, severity].int()).abs()
        assert (difference > 0).float().mean() < 1e-4
        assert difference.max() <= 1
