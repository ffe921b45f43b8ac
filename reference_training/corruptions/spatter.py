"""Spatter (unseen in training): water or mud on the lens.

The water's look is the outcome of five OpenCV operations on 8-bit images; they are restated here.

Source: Hendrycks & Dietterich 2019, ImageNet-C; OpenCV's documentation for the operations.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .filters import correlate, gaussian_filter
from .random import Random

_WATER = (175, 238, 238)
_MUD = (63, 42, 20)
_FAR = 20
_EMBOSS = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))
_BOX = ((1, 1, 1),) * 3
_DIRECTIONS = {
    (down, right): {1: 1.0, 2: 1.4, 5: 2.1969}[down**2 + right**2]
    for down in range(-2, 3)
    for right in range(-2, 3)
    if down**2 + right**2 in (1, 2, 5)
}
_SOBEL = ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1))


def spatter(
    images: Tensor,
    random: Random,
    mean: float,
    std: float,
    sigma: float,
    threshold: float,
    strength: float,
    liquid: str,
) -> Tensor:
    """Splash drops over the image: where a blurred noise exceeds a threshold.

    Args:
        images: (N, 3, H, W).
        random: N streams.
        mean, std: of the noise.
        sigma: the standard deviation in pixels of the noise's blur.
        threshold: below it there is no liquid.
        strength: the water's opacity; for mud, the standard deviation in pixels of its soft rim.
        liquid: "water" or "mud".

    Returns:
        (N, 3, H, W).
    """
    noise = random.normal_field(1, *images.shape[-2:], mean=mean, std=std)
    drops = F.threshold(gaussian_filter(noise.to(images.dtype), sigma), threshold, 0.0)
    if liquid == "mud":
        cover = gaussian_filter((drops > threshold).to(images.dtype), strength)
        cover = F.threshold(cover, 0.8, 0.0)
        return images * (1 - cover) + cover * _colour(_MUD, images)

    # NumPy's cast to 8 bits wraps around where a drop exceeds 255.
    levels = (drops * 255).floor() % 256
    gloss = levels * droplet_relief(levels)
    brightest = gloss.amax(dim=(1, 2, 3), keepdim=True).clamp_(min=1)
    return images + strength * gloss / brightest * _colour(_WATER, images)


def _colour(levels: tuple[int, int, int], like: Tensor) -> Tensor:
    return like.new_tensor(levels).div_(255)[:, None, None]


def droplet_relief(levels: Tensor) -> Tensor:
    """Grey levels that make drops shine: their rims' distances, equalised and embossed.

    Args:
        levels: (N, 1, H, W), whole grey levels 0..255.

    Returns:
        (N, 1, H, W), whole grey levels 0..255.
    """
    near = correlate(rim_distance(canny(levels)), _BOX, "mirror")
    relief = equalise((near / 9 + 1e-6).floor_())
    relief = correlate(relief, _EMBOSS, "mirror").clamp_(0, 255)
    return (correlate(relief, _BOX, "mirror") / 9).round_()


def canny(levels: Tensor, low: float = 50, high: float = 150) -> Tensor:
    """Find edges as OpenCV's Canny: Sobel 3x3, L1 magnitude, thinned, then linked.

    Args:
        levels: (N, 1, H, W), whole grey levels.
        low, high: the magnitude an edge must exceed, linked to a strong one or by itself.

    Returns:
        bool (N, 1, H, W).
    """
    dx = correlate(levels, _SOBEL, "nearest")
    dy = correlate(levels, tuple(zip(*_SOBEL, strict=True)), "nearest")
    magnitude = dx.abs() + dy.abs()

    padded = F.pad(magnitude, (1, 1, 1, 1))
    height, width = levels.shape[-2:]

    def neighbour(down: int, right: int) -> Tensor:
        return padded[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    # OpenCV compares directions in fixed point: tan(22.5 degrees) = 13573 / 2^15.
    shallow = dx.abs() * 13573
    steep = shallow + dx.abs() * 2**16
    rise = dy.abs() * 2**15
    along_x = (magnitude > neighbour(0, -1)) & (magnitude >= neighbour(0, 1))
    along_y = (magnitude > neighbour(-1, 0)) & (magnitude >= neighbour(1, 0))
    falling = (magnitude > neighbour(-1, -1)) & (magnitude > neighbour(1, 1))
    rising = (magnitude > neighbour(-1, 1)) & (magnitude > neighbour(1, -1))
    diagonal = torch.where(dx * dy < 0, rising, falling)
    crest = torch.where(rise < shallow, along_x, torch.where(rise > steep, along_y, diagonal))

    thin = crest & (magnitude > low)
    edges = thin & (magnitude > high)
    while True:
        grown = thin & (F.max_pool2d(edges.to(levels.dtype), 3, stride=1, padding=1) > 0)
        if torch.equal(grown, edges):
            return edges
        edges = grown


def rim_distance(edges: Tensor) -> Tensor:
    """Distances to the nearest edge by OpenCV's 5x5 mask: steps of 1, 1.4 and 2.1969 pixels.

    A shortest path needs two kinds of steps at most, and their order does not matter. So it is
    enough to go along each of the 16 directions once, by 1, 2, 4, ... steps.

    Args:
        edges: bool (N, 1, H, W).

    Returns:
        float64 (N, 1, H, W), no more than 20.
    """
    distance = torch.where(edges, 0.0, float(_FAR)).to(torch.float64)
    for (down, right), step in _DIRECTIONS.items():
        times = 1
        while times * step < _FAR:
            rows, rows_from = _shifted(edges.shape[-2], times * down)
            columns, columns_from = _shifted(edges.shape[-1], times * right)
            here = distance[..., rows, columns]
            reached = distance[..., rows_from, columns_from] + times * step
            torch.minimum(here, reached, out=here)
            times *= 2
    return distance


def _shifted(size: int, by: int) -> tuple[slice, slice]:
    """Where on an axis there is something `by` pixels further, and where that is."""
    first, last = max(0, -by), size - max(0, by)
    return slice(first, max(first, last)), slice(first + by, max(first, last) + by)


def equalise(levels: Tensor) -> Tensor:
    """Equalise histograms as OpenCV's equalizeHist: the lowest level present becomes 0.

    level -> 255 (pixels up to it - pixels of the lowest) / (all pixels - pixels of the lowest)

    Args:
        levels: (N, 1, H, W), whole numbers 0..20.

    Returns:
        (N, 1, H, W), whole grey levels 0..255; an image of one level is returned as it is.
    """
    flat = levels.flatten(1)
    bins = torch.arange(_FAR + 1, dtype=levels.dtype, device=levels.device)
    up_to = (flat[:, None] <= bins[:, None]).sum(dim=2).to(levels.dtype)
    lowest = up_to.gather(1, flat.amin(dim=1, keepdim=True).to(torch.int64))
    rest = flat.shape[1] - lowest
    # In float32, as OpenCV does: half levels are common here, and rounding decides them.
    scale = (255 / rest).to(torch.float32)
    table = ((up_to - lowest).to(torch.float32) * scale).round_().to(levels.dtype)
    table = torch.where(rest > 0, table, bins)
    return table.gather(1, flat.to(torch.int64)).view_as(levels)
