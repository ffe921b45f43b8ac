"""The UEM as data."""

import math

import pytest

from ulfd import UEMSpec


def test_published_parameter_count():
    spec = UEMSpec(2048)
    assert spec.bottleneck_width == 512
    assert spec.parameters() == 47_995_904
    assert UEMSpec(2048, variant="reconstruct").parameters() == 52_455_424


def test_parameters_are_the_sum_of_the_parts():
    shapes = UEMSpec(2048).weight_shapes()
    parts = {}
    for name, shape in shapes.items():
        part = name.split(".")[0]
        parts[part] = parts.get(part, 0) + math.prod(shape)
    assert parts == {"deconv": 16_779_264, "blocks": 26_757_120, "head": 4_459_520}


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("element", (3, 64, 5, 7)), ("spatial", (3, 1, 5, 7)), ("sample", (3, 1, 1, 1))],
)
def test_output_shapes(kind, shape):
    assert UEMSpec(64, log_variance=kind).output_shape((3, 64, 5, 7)) == shape


@pytest.mark.parametrize(
    "options",
    [
        {"channels": 0},
        {"channels": 8, "width": 0},
        {"channels": 8, "blocks": -1},
        {"channels": 8, "variant": "c"},
        {"channels": 8, "output": "exp"},
        {"channels": 8, "log_variance": "pixel"},
        {"channels": 8, "normalization": "layer"},
    ],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="UEMSpec"):
        UEMSpec(**options)


def test_bad_features():
    with pytest.raises(ValueError, match=r"expected features \(B, 8, H, W\), got \(2, 4, 7, 7\)"):
        UEMSpec(8).output_shape((2, 4, 7, 7))
