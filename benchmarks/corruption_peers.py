"""Other packages that corrupt as ImageNet-C does, or say so: what each makes of one image.

A peer is a function of a type and a severity, and returns a function of one image, uint8 (H, W, 3),
or None where it has no such type. Which of them are exact is measured, not assumed. Those that take
tensors in [0, 1] are given them outside of the measured time, and nobody is charged for rounding
what it returns to 8 bits.
"""

import importlib.metadata
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from reference_training.corruptions import SEEN
from reference_training.corruptions.registry import SEMANTICS

Run = Callable[[Any], Any]
Peer = Callable[[str, int], Run | None]

ROWS = SEMANTICS["imagenet_c"].parameter_sets["imagenet224"].rows


def unit_tensor(image: np.ndarray) -> torch.Tensor:
    """float32 (3, H, W) in [0, 1], as the tensors' packages take an image."""
    return torch.from_numpy(image).permute(2, 0, 1).to(torch.float32).div_(255).contiguous()


def levels(result: Any) -> np.ndarray:
    """Whatever a peer returns as 8-bit levels, uint8 (H, W, 3), truncated as ImageNet-C's are."""
    if isinstance(result, torch.Tensor):
        result = 255 * result.squeeze(0).permute(1, 2, 0).double().numpy()
    return np.uint8(np.clip(np.asarray(result) + 1e-4, 0, 255))


def imagecorruptions() -> Peer:
    """The public package, one image at a time."""
    import imagecorruptions as package

    return lambda name, severity: lambda image: package.corrupt(image, severity, name)


def corrupt_tta() -> Peer:
    """A rewriting with OpenCV."""
    import corrupt_tta as package

    return lambda name, severity: lambda image: package.corrupt(image, severity, name)


def torch_uncertainty() -> Peer:
    """Its transforms, on tensors; frost needs a download and is left out."""
    from torch_uncertainty.transforms import corruption as package

    classes = dict(zip(SEEN, package.corruption_transforms, strict=True)) | {
        "speckle_noise": package.SpeckleNoise,
        "gaussian_blur": package.GaussianBlur,
        "saturate": package.Saturation,
    }
    del classes["frost"]
    return lambda name, severity: classes[name](severity) if name in classes else None


def kornia() -> Peer:
    """What of it has a counterpart, with ImageNet-C's parameters."""
    from kornia.augmentation import RandomGaussianNoise
    from kornia.filters import gaussian_blur2d

    def blur(sigma: float) -> Run:
        taps = 2 * int(4 * sigma + 0.5) + 1
        return lambda image: gaussian_blur2d(image[None], taps, (sigma, sigma), "replicate")

    types: dict[str, Callable[..., Run]] = {
        "gaussian_noise": lambda std: RandomGaussianNoise(std=std, p=1),
        "gaussian_blur": blur,
    }
    return _with_rows(types)


def albumentations() -> Peer:
    """What of it has a counterpart, with ImageNet-C's parameters."""
    import albumentations as package

    types: dict[str, Callable[..., Any]] = {
        "gaussian_noise": lambda std: package.GaussNoise(std_range=(std, std), p=1),
        "defocus_blur": lambda radius, blur: package.Defocus((radius, radius), (blur, blur), p=1),
        "glass_blur": lambda sigma, delta, scans: package.GlassBlur(sigma, delta, scans, p=1),
        "zoom_blur": lambda stop, step: package.ZoomBlur((stop, stop), (step, step), p=1),
        "jpeg_compression": lambda quality: package.ImageCompression(
            quality_range=(quality, quality), p=1
        ),
        "gaussian_blur": lambda sigma: package.GaussianBlur((0, 0), (sigma, sigma), p=1),
    }

    def run(transform: Any) -> Run:
        return lambda image: transform(image=image)["image"]

    return _with_rows(
        {name: lambda *row, made=made: run(made(*row)) for name, made in types.items()}
    )


def _with_rows(types: dict[str, Callable[..., Run]]) -> Peer:
    return lambda name, severity: types[name](*ROWS[name][severity - 1]) if name in types else None


PEERS: dict[str, Callable[[], Peer]] = {
    "imagecorruptions-imaug": imagecorruptions,
    "corrupt-tta": corrupt_tta,
    "torch-uncertainty": torch_uncertainty,
    "kornia": kornia,
    "albumentations": albumentations,
}
ON_TENSORS = {"torch-uncertainty", "kornia"}


def installed() -> dict[str, Peer]:
    """The peers that can be imported here, by name and version."""
    found = {}
    for name, load in PEERS.items():
        try:
            version, peer = importlib.metadata.version(name), load()
        except ImportError:
            continue
        found[f"{name} {version}"] = lru_cache(maxsize=None)(peer)
    return found
