"""The UEM as data."""

import math

import numpy as np
import pytest

from ulfd import UEMSpec


def test_published_parameter_count():
    spec = UEMSpec.official(2048)
    assert spec.bottleneck_width == 512
    assert spec.parameters() == 47_995_904
    assert UEMSpec.official(2048, variant="reconstruct").parameters() == 52_455_424


def test_the_official_one_is_what_the_default_was():
    """Every field by name: old files and configurations say them."""
    kept = {"structure": "official", "output": "neg_relu", "log_variance": "element"}
    assert UEMSpec.official(64) == UEMSpec(64, **kept, global_skip=True)
    assert UEMSpec.official(64, blocks=1, global_skip=False) == UEMSpec(64, blocks=1, **kept)


def test_the_default_has_no_skip_and_one_variance_for_each_image():
    spec = UEMSpec(64)
    assert (spec.structure, spec.output, spec.global_skip) == ("pointwise", "linear", False)
    assert not spec.residual_heads
    assert spec.output_shape((3, 64, 5, 7)) == (3, 1, 1, 1)


@pytest.mark.parametrize(
    ("spec", "layer"),
    [
        (UEMSpec(8), "to_map"),
        (UEMSpec(8, log_variance="element"), "head"),
        (UEMSpec(8, log_variance="element", global_skip=True), None),
        (UEMSpec(8, output="neg_relu"), None),
        (UEMSpec.official(8), None),
        (UEMSpec.official(8, output="linear", global_skip=False), None),
        (UEMSpec.official(8, output="linear", log_variance="spatial"), "to_map"),
    ],
    ids=str,
)
def test_a_start_value_needs_a_last_layer_that_alone_says_sigma(spec, layer):
    assert spec.start_layer == layer
    if layer is None:
        with pytest.raises(ValueError, match=r"has no start value.*output='linear'"):
            spec.checked_start_layer(2.0)
    else:
        assert layer in {convolution.name for convolution in spec.convolutions()}
        with pytest.raises(ValueError, match="prior_weight is 0"):
            spec.checked_start_layer(0)


def test_parameters_are_the_sum_of_the_parts():
    shapes = UEMSpec.official(2048).weight_shapes()
    parts = {}
    for name, shape in shapes.items():
        part = name.split(".")[0]
        parts[part] = parts.get(part, 0) + math.prod(shape)
    assert parts == {"deconv": 16_779_264, "blocks": 26_757_120, "head": 4_459_520}


def test_a_pointwise_uem_is_one_convolution():
    spec = UEMSpec(2048, log_variance="element")
    assert spec.weight_shapes() == {"head.weight": (2048, 2048, 1, 1), "head.bias": (2048,)}
    assert spec.parameters() == 2048 * 2049
    assert spec.multiply_accumulates(7, 7) == 49 * 2048**2
    mapped = UEMSpec(64, variant="reconstruct")
    assert [name for name in mapped.weight_shapes() if name.endswith("weight")] == [
        "head.weight",
        "reconstruction.weight",
        "to_map.weight",
    ]
    assert mapped.parameters() == 2 * 64 * 65 + 9 * 64 + 1


def test_multiply_accumulates_are_the_sum_of_the_parts():
    """C = 4w = 2048 at 7×7: every output pixel of the deconv sees one of the kernel's four taps."""
    c, w, area = 2048, 512, 49
    block = 2 * c * w + 9 * w * w
    deconv, blocks, head = 4 * area * c * c, 6 * 4 * area * block, area * block
    assert [round(part / 1e9, 2) for part in (deconv, blocks, head)] == [0.82, 5.24, 0.22]
    assert UEMSpec.official(c).multiply_accumulates(7, 7) == deconv + blocks + head
    two_heads = UEMSpec.official(c, variant="reconstruct").multiply_accumulates(7, 7)
    assert two_heads == deconv + blocks + 2 * head


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("element", (3, 64, 5, 7)), ("spatial", (3, 1, 5, 7)), ("sample", (3, 1, 1, 1))],
)
def test_output_shapes(kind, shape):
    spec = UEMSpec(64, log_variance=kind)
    assert spec.output_shape((3, 64, 5, 7)) == shape
    batch, channels, height, width = shape
    assert spec.output_shape((3, 5, 7, 64), "NHWC") == (batch, height, width, channels)
    tokens = {"element": (3, 35, 64), "spatial": (3, 35, 1), "sample": (3, 1, 1)}
    assert spec.output_shape((3, 35, 64), "NTC") == tokens[kind]


@pytest.mark.parametrize(
    "options",
    [
        {"channels": 0},
        {"channels": 8, "width": 0},
        {"channels": 8, "blocks": -1},
        {"channels": 8, "blocks": 1},
        {"channels": 8, "variant": "c"},
        {"channels": 8, "output": "exp"},
        {"channels": 8, "log_variance": "pixel"},
        {"channels": 8, "normalization": "layer"},
        {"channels": 8, "structure": "linear"},
        {"channels": 8, "structure": "pointwise", "blocks": 1},
        {"channels": 8, "structure": "pointwise", "width": 2},
        {"channels": 8, "structure": "pointwise", "normalization": "batch"},
    ],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="UEMSpec"):
        UEMSpec(**options)


@pytest.mark.parametrize("wrong", [{"channels": "64"}, {"channels": (2, 64, 7, 7)}, {"width": 2.5}])
def test_sizes_are_whole_numbers(wrong):
    with pytest.raises(TypeError, match=r"must be a whole number; channels is feature\.shape"):
        UEMSpec(**{"channels": 64, **wrong})
    assert UEMSpec(np.int64(64)) == UEMSpec(64)


@pytest.mark.parametrize(
    ("shape", "layout", "message"),
    [
        ((2, 4, 7, 7), "NCHW", r"\(B, 8, H, W\), got \(2, 4, 7, 7\); build the UEM"),
        ((2, 7, 5, 8), "NCHW", r"\(B, 8, H, W\), got \(2, 7, 5, 8\); is the last .*'NHWC'"),
        ((2, 8, 7, 5), "NHWC", r"\(B, H, W, 8\), got \(2, 8, 7, 5\); is the second .*'NCHW'"),
        ((2, 7, 5, 4), "NHWC", r"\(B, H, W, 8\), got \(2, 7, 5, 4\); build the UEM"),
        ((2, 8), "NCHW", r"got \(2, 8\); take the feature before pooling"),
        ((2, 49, 8), "NHWC", r"got \(2, 49, 8\); is the last .*'NTC'"),
        ((2, 49, 4), "NTC", r"\(B, T, 8\), got \(2, 49, 4\); build the UEM"),
        ((2, 8, 7, 7), "CHW", "layout is 'CHW'"),
    ],
)
def test_bad_features(shape, layout, message):
    with pytest.raises(ValueError, match=message):
        UEMSpec(8).output_shape(shape, layout)


def test_features_that_look_like_channels_last_are_warned_of(recwarn):
    with pytest.warns(UserWarning, match=r"take UEM\(2048, layout='NHWC'\)"):
        UEMSpec(7).output_shape((2, 7, 7, 2048))
    for shape in ((2, 7, 7, 7), (2, 8, 7, 9), (2, 7, 7, 5), (2, 7, 8, 9)):
        UEMSpec(shape[1]).output_shape(shape)
    UEMSpec(2048).output_shape((2, 7, 7, 2048), "NHWC")
    assert not recwarn.list
