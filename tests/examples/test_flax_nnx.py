"""The Flax example trains by Eq. 10, and what it saves is its network alone."""

import numpy as np
import pytest
from safetensors.numpy import load_file

pytest.importorskip("flax", reason="needs pip install flax")
pytest.importorskip("optax", reason="needs pip install optax")

from flax import nnx

from examples import flax_nnx
from tests.examples.checks import assert_program
from ulfd_jax import uem

WIDTH = 16


def by_name(module, *kinds):
    flat = nnx.to_flat_state(nnx.state(module, *kinds))
    return {".".join(map(str, path)): np.asarray(value[...]) for path, value in flat}


def test_it_trains_and_saves_the_network(tmp_path, capsys):
    out = tmp_path / "network.safetensors"
    student = flax_nnx.main(iterations=2, width=WIDTH, out=out)
    assert "on 500 test images" in capsys.readouterr().out
    first = by_name(flax_nnx.Student(WIDTH, rngs=nnx.Rngs(0)), nnx.Param)
    trained = by_name(student, nnx.Param)
    assert trained.keys() == first.keys()
    assert sum(name.startswith("uem.weights.") for name in trained) == 4
    for name, weight in trained.items():
        assert np.isfinite(weight).all(), name
        assert (weight != first[name]).any(), name

    saved = load_file(out)
    assert not any("uem" in name for name in saved)
    images = np.random.default_rng(0).random((2, 16, 16, 1), np.float32)
    fresh = flax_nnx.Network(WIDTH, rngs=nnx.Rngs(1))
    fresh.eval()
    assert saved.keys() == by_name(fresh).keys()
    state = nnx.state(fresh)
    for path, value in nnx.to_flat_state(state):
        value[...] = saved[".".join(map(str, path))]
    nnx.update(fresh, state)
    given, loaded = (x.logits(x.features(images)) for x in (student.network, fresh))
    assert np.array_equal(given, loaded)


def test_the_objective_is_eq_10():
    student = flax_nnx.Student(WIDTH, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    clean, degraded = rng.random((2, 8, 16, 16, 1), np.float32)
    labels = np.arange(8)
    z_hat, z = (np.asarray(student.network.features(x), np.float64) for x in (degraded, clean))
    weights = {name: weight[...] for name, weight in student.uem.weights.items()}
    # In the other layout, and without the module.
    moved = np.moveaxis(z_hat, 3, 1).astype(np.float32)
    sigma = uem.apply(weights, moved, spec=student.uem.spec)
    sigma = np.moveaxis(np.asarray(sigma, np.float64), 1, 3)
    assert sigma.shape == (8, 1, 1, 1)
    assert np.abs(sigma).max() < 10  # no clamp acts
    expected = 0.1 * np.mean(np.exp(-sigma) * (z - z_hat) ** 2 + 2 * sigma)
    classifier = student.network.classifier
    kernel, bias = np.asarray(classifier.kernel[...]), np.asarray(classifier.bias[...])
    for feature in (z, z_hat):
        logits = feature.mean((1, 2)) @ kernel + bias
        picked = logits[np.arange(8), labels]
        expected += np.mean(np.log(np.exp(logits).sum(1)) - picked)
    found = flax_nnx.objective(student, clean, degraded, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_it_is_a_program_and_on_the_page(capsys):
    assert_program(flax_nnx)
