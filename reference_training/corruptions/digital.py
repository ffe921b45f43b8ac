"""Digital and colour: brightness, contrast, elastic, pixelate, JPEG, and (unseen) saturate.

Source of every definition: Hendrycks & Dietterich 2019, ImageNet-C.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from .filters import (
    Number,
    by_runs,
    gaussian_filter,
    number_for,
    number_of_each,
    of_levels,
    per_image,
    truncate_levels,
)
from .random import Random
from .resampling import sample_bilinear

Enlargement = Callable[[int, int], Tensor]

# A level too small to be seen, and large enough to be divided by.
_SPECK = 1e-30


@per_image
@of_levels
def brightness(levels: Tensor, random: Random, shift: Number) -> Tensor:
    """Raise HSV's value: RGB V' / V with V = max(R, G, B), V' = clip(V + 255 shift, 0, 255).

    Args:
        levels: uint8 (N, 3, H, W).
        random: not drawn from.
        shift: added to V; 1 is from black to white.

    Returns:
        int16 (N, 3, H, W); a black pixel becomes the grey V'.
    """
    # Black is almost black, and its channels are then V like those of any other grey.
    images = levels.to(torch.float32).clamp_(min=_SPECK)
    value = _brightest(levels).to(torch.float32).clamp_(min=_SPECK)
    raised = (value + number_for(value, 255 * shift)).clamp_(0, 255)
    return truncate_levels(images.mul_(raised.div_(value)), white=255)


@of_levels
def saturate(levels: Tensor, random: Random, gain: float, shift: float) -> Tensor:
    """Change HSV's saturation: V - (V - RGB) S' / S with S' = clip(gain S + shift, 0, 1).

    Args:
        levels: uint8 (N, 3, H, W).
        random: not drawn from.
        gain, shift: applied to S = (max - min) / max.

    Returns:
        int16 (N, 3, H, W); grey has no hue, which HSV writes as red, so a shift makes it reddish.
    """
    value = _brightest(levels).to(torch.float32)
    depth = value - levels
    # Grey is almost red: S is then almost 0, and green and blue fall as S' says.
    depth[:, 1:].add_(_SPECK)
    spread = depth.amax(dim=1, keepdim=True)
    target = (spread / value.clamp(min=1)).mul_(gain).add_(shift).clamp_(0, 1)
    return truncate_levels(value.addcmul(depth, target.mul_(value).div_(spread), value=-1), 255)


def _brightest(levels: Tensor) -> Tensor:
    red, green, blue = levels.split(1, dim=1)
    return torch.maximum(red, green).maximum(blue)


@per_image
@of_levels
def contrast(levels: Tensor, random: Random, gain: Number) -> Tensor:
    """Pull each channel to its mean over the image: mean + gain (x - mean).

    Args:
        levels: uint8 (N, 3, H, W).
        random: not drawn from.
        gain: what is left of the contrast.

    Returns:
        int16 (N, 3, H, W).
    """
    images = levels.to(torch.float32)
    # Sums of whole numbers: they have no rounding, hence no order.
    total = images.sum(dim=3).to(torch.int64).sum(dim=2)[..., None, None]
    mean = total.to(torch.float32).div_(levels.shape[2] * levels.shape[3])
    kept, rest = number_for(images, gain), number_for(images, 1 - gain)
    return truncate_levels(images.mul_(kept).add_(mean.mul_(rest)), white=255)


@per_image
def elastic_transform(
    images: Tensor, random: Random, alpha: Number, sigma: Number, affine: Number
) -> Tensor:
    """Warp by a random affine map, then displace each pixel by smooth noise.

    Args:
        images: (N, 3, H, W).
        random: N streams.
        alpha: the displacement's scale in pixels: alpha gaussian(U(-1, 1)).
        sigma: the standard deviation in pixels of that Gaussian.
        affine: how far, in pixels, three reference points move in each coordinate, U(-a, a).

    Returns:
        (N, 3, H, W), both steps bilinear.
    """
    height, width = images.shape[-2:]
    moves = random.uniform(3, 2)
    reach = affine.view(-1, 1, 1) if isinstance(affine, Tensor) else affine
    inverse = inverse_affine(height, width, moves.mul_(2 * reach).sub_(reach))
    places = affine_sources(inverse, height, width, images.device).to(images.dtype)
    images = sample_bilinear(images, places, "mirror")
    return _displace(images, random, 1, alpha, sigma)


@per_image
def elastic_displacement(images: Tensor, random: Random, alpha: Number) -> Tensor:
    """Displace each pixel by alpha gaussian(U(-a, a)) with a = H / 200, sigma = H / 100, W / 100.

    Args:
        images: (N, 3, H, W).
        random: N streams.
        alpha: the displacement's scale.

    Returns:
        (N, 3, H, W), bilinear.

    Source: the public package `imagecorruptions`.
    """
    height, width = images.shape[-2:]
    return _displace(images, random, height / 200, alpha, (height / 100, width / 100))


def _displace(
    images: Tensor,
    random: Random,
    amplitude: float,
    alpha: Number,
    sigma: Number | tuple[float, float],
) -> Tensor:
    height, width = images.shape[-2:]
    noise = random.uniform_field(2, height, width, low=-amplitude, high=amplitude)
    shift = gaussian_filter(noise.to(images.dtype), sigma, truncate=3, border="reflect")
    shift.mul_(number_for(shift, alpha))
    shift[:, 0] += torch.arange(width, dtype=torch.int32, device=images.device)
    shift[:, 1] += torch.arange(height, dtype=torch.int32, device=images.device)[:, None]
    return sample_bilinear(images, shift.movedim(1, -1).contiguous(), "reflect")


def inverse_affine(height: int, width: int, moves: Tensor) -> Tensor:
    """The map from an affinely warped image back to its source, given three points' moves.

    With c = (height // 2, width // 2) and s = min(height, width) // 3 the points, as (x, y), are
    c + s, (c_x + s, c_y - s) and c - s.

    Args:
        height, width: of the image, pixels.
        moves: (N, 3, 2), the points' displacements (x, y) in pixels.

    Returns:
        float64 (N, 3, 2): [x, y, 1] of a target pixel times it gives the source's (x, y).
    """
    a, b, s = height // 2, width // 2, min(height, width) // 3
    points = moves.new_tensor([[a + s, b + s], [a + s, b - s], [a - s, b - s]])
    # In float32, as OpenCV is given them: a 1/32 of a pixel may hang on it.
    moved = (points.float() + moves.float()).to(moves.dtype)
    homogeneous = torch.cat([moved, torch.ones_like(moved[..., :1])], dim=-1)
    return torch.linalg.solve(homogeneous, points.expand_as(moved))


def affine_sources(inverse: Tensor, height: int, width: int, device: torch.device) -> Tensor:
    """Where each pixel of an affinely warped image comes from, on OpenCV 4's grid of 1/32 pixels.

    Args:
        inverse: float64 (N, 3, 2) on the CPU, see `inverse_affine`.
        height, width: of the image, pixels.
        device: of the result.

    Returns:
        float32 (N, H, W, 2): x and y in pixels.

    Source: OpenCV 4's warpAffine, which made ImageNet-C: fixed-point sums in units of 2^-10
    pixels, rounded to 1/32.
    """
    unit = inverse * 1024
    x = torch.arange(width, dtype=torch.float64, device="cpu")[:, None]
    y = torch.arange(height, dtype=torch.float64, device="cpu")[:, None]
    along_x = (x * unit[:, :1]).round_().to(torch.int32).to(device)
    along_y = (y * unit[:, 1:2] + unit[:, 2:]).round_().to(torch.int32).to(device)
    places = along_y.add_(16)[:, :, None] + along_x[:, None]
    return places.bitwise_right_shift_(5).to(torch.float32).div_(32)


@per_image
@of_levels
def pixelate(levels: Tensor, random: Random, scale: Number) -> Tensor:
    """Shrink to int(scale size) pixels and enlarge again, both by Pillow's box filter, bit-exact.

    Args:
        levels: uint8 (N, 3, H, W).
        random: not drawn from.
        scale: the side's shrinkage.

    Returns:
        uint8 (N, 3, H, W).
    """
    return _pixelated(levels, scale, _covering)


@per_image
@of_levels
def pixelate_nearest(levels: Tensor, random: Random, scale: Number) -> Tensor:
    """`pixelate` enlarged by the nearest pixel, which differs where no whole factor enlarges.

    Args:
        levels: uint8 (N, 3, H, W).
        random: not drawn from.
        scale: the side's shrinkage.

    Returns:
        uint8 (N, 3, H, W).

    Source: the public package `imagecorruptions`.
    """
    return _pixelated(levels, scale, _nearest)


def _covering(size: int, target: int) -> Tensor:
    """As `_nearest` for the box filter, which, enlarged, covers the centre of one pixel."""
    return box_spans(size, target)[0]


@lru_cache(maxsize=64)
def _nearest(size: int, target: int) -> Tensor:
    """Which pixel of an axis Pillow takes for each of an enlarged one: int64 (target,)."""
    steps = torch.full((target,), size / target, dtype=torch.float64, device="cpu")
    steps[0] *= 0.5
    return steps.cumsum(0).to(torch.int64)  # summed one by one, as there


def _pixelated(levels: Tensor, scale: Number, enlarge: Enlargement) -> Tensor:
    """Shrunk by a box; `enlarge` says which pixel is taken for each of an axis of another size."""
    if levels.device.type == "cpu":
        return by_runs(lambda run, each: _by_pillow(run, each, enlarge), levels, scale)
    return box_pixels(levels, number_of_each(len(levels), scale), enlarge)


def _by_pillow(levels: Tensor, scale: float, enlarge: Enlargement) -> Tensor:
    height, width = levels.shape[-2:]
    rows, columns = int(height * scale), int(width * scale)
    box = Image.Resampling.BOX
    means = _read([image.resize((columns, rows), box) for image in _opened(levels)])
    right, down = enlarge(columns, width), enlarge(rows, height)
    return means.index_select(-1, right).index_select(-2, down)


def _opened(levels: Tensor) -> Iterator[Image.Image]:
    """Each image, uint8 (3, H, W), as Pillow's."""
    size = levels.shape[-1], levels.shape[-2]
    for planes in levels.contiguous().cpu().numpy():
        yield Image.merge("RGB", [Image.frombuffer("L", size, p, "raw", "L", 0, 1) for p in planes])


def _read(images: Sequence[Image.Image]) -> Tensor:
    """`_opened` undone: uint8 (N, 3, H, W) on the CPU."""
    planes = bytearray().join([image.tobytes("raw", band) for image in images for band in "RGB"])
    return torch.frombuffer(planes, dtype=torch.uint8).view(
        -1, 3, images[0].height, images[0].width
    )


def box_pixels(levels: Tensor, scales: Sequence[float], enlarge: Enlargement) -> Tensor:
    """Shrunk by Pillow's box filter, and enlarged again, on any device.

    Args:
        levels: uint8 (N, 3, H, W).
        scales: N times the sides' shrinkage.
        enlarge: which pixel is taken for each of an axis of another size.

    Returns:
        float32 (N, 3, H, W), whole grey levels: means, halves rounded up.
    """
    means = levels.to(torch.float32)
    for axis in (-1, -2):  # along the columns first, as Pillow goes
        size, device = levels.shape[axis], levels.device
        boxes = torch.stack([_boxes(size, int(size * each), enlarge, device) for each in scales])
        # Exact in any order and in any precision of 8 bits, as all are whole numbers to 255.
        means = boxes[:, None] @ means.mT
        means = means.div_(boxes.sum(-1)[:, None, :, None]).add_(0.5).floor_()
    return means


@lru_cache(maxsize=16)
def _boxes(size: int, target: int, enlarge: Enlargement, device: torch.device) -> Tensor:
    """For each pixel of an axis, shrunk and enlarged, the ones it is the mean of: (size, size)."""
    first, count = box_spans(size, target)
    pixels = torch.arange(size, device="cpu")
    inside = (pixels >= first[:, None]) & (pixels < (first + count)[:, None])
    return inside[enlarge(target, size)].to(device, torch.float32)


@lru_cache(maxsize=64)
def box_spans(size: int, target: int) -> tuple[Tensor, Tensor]:
    """Which pixels of an axis Pillow's box filter averages for each pixel of a resampled one.

    Args:
        size, target: lengths before and after, pixels.

    Returns:
        int64 (target,) twice, on the CPU: the first pixel whose centre lies in the box, and how
        many there are.
    """
    scale = size / target
    centres = (torch.arange(target, dtype=torch.float64, device="cpu")[:, None] + 0.5) * scale
    pixels = torch.arange(size, dtype=torch.float64, device="cpu")
    distances = (pixels - centres + 0.5) * (1 / max(scale, 1))
    covered = (distances > -0.5) & (distances <= 0.5)
    # A second test, of the rim alone, since Pillow's rounding makes the two differ there.
    reach = 0.5 * max(scale, 1)
    covered &= pixels >= torch.floor(centres - reach + 0.5)
    covered &= pixels < torch.floor(centres + reach + 0.5)
    return covered.to(torch.uint8).argmax(1), covered.sum(1)


@per_image
@of_levels
def jpeg_compression(levels: Tensor, random: Random, quality: Number) -> Tensor:
    """Encode as JPEG with 4:2:0 chroma and decode, by Pillow: one result for every device.

    Args:
        levels: uint8 (N, 3, H, W).
        random: not drawn from.
        quality: 1 to 100.

    Returns:
        uint8 (N, 3, H, W).
    """
    decoded = []
    qualities = number_of_each(len(levels), quality)
    for image, each in zip(_opened(levels), qualities, strict=True):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(each))
        file.seek(0)
        decoded.append(JpegImageFile(file))
    return _read(decoded).to(levels.device)
