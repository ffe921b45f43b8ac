"""Which kernel serves which inputs, and why another one refuses.

A kernel is registered with one function that looks at a `Problem` and returns None, or the
reason why it cannot serve it. An explicit choice that is refused raises; an automatic one takes
the first kernel, by priority, that does not refuse.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

from ulfd import checks
from ulfd.kernels import jax_versions
from ulfd.kernels.cpu import library
from ulfd.options import DEFAULT, LossOptions


class Problem(NamedTuple):
    """What a kernel is asked to compute, as plain data."""

    framework: str  # "numpy", "torch", "jax", or the name of another array library
    device: str  # "cpu", "cuda", ...
    dtypes: tuple[str, ...]  # of student, teacher and, if there is one, log_variance
    shape: tuple[int, ...]  # of the features
    log_variance_shape: tuple[int, ...] | None
    options: LossOptions = DEFAULT


@dataclass(frozen=True)
class Kernel:
    """A way to compute the loss.

    Args:
        priority: the greatest of those that serve a problem is the automatic choice.
        refuses: why it cannot serve a problem, or None.
        likelihoods: those that it implements; None for every one, as a kernel does that calls
            `ulfd.losses` itself.
        unavailable: why this installation lacks it, if it does.
        device: the kind of device that it serves; None for any.
    """

    name: str
    priority: int
    refuses: Callable[[Problem], str | None]
    likelihoods: tuple[str, ...] | None = ("gaussian",)
    unavailable: Callable[[], str | None] = lambda: None
    device: str | None = None

    def refusal(self, problem: Problem) -> str | None:
        """Why it does not serve the problem, or None."""
        likelihood = problem.options.likelihood
        if self.likelihoods is not None and likelihood not in self.likelihoods:
            return f"{self.name}: has no {likelihood!r}, only {', '.join(self.likelihoods)}"
        return self.refuses(problem)


KERNELS: dict[str, Kernel] = {}  # best first


def register(kernel: Kernel) -> None:
    """Adds a kernel. Raises ValueError if its name is taken."""
    if kernel.name in KERNELS:
        raise ValueError(f"a kernel named {kernel.name!r} is registered already.")
    ordered = sorted([*KERNELS.values(), kernel], key=lambda kernel: -kernel.priority)
    KERNELS.clear()
    KERNELS.update((kernel.name, kernel) for kernel in ordered)
    chosen.cache_clear()


def refusals(problem: Problem) -> dict[str, str | None]:
    """For every kernel, best first: None if it serves the problem, or the reason it does not."""
    return {name: kernel.refusal(problem) for name, kernel in KERNELS.items()}


def check_name(implementation: str | None) -> None:
    """Raises ValueError unless it is a kernel's name, or None for the best one."""
    if implementation is not None and implementation not in KERNELS:
        raise ValueError(
            f"ulfd_loss: unknown implementation {implementation!r}; use None (automatic) or one "
            f"of {sorted(KERNELS)}."
        )


def select(problem: Problem, implementation: str | None = None) -> str:
    """The name of the kernel that serves the problem.

    Args:
        problem: the inputs, described.
        implementation: a kernel's name, or None for the best one that does not refuse.
    Raises:
        ValueError: an unknown name, or a named kernel that refuses, with its reason.
    """
    if implementation is None:
        return next(name for name, kernel in KERNELS.items() if kernel.refusal(problem) is None)
    check_name(implementation)
    reason = KERNELS[implementation].refusal(problem)
    if reason is not None:
        raise ValueError(
            f"ulfd_loss: implementation {implementation!r} cannot serve these inputs: {reason}; "
            "pass implementation=None to use the best one that can."
        )
    return implementation


@lru_cache(maxsize=4096)
def chosen(
    framework: str,
    shapes: tuple[tuple[int, ...], ...],
    dtypes: tuple[Any, ...],
    devices: tuple[Any, ...],
    options: LossOptions,
    implementation: str | None,
) -> str:
    """The name of the kernel for inputs that pass the checks.

    Remembered, for a training asks the same thing again at every step.

    Args:
        framework: as in `Problem`.
        shapes, dtypes, devices: of student, teacher and, if there is one, log_variance.
        options: of `ulfd.options.loss_options`.
        implementation: as in `select`.
    Raises:
        ValueError, TypeError: as `ulfd.checks` and `select` word them.
    """
    names = checks.INPUTS[: len(shapes)]
    checks.check_dtypes(**dict(zip(names, dtypes, strict=True)))
    checks.check_devices(**dict(zip(names, devices, strict=True)))
    sigma = shapes[2] if len(shapes) > 2 else None
    checks.check_shapes(shapes[0], shapes[1], sigma, options.reduction)
    problem = Problem(
        framework=framework,
        device=str(devices[0]).split(":")[0],
        dtypes=tuple(map(checks.dtype_name, dtypes)),
        shape=shapes[0],
        log_variance_shape=sigma,
        options=options,
    )
    return select(problem, implementation)


# Read once, as Triton itself reads it; and tracing compilers cannot look into the file system.
TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")
_TRITON_MISSING = (
    None if find_spec("triton") else "triton is not installed: pip install 'ulfd[triton]'"
)


def _triton_refuses(problem: Problem) -> str | None:
    if problem.framework not in ("torch", "jax"):
        return f"it serves torch and jax, not {problem.framework}"
    if problem.options.reduction == "none":
        return "reduction='none' keeps every element, which leaves nothing to fuse"
    if "float64" in problem.dtypes:
        return "float64 inputs go to the composite form"
    interpreted = TRITON_INTERPRETED and problem.framework == "torch"
    if problem.device != "cuda" and not interpreted:
        return f"student is on {problem.device}, not on a GPU (cuda)"
    if problem.framework == "jax":
        return jax_versions.unavailable()
    return _TRITON_MISSING


register(
    Kernel(
        "triton",
        priority=20,
        refuses=_triton_refuses,
        unavailable=lambda: _TRITON_MISSING,
        device="cuda",
    )
)


def _native_refuses(problem: Problem) -> str | None:
    if problem.framework not in ("numpy", "torch", "jax"):
        return f"it serves numpy, torch and jax, not {problem.framework}"
    if problem.device != "cpu":
        return f"student is on {problem.device}, not on the CPU"
    if problem.options.reduction == "none":
        return "reduction='none' keeps every element, which leaves nothing to fuse"
    return library.XLA_MISSING if problem.framework == "jax" else library.MISSING


register(
    Kernel(
        "native",
        priority=10,
        refuses=_native_refuses,
        unavailable=lambda: library.MISSING,
        device="cpu",
    )
)
register(Kernel("composite", priority=0, refuses=lambda problem: None, likelihoods=None))
