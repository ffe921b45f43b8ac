"""The UEM in JAX is torch's: same names, same file, same numbers."""

from functools import partial

import jax
import numpy as np
import optax
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from jax import numpy as jnp

import ulfd_torch
from ulfd import UEMSpec
from ulfd_jax import uem

SPECS = [
    UEMSpec(8),
    UEMSpec(8, log_variance="element", output="neg_relu", global_skip=True),
    UEMSpec(8, log_variance="element", variant="reconstruct"),
    UEMSpec.official(8, blocks=2),
    UEMSpec.official(8, width=3, blocks=1, log_variance="spatial", global_skip=False),
    UEMSpec.official(8, blocks=1, log_variance="sample", output="linear"),
    UEMSpec.official(8, blocks=1, normalization="batch", variant="reconstruct"),
]
# Outputs are of size 1 and the longest sums have fewer than 100 terms: 100 · 2⁻²⁴ = 6e-6.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def pair(spec: UEMSpec, tmp_path) -> tuple:
    """torch's module with busy statistics, and its weights in JAX, by way of a file."""
    torch.manual_seed(0)
    module = ulfd_torch.UEM(spec)
    with torch.no_grad():
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    safetensors.torch.save_file(module.state_dict(), tmp_path / "uem.safetensors")
    return module, *uem.load(tmp_path / "uem.safetensors", spec)


def features() -> np.ndarray:
    return np.random.default_rng(0).random((3, 8, 5, 7), np.float32)


@pytest.mark.parametrize("layout", ["NHWC", "NTC"])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_outputs_are_torchs_own_with_the_channels_last(spec, layout, tmp_path):
    module, params, state = pair(spec, tmp_path)
    module.layout = layout
    x = np.ascontiguousarray(np.moveaxis(features(), 1, -1))
    x = x.reshape(3, 35, 8) if layout == "NTC" else x
    with torch.no_grad():
        theirs = module.eval()(torch.from_numpy(x))
    ours = jax.tree.leaves(uem.apply(params, x, spec=spec, state=state, layout=layout))
    theirs = [theirs] if isinstance(theirs, torch.Tensor) else list(theirs)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other.numpy(), **CLOSE)
    assert ours[0].shape == spec.output_shape(x.shape, layout)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_outputs_are_torchs_in_both_layouts(spec, tmp_path):
    module, params, state = pair(spec, tmp_path)
    x = features()
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x))
    expected = [expected] if isinstance(expected, torch.Tensor) else list(expected)

    @jax.jit
    def both(params, state, x):
        first = uem.apply(params, x, spec=spec, state=state)
        moved = jnp.moveaxis(x, 1, -1)
        second = uem.apply(params, moved, spec=spec, state=state, layout="NHWC")
        return jax.tree.leaves(first), [jnp.moveaxis(y, -1, 1) for y in jax.tree.leaves(second)]

    for outputs in both(params, state, x):
        assert len(outputs) == len(expected)
        for ours, theirs in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), **CLOSE)
        assert outputs[0].shape == spec.output_shape(x.shape)


def test_training_updates_the_state_like_torch(tmp_path):
    spec = SPECS[-1]
    module, params, state = pair(spec, tmp_path)
    x = features()
    with torch.no_grad():
        expected = module.train()(torch.from_numpy(x))
    (output, after) = jax.jit(partial(uem.train, spec=spec))(params, state, x)
    np.testing.assert_allclose(output.log_variance, expected.log_variance.numpy(), **CLOSE)
    statistics = dict(module.named_buffers())
    assert after.keys() == statistics.keys() == state.keys()
    for name, theirs in statistics.items():
        np.testing.assert_allclose(after[name], theirs.numpy(), **CLOSE, err_msg=name)
        assert not np.array_equal(after[name], state[name])  # and the old one is left as it was


@pytest.mark.parametrize("spec", [UEMSpec.official(8, blocks=1), UEMSpec(8)], ids=str)
def test_gradients_are_torchs(spec, tmp_path):
    module, params, _ = pair(spec, tmp_path)
    x = features()
    module(torch.from_numpy(x)).square().sum().backward()

    def loss(params):
        return jnp.sum(uem.apply(params, x, spec=spec) ** 2)

    gradients = jax.jit(jax.grad(loss))(params)
    for name, parameter in module.named_parameters():
        theirs = parameter.grad.numpy()
        bound = 1e-5 * np.abs(theirs).max()
        np.testing.assert_allclose(gradients[name], theirs, rtol=1e-4, atol=bound, err_msg=name)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_one_file_goes_round(spec, tmp_path):
    params, state = uem.init(jax.random.key(1), spec), uem.init_state(spec)
    path = tmp_path / "weights.safetensors"
    uem.save(path, params, state)
    module = ulfd_torch.UEM(spec)
    module.load_state_dict(safetensors.torch.load_file(path))  # strict: every name must match
    for name, array in safetensors.numpy.load_file(path).items():
        np.testing.assert_array_equal(module.state_dict()[name].numpy(), array)
    again = uem.load(path, spec)
    assert jax.tree.structure(again) == jax.tree.structure((params, state))
    jax.tree.map(np.testing.assert_array_equal, again, (params, state))


def test_initial_weights_are_distributed_like_torchs():
    spec = UEMSpec.official(64)
    torch.manual_seed(0)
    module, params = ulfd_torch.UEM(spec), uem.init(jax.random.key(0), spec)
    assert {name: array.shape for name, array in params.items()} == spec.weight_shapes()
    for name, parameter in module.named_parameters():
        theirs, ours = parameter.detach().numpy(), np.asarray(params[name])
        if theirs.size > 1000:  # the bound of a uniform distribution, to a fraction of 1 %
            assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=0.01)
            assert ours.std() == pytest.approx(theirs.std(), rel=0.05)
    assert not np.array_equal(params["head.conv1.weight"], params["blocks.0.conv1.weight"])


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.start_layer], ids=str)
def test_the_start_value_is_torchs(spec, tmp_path):
    module, params, state = pair(spec, tmp_path)
    x, z = features(), 3 * features()[::-1]
    module.start_from(torch.from_numpy(x.copy()), torch.from_numpy(z.copy()), prior_weight=1.5)
    before = {name: np.asarray(array) for name, array in params.items()}
    started = uem.start_from(params, x, z, spec=spec, prior_weight=1.5)
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(started[name], parameter.detach().numpy(), **CLOSE)
        np.testing.assert_array_equal(params[name], before[name])
    found = jax.tree.leaves(uem.apply(started, x, spec=spec, state=state))[0]
    assert found == pytest.approx(np.log(np.mean((x - z) ** 2) / 1.5), rel=1e-5)
    limited = uem.start_from(params, x, z, spec=spec, clamp=(3.0, 5.0))
    assert (jax.tree.leaves(uem.apply(limited, x, spec=spec, state=state))[0] == 3).all()
    same = uem.start_from(params, x, x, spec=spec)
    assert (jax.tree.leaves(uem.apply(same, x, spec=spec, state=state))[0] == 0).all()


def test_half_precision_features_give_half_precision_variances():
    spec = UEMSpec.official(8, blocks=1, normalization="batch")
    params = uem.init(jax.random.key(0), spec)
    x = jnp.asarray(features(), jnp.bfloat16)
    state = uem.init_state(spec)
    assert uem.apply(params, x, spec=spec, state=state).dtype == jnp.bfloat16
    assert uem.train(params, state, x, spec=spec)[0].dtype == jnp.bfloat16


def test_weights_and_statistics_are_float32_where_jax_has_float64():
    spec = UEMSpec.official(8, blocks=1, normalization="batch")
    with jax.enable_x64(True):
        params, state = uem.init(jax.random.key(0), spec), uem.init_state(spec)
        x = jnp.asarray(features(), jnp.float64)
        sigma, after = uem.train(params, state, x, spec=spec)
        assert sigma.dtype == jnp.float64
        for found in (state, after):
            kinds = {name.rsplit(".", 1)[1]: array.dtype for name, array in found.items()}
            assert kinds.pop("num_batches_tracked") == jnp.int32
            assert all(kind == jnp.float32 for kind in kinds.values())
        assert all(weight.dtype == jnp.float32 for weight in params.values())


def test_the_spec_may_pass_through_jit_and_live_among_the_weights():
    spec = UEMSpec.official(8, blocks=1)
    tree = {"uem": uem.init(jax.random.key(0), spec), "spec": spec}
    optimizer = optax.sgd(0.1)

    @jax.jit
    def step(tree, state, x):
        def total(tree):
            return uem.apply(tree["uem"], x, spec=tree["spec"]).sum()

        updates, state = optimizer.update(jax.grad(total)(tree), state)
        return optax.apply_updates(tree, updates), state

    after, _ = step(tree, optimizer.init(tree), features())
    assert after["spec"] == spec
    assert not np.array_equal(after["uem"]["head.conv3.bias"], tree["uem"]["head.conv3.bias"])


KEY, SPEC, BATCH = (
    jax.random.key(0),
    UEMSpec.official(8, blocks=0),
    UEMSpec.official(8, blocks=0, normalization="batch"),
)
PARAMS, X = uem.init(KEY, SPEC), np.ones((2, 8, 5, 6), np.float32)
WRONG = {
    "channels": (lambda: uem.apply(PARAMS, X[:, :4], spec=SPEC), r"8, H, W\), got \(2, 4, 5, 6\)"),
    "channels last": (
        lambda: uem.apply(PARAMS, X.transpose(0, 2, 3, 1), spec=SPEC),
        r"got \(2, 5, 6, 8\); is the last axis the channels\? pass layout='NHWC'",
    ),
    "pooled": (lambda: uem.apply(PARAMS, X[..., 0, 0], spec=SPEC), "before pooling"),
    "integers": (lambda: uem.apply(PARAMS, X.astype(np.uint8), spec=SPEC), "UEM: .* dtype uint8"),
    "layout": (lambda: uem.apply(PARAMS, X, spec=SPEC, layout="HWC"), "layout is 'HWC'"),
    "fewer blocks": (
        lambda: uem.apply(PARAMS, X, spec=UEMSpec.official(8, blocks=1)),
        r"6 names or shapes differ.*'blocks\.0\..* with shape None.*UEMSpec they were made with",
    ),
    "more blocks": (
        lambda: uem.apply(uem.init(KEY, UEMSpec.official(8, blocks=1)), X, spec=SPEC),
        r"6 names or shapes differ, the first is 'blocks\.0\..* instead of None",
    ),
    "width": (
        lambda: uem.apply(PARAMS, X, spec=UEMSpec.official(8, width=5, blocks=0)),
        r"'head\.conv1\.bias' with shape \(2,\) instead of \(5,\)",
    ),
    "nested": (lambda: uem.apply({"uem": PARAMS}, X, spec=SPEC), "first is 'uem' with shape dict"),
    "not unpacked": (lambda: uem.apply((PARAMS, {}), X, spec=SPEC), "params is a tuple.*uem.load"),
    "swapped": (lambda: uem.apply(X, PARAMS, spec=SPEC), "params is an array.*params, features"),
    "no state": (
        lambda: uem.apply(uem.init(KEY, BATCH), X, spec=BATCH),
        r"normalization='batch' needs its state.*init_state.*train.*load",
    ),
    "empty state": (
        lambda: uem.train(uem.init(KEY, BATCH), {}, X, spec=BATCH),
        "state does not hold the running statistics of .*init_state",
    ),
    "state None": (lambda: uem.train(PARAMS, None, X, spec=SPEC), "state is a NoneType"),
    "the old default": (
        lambda: uem.apply(PARAMS, X, spec=UEMSpec(8)),
        r"official UEM's, which was the default once; build it with UEMSpec\.official\(8\)",
    ),
    "no start": (lambda: uem.start_from(PARAMS, X, X, spec=SPEC), "has no start value.*'linear'"),
    "channels for a spec": (lambda: uem.apply(PARAMS, X, spec=8), r"spec is 8.*UEMSpec\(64\)"),
    "init, channels": (lambda: uem.init(KEY, 8), r"spec is 8.*UEMSpec\(64\)"),
    "init, seed": (lambda: uem.init(0, SPEC), r"key is 0.*jax\.random\.key\(0\)"),
    "init, swapped": (lambda: uem.init(SPEC, KEY), r"key is UEMSpec"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use(name):
    call, message = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_wrong_files(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(TypeError, match=r"params\['uem'\] is a dict.*UEM's weights alone"):
        uem.save(path, {"uem": PARAMS})
    assert not path.exists()
    uem.save(path, PARAMS)
    with pytest.raises(ValueError, match="load it with the UEMSpec it was saved with"):
        uem.load(path, UEMSpec.official(8, blocks=1))
    with pytest.raises(ValueError, match=r"build it with UEMSpec\.official\(8\)"):
        uem.load(path, UEMSpec(8))


def test_a_saved_file_has_the_usual_permissions(tmp_path):
    uem.save(tmp_path / "w.safetensors", PARAMS)
    (tmp_path / "other").touch()
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
