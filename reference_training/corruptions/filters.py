"""What several families share: eight-bit levels, borders, filters.

Images are floating point (N, C, H, W) in [0, 1]; everything is computed in their dtype. `corrupt`
hands over float32: its rounding, about 1e-5 of a grey level, is far below the one level by which
the public implementations themselves differ. Whatever sums over pixels here does so in an order
that depends on the size of an image and not on the number of images, so that an image comes out
the same, bit for bit, in every batch. Constant matrices and kernels are built once for each device
and dtype, and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import groupby
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

Border = Literal["nearest", "reflect", "mirror"]
_PADDING = {"nearest": "replicate", "mirror": "reflect"}
# With so few taps, shifted sums are faster than a product with a matrix or a Fourier transform.
FEW_TAPS = 25

# Flat regions land on whole grey levels up to the last bits of a sum, where truncation would be
# decided by the order of summation. This part of a level, more than float32 errs and less than a
# Gaussian's least weight that counts, decides for the whole level instead.
_UNDECIDED = 2e-4


_Corruption = TypeVar("_Corruption", bound=Callable[..., Tensor])
_OF_LEVELS: set[Callable[..., Tensor]] = set()
_PER_IMAGE: set[Callable[..., Tensor]] = set()
Number = float | Tensor
"""One for all images, or one for each: float64 (N, 1, 1, 1) on the CPU."""


def per_image(corruption: _Corruption) -> _Corruption:
    """Marks a corruption whose arguments are `Number`s, so that all severities go together."""
    _PER_IMAGE.add(corruption)
    return corruption


def takes_numbers_per_image(corruption: Callable[..., Tensor]) -> bool:
    """Whether a corruption's arguments may differ between the images of a batch."""
    return corruption in _PER_IMAGE


def number_for(images: Tensor, number: Number) -> Number:
    """A number to compute with images: rounded to their dtype, as one for all of them is."""
    return number.to(images.dtype).to(images.device) if isinstance(number, Tensor) else number


def number_of_each(count: int, number: Number) -> list[float]:
    """A number for each of `count` images."""
    return number.flatten().tolist() if isinstance(number, Tensor) else [number] * count


def by_runs(filtered: Callable[..., Tensor], images: Tensor, *numbers: Number) -> Tensor:
    """filtered(images, *numbers), called anew for each run of neighbours that share all numbers."""
    if not any(isinstance(number, Tensor) for number in numbers):
        return filtered(images, *numbers)
    parts, start = [], 0
    rows = zip(*(number_of_each(len(images), number) for number in numbers), strict=True)
    for row, run in groupby(rows):
        stop = start + len(list(run))
        parts.append(filtered(images[start:stop], *row))
        start = stop
    return torch.cat(parts)


def add_scaled(total: Tensor, images: Tensor, weight: Number) -> Tensor:
    """total + weight images, in place and rounded once; weights for each image on its device."""
    if isinstance(weight, Tensor):
        return total.addcmul_(images, weight)
    return total.add_(images, alpha=weight)


def of_levels(corruption: _Corruption) -> _Corruption:
    """Marks a corruption that takes the 8-bit levels themselves, uint8, and returns whole ones."""
    _OF_LEVELS.add(corruption)
    return corruption


def corrupt_levels(corruption: Callable[..., Tensor], levels: Tensor, *given: object) -> Tensor:
    """What a corruption makes of 8-bit images: trunc(255 clip(corruption(x / 255), 0, 1)).

    Args:
        corruption: of levels, see `of_levels`, or of floating point.
        levels: uint8 (N, 3, H, W).
        given: the corruption's further arguments.

    Returns:
        whole grey levels 0..255 in an integer dtype, (N, 3, H, W).
    """
    levels = levels.contiguous()
    if corruption in _OF_LEVELS:
        return corruption(levels, *given)
    return truncate_levels(corruption(levels.to(torch.float32).div_(255), *given))


def truncate_levels(images: Tensor, white: float = 1) -> Tensor:
    """Grey levels 0..255 by truncation, as ImageNet-C's final `np.uint8(255 x)`.

    Args:
        images: any shape, clipped to [0, white] here.
        white: 1, or 255 for images that hold grey levels, which are overwritten.

    Returns:
        int16 trunc(255 x / white), of the images' shape.
    """
    levels = images if white == 255 else images * 255
    # By way of int16, as processors have no instruction from float32 to 8 bits.
    return levels.add_(_UNDECIDED).clamp_(0, 255).to(torch.int16)


def round_levels(images: Tensor) -> Tensor:
    """Grey levels 0..255 by rounding to the nearest, halves up.

    Args:
        images: any shape, clipped to [0, 1] here.

    Returns:
        int16 floor(255 x + 1/2), of the images' shape.
    """
    return (images * 255).add_(0.5).clamp_(0, 255).to(torch.int16)


def fold_index(index: Tensor, size: int, border: Border) -> Tensor:
    """Map positions outside an axis onto it, by SciPy's border names.

    nearest: aaa|abcd|ddd; reflect: cba|abcd|dcb; mirror (OpenCV's reflect-101): dcb|abcd|cba.

    Args:
        index: int64, any shape.
        size: the axis' length in pixels.
        border: the rule.

    Returns:
        int64 in 0..size-1, of the index' shape.
    """
    if border == "nearest":
        return index.clamp(0, size - 1)
    if border == "reflect":
        index = index % (2 * size)
        return torch.minimum(index, 2 * size - 1 - index)
    period = max(2 * size - 2, 1)
    index = index % period
    return torch.minimum(index, period - index)


def gaussian_weights(radius: int, sigma: float) -> Tensor:
    """The 2 radius + 1 taps of a Gaussian, exp(-x^2 / (2 sigma^2)), of sum one; float64, CPU."""
    if radius == 0:
        return torch.ones(1, dtype=torch.float64, device="cpu")
    positions = torch.arange(-radius, radius + 1, dtype=torch.float64, device="cpu")
    weights = torch.exp(-(positions**2) / (2 * sigma**2))
    return weights / weights.sum()


@lru_cache(maxsize=256)
def gaussian_matrix(
    size: int, radius: int, sigma: float, border: Border, device: torch.device
) -> Tensor:
    """The (size, size) matrix that filters an axis with a Gaussian, its border rule included.

    Args:
        size: the axis' length in pixels.
        radius: the kernel has 2 radius + 1 taps.
        sigma: the standard deviation in pixels.
        border: the border rule, see `fold_index`.
        device: where the matrix is kept.

    Returns:
        float64 (size, size); rows sum to one.
    """
    offsets = torch.arange(-radius, radius + 1, device="cpu")
    sources = fold_index(torch.arange(size, device="cpu")[:, None] + offsets, size, border)
    weights = gaussian_weights(radius, sigma).expand(size, -1)
    matrix = torch.zeros(size, size, dtype=torch.float64, device="cpu")
    return matrix.scatter_add_(1, sources, weights).to(device)


def gaussian_filter(
    images: Tensor,
    sigma: Number | tuple[float, float],
    *,
    truncate: float = 4.0,
    border: Border = "nearest",
) -> Tensor:
    """Filter each channel with a Gaussian; the defaults are scikit-image's.

    Args:
        images: (N, C, H, W).
        sigma: the standard deviation in pixels, one for all or one for each image, or those
            downwards and across; 0 changes nothing.
        truncate: the kernel ends at int(truncate sigma + 1/2) pixels, as SciPy's does.
        border: the border rule, see `fold_index`.

    Returns:
        (N, C, H, W).
    """
    if isinstance(sigma, Tensor):
        return _gaussians(images, sigma, truncate, border)
    sigmas = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    radii = [int(truncate * each + 0.5) for each in sigmas]
    if 2 * max(radii) + 1 <= FEW_TAPS:
        column, row = (gaussian_weights(*each).tolist() for each in zip(radii, sigmas, strict=True))
        return correlate(correlate(images, [[w] for w in column], border), [row], border)
    # In float64, since a training script may allow less than float32 for products of matrices. The
    # matrix stands on the left both times: a product for each plane, of one shape always.
    device = images.device if supports_float64(images.device) else torch.device("cpu")
    filtered = images.to(device, torch.float64)
    for axis in (1, 0):
        filtered = filtered.mT
        size = images.shape[axis - 2]
        bands = _gaussian_bands(size, radii[axis], sigmas[axis], border, device)
        filtered = torch.cat([rows @ filtered[..., columns, :] for rows, columns in bands], dim=-2)
    return filtered.to(images)


def _gaussians(images: Tensor, sigma: Tensor, truncate: float, border: Border) -> Tensor:
    """`gaussian_filter` of images with a sigma each: the small kernels of neighbours together."""
    radius = (truncate * sigma + 0.5).to(torch.int64)
    few = 2 * radius + 1 <= FEW_TAPS
    parts, start = [], 0
    for small, run in groupby(few.flatten().tolist()):
        part = slice(start, start + len(list(run)))
        start = part.stop
        if not small:
            one = partial(gaussian_filter, truncate=truncate, border=border)
            parts.append(by_runs(one, images[part], sigma[part]))
            continue
        reach = int(radius[part].max())
        each = zip(radius[part].flatten().tolist(), sigma[part].flatten().tolist(), strict=True)
        kernels = [F.pad(gaussian_weights(r, s), (reach - r, reach - r)) for r, s in each]
        weights = torch.stack(kernels, dim=1)[..., None, None, None]
        taps = weights.to(images.dtype).to(images.device).unbind()
        filtered = correlate(images[part], [[weight] for weight in taps], border)
        parts.append(correlate(filtered, [taps], border))
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def supports_float64(device: torch.device) -> bool:
    """Whether a device computes in float64; Apple's does not."""
    return device.type != "mps"


@lru_cache(maxsize=256)
def _gaussian_bands(
    size: int, radius: int, sigma: float, border: Border, device: torch.device
) -> list[tuple[Tensor, slice]]:
    """`gaussian_matrix` by groups of rows, each cut to the columns that are not zero."""
    bands = []
    # On a GPU, or where there is little to leave out, few products are faster than small ones.
    matrix = gaussian_matrix(size, radius, sigma, border, torch.device("cpu"))
    for rows in matrix.split(32 if device.type == "cpu" and 4 * radius < size else size):
        used = rows.any(dim=0).nonzero().flatten().tolist()
        columns = slice(used[0], used[-1] + 1)
        bands.append((rows[:, columns].contiguous().to(device), columns))
    return bands


def correlate(images: Tensor, kernel: Sequence[Sequence[Number]], border: Border) -> Tensor:
    """Correlate each channel with a small kernel of odd sides, term by term, as OpenCV's filter2D.

    Args:
        images: (N, C, H, W).
        kernel: its rows; weights for each image lie on its device, in its dtype.
        border: see `fold_index`.

    Returns:
        (N, C, H, W); exact where all numbers are whole.
    """
    height, width = images.shape[-2:]
    padded = pad(images, len(kernel) // 2, len(kernel[0]) // 2, border)
    result = torch.zeros_like(images, memory_format=torch.contiguous_format)
    for down, row in enumerate(kernel):
        for right, weight in enumerate(row):
            if isinstance(weight, Tensor) or weight:
                part = padded[..., down : down + height, right : right + width]
                add_scaled(result, part, weight)
    return result


def pad(images: Tensor, rows: int, columns: int, border: Border) -> Tensor:
    """Continue images beyond their edges.

    Args:
        images: (N, C, H, W).
        rows, columns: how far, at either end.
        border: see `fold_index`.

    Returns:
        (N, C, H + 2 rows, W + 2 columns).
    """
    if border != "reflect":
        return F.pad(images, (columns, columns, rows, rows), mode=_PADDING[border])
    for dim, reach in ((-2, rows), (-1, columns)):
        if reach:
            images = images.index_select(dim, _reflected(images.shape[dim], reach, images.device))
    return images


@lru_cache(maxsize=64)
def _reflected(size: int, reach: int, device: torch.device) -> Tensor:
    index = torch.arange(-reach, size + reach, device="cpu")
    return fold_index(index, size, "reflect").to(device)


def correlate_by_fourier(images: Tensor, transfer: Tensor, sides: tuple[int, int]) -> Tensor:
    """Correlate each channel with a large symmetric kernel, borders mirrored.

    Args:
        images: (N, C, H, W).
        transfer: see `transfer_function`.
        sides: the size it was made for, at least the images' and the kernel's together.

    Returns:
        (N, C, H, W).
    """
    height, width = images.shape[-2:]
    reach = [(side - size) // 2 for side, size in zip(sides, (height, width), strict=True)]
    margins = (reach[1], sides[1] - width - reach[1], reach[0], sides[0] - height - reach[0])
    spectrum = torch.fft.rfft2(F.pad(images, margins, mode="reflect")).mul_(transfer)
    # One axis after the other, since only the image's rows are wanted of the second.
    rows = torch.fft.ifft(spectrum, dim=-2)[..., reach[0] : reach[0] + height, :]
    return torch.fft.irfft(rows, n=sides[1])[..., reach[1] : reach[1] + width]


def transfer_function(kernel: Tensor, sides: tuple[int, int]) -> Tensor:
    """A symmetric kernel in the frequency domain.

    Args:
        kernel: (k, k), k odd; the same when turned by 180 degrees.
        sides: of the padded image.

    Returns:
        real (sides[0], sides[1] // 2 + 1).
    """
    reach = kernel.shape[0] // 2
    padded = F.pad(kernel, (0, sides[1] - kernel.shape[1], 0, sides[0] - kernel.shape[0]))
    return torch.fft.rfft2(padded.roll((-reach, -reach), (0, 1))).real
