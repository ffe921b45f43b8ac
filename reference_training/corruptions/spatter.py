"""Spatter (unseen in training): water or mud on the lens.

The water's look is the outcome of five OpenCV operations on 8-bit images; they are restated here.

Source: Hendrycks & Dietterich 2019, ImageNet-C; OpenCV's documentation for the operations.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .filters import correlate, gaussian_filter, pad
from .random import Random

_WATER = (175, 238, 238)
_MUD = (63, 42, 20)
_EMBOSS = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))
# Distances are whole numbers of 10^-4 pixels, which float32 holds and adds without rounding.
_PIXEL, _FAR = 10_000.0, 20
_LINES = {
    (0, 1): 10_000,
    (1, 0): 10_000,
    (1, 1): 14_000,
    (1, -1): 14_000,
    (1, 2): 21_969,
    (1, -2): 21_969,
    (2, 1): 21_969,
    (2, -1): 21_969,
}


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
        return (images * (1 - cover)).add_(cover * _colour(_MUD, images))

    # NumPy's cast to 8 bits wraps around where a drop exceeds 255.
    levels = drops.mul_(255).to(torch.int32).bitwise_and_(255).to(images.dtype)
    gloss = levels * droplet_relief(levels)
    brightest = gloss.amax(dim=(1, 2, 3), keepdim=True).clamp_(min=1)
    return images + gloss.mul_(strength).div_(brightest) * _colour(_WATER, images)


def _colour(levels: tuple[int, int, int], like: Tensor) -> Tensor:
    colour = torch.tensor(levels, dtype=like.dtype, device="cpu").div_(255)
    return colour[:, None, None].to(like.device)


def droplet_relief(levels: Tensor) -> Tensor:
    """Grey levels that make drops shine: their rims' distances, equalised and embossed.

    Args:
        levels: (N, 1, H, W), whole grey levels 0..255.

    Returns:
        (N, 1, H, W), whole grey levels 0..255.
    """
    near = _box_sum(rim_distance(canny(levels)))
    relief = equalise(near.div_(9 * _PIXEL).floor_())
    relief = correlate(relief, _EMBOSS, "mirror").clamp_(0, 255)
    return _box_sum(relief).div_(9).round_().to(levels.dtype)


def _box_sum(numbers: Tensor) -> Tensor:
    """Sums over 3x3 pixels, borders mirrored; exact, as all numbers are whole."""
    numbers = pad(numbers, 1, 1, "mirror")
    numbers = numbers[..., :-2, :] + numbers[..., 1:-1, :] + numbers[..., 2:, :]
    return numbers[..., :-2] + numbers[..., 1:-1] + numbers[..., 2:]


def canny(levels: Tensor, low: float = 50, high: float = 150) -> Tensor:
    """Find edges as OpenCV's Canny: Sobel 3x3, L1 magnitude, thinned, then linked.

    Args:
        levels: (N, 1, H, W), whole grey levels.
        low, high: the magnitude an edge must exceed, linked to a strong one or by itself.

    Returns:
        bool (N, 1, H, W).
    """
    height, width = levels.shape[-2:]
    around = pad(levels.to(torch.float32), 1, 1, "nearest")
    rows, middle, further = (around.narrow(2, first, height) for first in range(3))
    across = (rows + further).add_(middle, alpha=2)
    columns, middle, further = (around.narrow(3, first, width) for first in range(3))
    along = (columns + further).add_(middle, alpha=2)
    dx, dy = across[..., 2:] - across[..., :-2], along[..., 2:, :] - along[..., :-2, :]
    rise, run = dy.abs(), dx.abs()
    magnitude = rise + run
    padded = F.pad(magnitude, (1, 1, 1, 1))

    def neighbour(down: int, right: int) -> Tensor:
        return padded[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    # What a crest exceeds, or reaches on one side: magnitudes are whole. Flags are numbers here, as
    # comparing into booleans and choosing by them are many times slower on a CPU.
    over_x = torch.maximum(neighbour(0, -1), neighbour(0, 1) - 1)
    over_y = torch.maximum(neighbour(-1, 0), neighbour(1, 0) - 1)
    falling = torch.maximum(neighbour(-1, -1), neighbour(1, 1))
    rising = torch.maximum(neighbour(-1, 1), neighbour(1, -1))
    hurdle = falling.lerp_(rising, dx.mul_(dy).lt_(0))
    # OpenCV compares directions in fixed point: tan(22.5 degrees) = 13573 / 2^15, and that of 67.5
    # degrees is 2 more. Only the last difference rounds in float32, which keeps its sign.
    upright = rise.sub(run, alpha=2).sub_(run, alpha=13573 / 2**15).gt_(0)
    flat = rise.sub_(run, alpha=13573 / 2**15).lt_(0)
    hurdle.lerp_(over_y, upright).lerp_(over_x, flat)

    thin = magnitude > hurdle.clamp_(min=low)
    edges = thin & (magnitude > high)
    while True:
        grown = _with_neighbours(edges).logical_and_(thin)
        if torch.equal(grown, edges):
            return edges
        edges = grown


def _with_neighbours(edges: Tensor) -> Tensor:
    """Whether a pixel or one of the eight around it is set."""
    rows = edges.clone()
    rows[..., 1:, :] |= edges[..., :-1, :]
    rows[..., :-1, :] |= edges[..., 1:, :]
    both = rows.clone()
    both[..., 1:] |= rows[..., :-1]
    both[..., :-1] |= rows[..., 1:]
    return both


def rim_distance(edges: Tensor) -> Tensor:
    """Distances to the nearest edge by OpenCV's 5x5 mask: steps of 1, 1.4 and 2.1969 pixels.

    A shortest path needs two kinds of steps at most, and their order does not matter. So it is
    enough to go along each of the 8 lines once, both ways, by 1, 2, 4, ... steps. All are shifts of
    the image as one line; the rows are kept apart by more columns than the farthest path crosses.

    Args:
        edges: bool (N, 1, H, W).

    Returns:
        float32 (N, 1, H, W) in 10^-4 pixels, no more than 20 pixels.
    """
    count, _, height, width = edges.shape
    apart, far = width + _FAR, _FAR * _PIXEL
    distance = edges.new_full((count, height + 2 * _FAR, apart), far, dtype=torch.float32)
    inside = distance[:, _FAR:-_FAR]
    torch.mul(edges[:, 0].logical_not(), far, out=inside[..., :width])
    line, start, length = distance.flatten(1), _FAR * apart, height * apart
    here = line.narrow(1, start, length)
    for (down, right), step in _LINES.items():
        times = 1
        while times * step < far:
            by = times * (down * apart + right)
            before, after = (line.narrow(1, start + way, length) for way in (-by, by))
            torch.minimum(here, torch.minimum(before, after).add_(times * step), out=here)
            times *= 2
    return inside[:, None, :, :width]


def equalise(levels: Tensor) -> Tensor:
    """Equalise histograms as OpenCV's equalizeHist: the lowest level present becomes 0.

    level -> 255 (pixels up to it - pixels of the lowest) / (all pixels - pixels of the lowest)

    Args:
        levels: (N, 1, H, W), whole numbers 0..20.

    Returns:
        (N, 1, H, W), whole grey levels 0..255; an image of one level is returned as it is.
    """
    flat, bins = levels.flatten(1).to(torch.int32), _FAR + 1
    flat += torch.arange(0, len(flat) * bins, bins, dtype=torch.int32, device=flat.device)[:, None]
    up_to = torch.bincount(flat.view(-1), minlength=len(flat) * bins).view(-1, bins).cumsum(dim=1)
    lowest = torch.where(up_to > 0, up_to, flat.shape[1]).amin(dim=1, keepdim=True)
    rest = flat.shape[1] - lowest
    # In float32, as OpenCV does: half levels are common here, and rounding decides them.
    scale = 255 / rest.to(torch.float32)
    table = ((up_to - lowest).to(torch.float32) * scale).round_()
    same = torch.arange(bins, dtype=torch.float32, device=flat.device)
    table = torch.where(rest > 0, table, same)
    return table.view(-1).index_select(0, flat.view(-1)).view_as(levels)
