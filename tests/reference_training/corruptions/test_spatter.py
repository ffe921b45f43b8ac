import heapq
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.filters import gaussian

from reference_training.corruptions.parameters import CIFAR32
from reference_training.corruptions.spatter import (
    canny,
    droplet_relief,
    equalise,
    rim_distance,
    spatter,
)


@pytest.fixture(scope="module")
def drops() -> np.ndarray:
    """Blurred noise above a threshold, as spatter makes it, and plain noise; (10, 32, 32)."""
    rng = np.random.default_rng(1)
    soft = [gaussian(rng.normal(0.65, 0.3, (32, 32)), 1.0) for _ in range(8)]
    soft = [np.where(layer < 0.69, 0, layer * 255) for layer in soft]
    return np.floor([*soft, *rng.integers(0, 256, (2, 32, 32))]) % 256


def scalar_canny(image, low, high):
    """Canny of one image, by angles and a stack."""
    padded = np.pad(image, 1, mode="edge")
    height, width = image.shape
    magnitude, angle = np.zeros((height + 2, width + 2)), np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            window = padded[y : y + 3, x : x + 3]
            dx = (window[:, 2] - window[:, 0]) @ [1, 2, 1]
            dy = (window[2] - window[0]) @ [1, 2, 1]
            magnitude[y + 1, x + 1] = abs(dx) + abs(dy)
            angle[y, x] = math.degrees(math.atan2(dy, dx)) % 180
    thin = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            here, sector = magnitude[y + 1, x + 1], int(((angle[y, x] + 22.5) % 180) // 45)
            down, right = ((0, 1), (1, 1), (1, 0), (1, -1))[sector]
            before = magnitude[y + 1 - down, x + 1 - right]
            after = magnitude[y + 1 + down, x + 1 + right]
            crest = here > after if sector in (1, 3) else here >= after
            thin[y, x] = here > low and here > before and crest
    edges = thin & (magnitude[1:-1, 1:-1] > high)
    stack = list(np.argwhere(edges))
    while stack:
        y, x = stack.pop()
        for v in range(max(y - 1, 0), min(y + 2, height)):
            for u in range(max(x - 1, 0), min(x + 2, width)):
                if thin[v, u] and not edges[v, u]:
                    edges[v, u] = True
                    stack.append((v, u))
    return edges


def test_canny(drops):
    result = canny(torch.from_numpy(drops)[:, None]).numpy()[:, 0]
    expected = np.stack([scalar_canny(image, 50, 150) for image in drops])
    assert 0.01 < expected.mean() < 0.5
    np.testing.assert_array_equal(result, expected)


def scalar_distance(edges):
    """Shortest paths of steps 1, 1.4 and 2.1969 from the edges, by Dijkstra, up to 20."""
    steps = {1: 1.0, 2: 1.4, 5: 2.1969}
    distance = np.where(edges, 0.0, 20.0)
    queue = [(0.0, *place) for place in np.argwhere(edges).tolist()]
    while queue:
        so_far, y, x = heapq.heappop(queue)
        for v in range(max(y - 2, 0), min(y + 3, len(edges))):
            for u in range(max(x - 2, 0), min(x + 3, len(edges))):
                further = so_far + steps.get((v - y) ** 2 + (u - x) ** 2, math.inf)
                if further < distance[v, u]:
                    distance[v, u] = further
                    heapq.heappush(queue, (further, v, u))
    return distance


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.2])
def test_rim_distance(share):
    edges = np.random.default_rng(3).random((4, 32, 32)) < share
    result = rim_distance(torch.from_numpy(edges)[:, None]).numpy()[:, 0]
    assert np.array_equal(result, result.round())
    result = result / 1e4
    np.testing.assert_allclose(result, [scalar_distance(one) for one in edges], rtol=1e-6)
    for one, distance in zip(edges, result, strict=True):
        if one.any():
            euclidean = np.minimum(ndimage.distance_transform_edt(~one), 20)
            assert np.abs(distance - euclidean).max() < 0.025 * 20


def test_equalise():
    rng = np.random.default_rng(5)
    images = rng.integers(0, 21, (4, 16, 16)).astype(float)
    images[1] = 7
    images[2] = rng.integers(18, 21, (16, 16))
    result = equalise(torch.from_numpy(images)[:, None]).numpy()[:, 0]
    np.testing.assert_array_equal(result[1], images[1])
    for before, after in zip(images[[0, 2, 3]], result[[0, 2, 3]], strict=True):
        lowest = (before == before.min()).sum()
        exact = [((before <= v).sum() - lowest) * 255 / (256 - lowest) for v in before.flat]
        assert np.abs(after.ravel() - exact).max() <= 0.5 + 1e-4
        assert np.array_equal(after, after.round())
        assert (after.min(), after.max()) == (0, 255)


def test_droplet_relief(drops):
    result = droplet_relief(torch.from_numpy(drops)[:, None]).numpy()[:, 0]
    kernel = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    box = np.full((3, 3), 1 / 9)
    for image, actual in zip(drops, result, strict=True):
        near = ndimage.correlate(scalar_distance(scalar_canny(image, 50, 150)), box, mode="mirror")
        near = torch.from_numpy(np.floor(near + 1e-6))[None, None]
        relief = ndimage.correlate(equalise(near)[0, 0].numpy(), kernel, mode="mirror")
        relief = ndimage.correlate(relief.clip(0, 255), box, mode="mirror")
        np.testing.assert_array_equal(actual, np.rint(relief))


@pytest.mark.parametrize("row", [row for row in CIFAR32["spatter"] if row[-1] == "mud"])
def test_mud(unit, draws, row):
    mean, std, sigma, threshold, soft, _ = row
    noise = draws().normal_field(1, 32, 32, mean=mean, std=std).double().numpy()[:, 0]
    for image, layer, actual in zip(unit.numpy(), noise, spatter(unit, draws(), *row), strict=True):
        cover = gaussian((gaussian(layer, sigma) > threshold).astype(float), soft)
        cover[cover < 0.8] = 0
        mud = np.array([63, 42, 20])[:, None, None] / 255
        np.testing.assert_allclose(actual, image * (1 - cover) + cover * mud, atol=1e-12)


# The last row's drops exceed 255, where NumPy's cast to 8 bits wraps around.
@pytest.mark.parametrize(
    "row",
    [row for row in CIFAR32["spatter"] if row[-1] == "water"]
    + [(0.9, 0.3, 0.7, 0.69, 0.5, "water")],
)
def test_water(unit, draws, row):
    mean, std, sigma, threshold, strength, _ = row
    noise = draws().normal_field(1, 32, 32, mean=mean, std=std).double().numpy()[:, 0]
    for image, layer, actual in zip(unit.numpy(), noise, spatter(unit, draws(), *row), strict=True):
        layer = gaussian(layer, sigma)
        levels = np.floor(np.where(layer < threshold, 0, layer) * 255) % 256
        gloss = levels * droplet_relief(torch.from_numpy(levels)[None, None]).numpy()[0, 0]
        gloss = strength * gloss / max(gloss.max(), 1)
        water = np.array([175, 238, 238])[:, None, None] / 255
        np.testing.assert_allclose(actual, image + gloss * water, atol=1e-12)


def test_no_droplet_leaves_the_image(unit, draws):
    for liquid in ("water", "mud"):
        result = spatter(unit, draws(), 0.1, 0.1, 1, 5.0, 0.5, liquid)
        assert torch.equal(result, unit)
