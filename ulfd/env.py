"""`python -m ulfd.env`: versions, devices and kernels on one screen, for bug reports."""

import importlib.metadata
import os
import platform
from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec

import ulfd
from ulfd.kernels import jax_versions, registry

PACKAGES = (
    *("numpy", "array-api-compat", "torch", "torchvision", "triton"),
    *("jax", "jaxlib", "jax-triton"),
)


def versions() -> dict[str, str]:
    """The version of every package that matters, or "not installed"."""
    found = {"ulfd": ulfd.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _counted(names: Iterable[str]) -> list[str]:
    """Each name once, so that a machine with eight GPUs still fits the screen."""
    return [f"{name} ({number})" for name, number in Counter(names).items()]


def devices() -> list[str]:
    """The processors that the installed frameworks see, and in brackets how many of a kind."""
    seen = [f"cpu: {platform.machine()}, {os.cpu_count()} logical cores"]
    if find_spec("torch"):
        import torch  # the frameworks load only when someone asks for this report

        seen += _counted(
            f"cuda: {torch.cuda.get_device_name(index)}, CUDA {torch.version.cuda}"
            for index in range(torch.cuda.device_count())
        )
    if find_spec("jax"):
        import jax

        seen += _counted(f"jax {device.platform}: {device.device_kind}" for device in jax.devices())
    return seen


def _state(kernel: registry.Kernel, seen: list[str]) -> str:
    reason = kernel.unavailable()
    served = kernel.device is None or any(device.startswith(kernel.device) for device in seen)
    if reason is None and not served:
        reason = f"it serves {kernel.device} devices, and this machine shows none"
    return "available" if reason is None else f"unavailable: {reason}"


def kernels() -> dict[str, str]:
    """Every registered kernel: "available", or why it is not on this machine."""
    seen = devices()
    return {kernel.name: _state(kernel, seen) for kernel in registry.KERNELS.values()}


def report() -> str:
    """The whole report, one line a fact."""
    lines = [f"platform: {platform.platform()}"]
    lines += [f"{name}: {version}" for name, version in versions().items()]
    lines += [f"device {device}" for device in devices()]
    lines += [f"kernel {name}: {state}" for name, state in kernels().items()]
    reason = jax_versions.unavailable()
    lines.append(f"kernel triton in jax: {'versions fit' if reason is None else reason}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
