"""What the program may be compiled for: the processors that JAX sees, or one named by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import jax


class Target(NamedTuple):
    """A platform of `jax.lax.platform_dependent` and its architecture.

    Args:
        platform: "cpu", "cuda", "rocm" or "tpu".
        architecture: "sm_90", "gfx942", ...; the platform where it has none.
    """

    platform: str
    architecture: str

    @property
    def device(self) -> str:
        """The device of `ulfd.kernels.registry.Problem`: "cuda" is a GPU of any maker."""
        return "cuda" if self.platform == "rocm" else self.platform


CPU = Target("cpu", "cpu")
_CHOSEN: ContextVar[Target | None] = ContextVar("ulfd_jax_target", default=None)


def _of(device: jax.Device) -> Target:
    if device.platform != "gpu":
        return Target(device.platform, device.platform)
    capability = str(device.compute_capability)  # "9.0", or "gfx942:sramecc+:xnack-" by ROCm
    if capability.startswith("gfx"):
        return Target("rocm", capability.split(":")[0])
    return Target("cuda", f"sm_{capability.replace('.', '')}")


def default() -> Target:
    """Where JAX puts arrays, or what `compiling_for` names."""
    return _CHOSEN.get() or _of(jax.devices()[0])


def targets() -> tuple[Target, ...]:
    """All that the program may meet: the default and the CPU, which is always there."""
    return tuple(dict.fromkeys((default(), CPU)))


def of(array: jax.Array) -> Target:
    """Where an array lies; the default while it is traced, for only XLA knows then."""
    if isinstance(array, jax.core.Tracer) or _CHOSEN.get() is not None:
        return default()
    return _of(next(iter(array.devices())))


def may_be_partitioned(array: jax.Array) -> bool:
    """Whether XLA may split the computation over devices. It cannot look into a kernel, and would
    gather the features on every device; inside shard_map it need not."""
    if not isinstance(array, jax.core.Tracer):
        return len(array.devices()) > 1
    mesh = jax.sharding.get_abstract_mesh()
    manual = bool(mesh.axis_names) and set(mesh.manual_axes) == set(mesh.axis_names)
    return jax.device_count() > 1 and not manual


@contextmanager
def compiling_for(architecture: str) -> Iterator[None]:
    """Traces for a CUDA GPU that need not be there, for `lower(lowering_platforms=("cuda",))`.

    Args:
        architecture: "sm_80", "sm_90", ...
    """
    token = _CHOSEN.set(Target("cuda", architecture))
    try:
        yield
    finally:
        _CHOSEN.reset(token)
