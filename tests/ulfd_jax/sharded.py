"""The loss on 2 and 4 devices has the global mean, exactly.

A process of its own, for the number of devices is settled when JAX starts; `test_functional.py`
runs it with XLA_FLAGS=--xla_force_host_platform_device_count=4.
"""

from functools import partial

import jax
import numpy as np
from jax import numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.oracle import Case, expected, make_case
from tests.ulfd_jax.stand_in import STAND_IN
from ulfd.gradients import Gradients
from ulfd.kernels import registry
from ulfd_jax import functional, ulfd_loss, value_and_grad

SHAPE = (8, 4, 5, 5)
SIGMAS = [SHAPE, (8, 1, 5, 5), (1, 4, 1, 1)]
OPTIONS = {"weight": 0.1, "clamp": (-3.0, 3.0)}
loss_of = partial(ulfd_loss, **OPTIONS)


def check(results: tuple, case: Case) -> None:
    """The bounds that hold on one device, in float64's terms."""
    loss, gradients = results
    assert not expected(case, **OPTIONS).errors((loss, *gradients))


def spec_of(shape: tuple[int, ...], spec: P) -> P:
    """The features' sharding for an array of `shape`, of the axes along which it varies."""
    return P(*(axis if size > 1 else None for axis, size in zip(spec, shape, strict=False)))


def gspmd(mesh: Mesh, spec: P, case: Case, inputs: tuple[jax.Array, ...]) -> None:
    """jit on sharded arrays: XLA partitions, and the mean is the global one."""
    step = jax.jit(jax.value_and_grad(loss_of, (0, 1, 2)))
    placed = [jax.device_put(x, NamedSharding(mesh, spec_of(x.shape, spec))) for x in inputs]
    compiled = step.lower(*placed).compile()
    sharded = compiled(*placed)
    check(sharded, case)
    loss, (by_student, *_) = sharded
    assert loss.sharding.is_fully_replicated
    assert by_student.sharding.is_equivalent_to(NamedSharding(mesh, spec), 4), by_student.sharding
    assert "all-gather" not in compiled.as_text(), "the features were gathered"


def shard_map(mesh: Mesh, case: Case, inputs: tuple[jax.Array, ...]) -> None:
    """Per shard: the mean of equal shards' means, and the gradients that follow from it."""
    specs = tuple(spec_of(x.shape, P("batch")) for x in inputs)

    def local(*shards: jax.Array) -> jax.Array:
        return jax.lax.pmean(loss_of(*shards), "batch")

    whole = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P())
    check(jax.jit(jax.value_and_grad(whole, (0, 1, 2)))(*inputs), case)


def kernels_run_per_shard(mesh: Mesh, case: Case, inputs: tuple[jax.Array, ...]) -> None:
    """A kernel is chosen by itself inside shard_map only, where there is nothing to partition; a σ
    that the shards share has the sum of their gradients."""
    registry.register(registry.Kernel("stand-in", priority=100, refuses=lambda problem: None))
    functional.IMPLEMENTATIONS["stand-in"] = lambda _: STAND_IN
    assert "pure_callback" not in str(jax.make_jaxpr(ulfd_loss)(*inputs))
    shard_map(mesh, case, inputs)
    specs = tuple(spec_of(x.shape, P("batch")) for x in inputs)

    def local(*shards: jax.Array) -> tuple:
        shares = jax.lax.axis_size("batch")
        loss, gradients = value_and_grad(*shards, upstream=1 / shares, **OPTIONS)
        return jax.lax.pmean(loss, "batch"), gradients

    both = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=(P(), Gradients(*specs)))
    assert "pure_callback" in str(jax.make_jaxpr(both)(*inputs))
    check(jax.jit(both)(*inputs), case)


def main() -> None:
    assert len(jax.devices()) == 4
    for devices in (2, 4):
        chosen = jax.devices()[:devices]
        auto, explicit = (
            jax.make_mesh((devices,), ("batch",), (kind,), devices=chosen)
            for kind in (AxisType.Auto, AxisType.Explicit)
        )
        for shape in SIGMAS:
            case = make_case(SHAPE, shape, lambda x: np.float64(np.float32(x)))
            inputs = tuple(
                jnp.asarray(x, jnp.float32) for x in (case.student, case.teacher, case.log_variance)
            )
            gspmd(auto, P("batch"), case, inputs)
            shard_map(auto, case, inputs)
        gspmd(explicit, P("batch"), case, inputs)
    grid = jax.make_mesh((2, 2), ("batch", "model"), (AxisType.Auto,) * 2)
    gspmd(grid, P("batch", "model"), case, inputs)
    kernels_run_per_shard(auto, case, inputs)


if __name__ == "__main__":
    main()
