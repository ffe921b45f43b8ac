"""Exactness: every type, severity and size against the public package, on photographs.

The bound everywhere: at most one grey level, and less than a tenth of one in the mean. Both sides
truncate to 8 bits, and where the formula gives a whole level the last bits of the package's
float64 decide between it and the one below. So its values are compared twice: nudged by a millionth
of a level before that truncation, and as they are.
"""

import zlib
from unittest import mock

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from skimage import data
from skimage.filters import gaussian
from skimage.transform import resize
from sklearn.datasets import load_sample_images

from reference_training.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from reference_training.corruptions import frost as frost_module
from reference_training.corruptions.noise import photon_counts
from reference_training.corruptions.random import Random
from reference_training.corruptions.registry import SEMANTICS
from tests.reference_training.corruptions.public_package import (
    Given,
    given,
    imagecorruptions,
    peer,
    published,
    scan,
)

cv2 = pytest.importorskip("cv2")

NUDGE = 1e-6
SEED = 7
SETS = [("imagecorruptions", "imagenet224")]
SETS += [("imagenet_c", name) for name in SEMANTICS["imagenet_c"].parameter_sets]
# Where ImageNet-C's generator is another program than the package, other tests restate it.
OTHER_PROGRAM = {"motion_blur", "snow", "frost", "elastic_transform"}
CASES = [
    (semantics, name, corruption)
    for semantics, name in SETS
    for corruption in CORRUPTIONS
    if (corruption in OTHER_PROGRAM) == (semantics == "imagecorruptions")
]


def square(image, side):
    """The left or upper square of a photograph, uint8 (side, side, 3)."""
    shorter = min(image.shape[:2])
    scaled = resize(image[:shorter, :shorter], (side, side), anti_aliasing=True)
    return (255 * scaled).round().astype(np.uint8)


@pytest.fixture(scope="module")
def photographs():
    """Four photographs at each side: {side: uint8 (4, side, side, 3)}."""
    full = [data.astronaut(), data.chelsea(), *load_sample_images().images]
    return {side: np.stack([square(image, side) for image in full]) for side in (224, 64, 32)}


def tensor(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def last(field):
    """(C, H, W) draws as the package's (H, W, C)."""
    return field.movedim(0, -1).double().numpy()


# For each random type the package's result with the draws that `corrupt` makes for that seed.


def gaussian_noise(image, random, std):
    with given(normal=[last(random.normal_field(3, *image.shape[:2], std=std)[0])]):
        return peer("gaussian_noise", std, image)


def speckle_noise(image, random, std):
    with given(normal=[last(random.normal_field(3, *image.shape[:2], std=std)[0])]):
        return peer("speckle_noise", std, image)


def impulse_noise(image, random, fraction):
    draw = random.uniform_field(3, *image.shape[:2])[0]
    replaced, salt = (last((draw >= share).float()) for share in (fraction, fraction / 2))
    return peer("impulse_noise", fraction, image, seed=Given([replaced, salt]))


def poisson(image, random, photons):
    counts = photon_counts(tensor(image[None]), random, photons)[0]
    with given(poisson=[last(counts)]):
        return peer("shot_noise", photons, image)


def glass_blur(image, random, sigma, max_delta, iterations):
    offsets = [
        random.integer_field(-max_delta, max_delta, 2, *image.shape[:2])[0].movedim(0, -1).numpy()
        for _ in range(iterations)
    ]

    def shuffle(height, width, pixels, row, seed):
        for once in offsets:
            pixels = scan(pixels, once, max_delta)
        return pixels

    # Its first blur is truncated as well.
    def nudged(*args, **options):
        return gaussian(*args, **options) + NUDGE / 255

    with mock.patch.multiple(
        imagecorruptions, _shuffle_pixels_njit_glass_blur=shuffle, gaussian=nudged
    ):
        return peer("glass_blur", (sigma, max_delta, iterations), image)


def motion_blur(image, random, radius, sigma):
    with given(uniform=[random.uniform(low=-45, high=45).item()]):
        return peer("motion_blur", (radius, sigma), image)


def snow(image, random, mean, std, *rest):
    noise = random.normal_field(*image.shape[:2], mean=mean, std=std)[0].double().numpy()
    with given(normal=[noise], uniform=[random.uniform(low=-135, high=-45).item()]):
        return peer("snow", (mean, std, *rest), image)


def frost(image, random, image_weight, frost_weight):
    chosen, (down, right) = random.integers(0, 5).item(), random.uniform(2)[0].tolist()
    shares = iter([down, right])

    def randint(low, high=None):
        return chosen if high is None else int(next(shares) * (high - low))

    with mock.patch.object(np.random, "randint", randint):
        return peer("frost", (image_weight, frost_weight), image)


def fog(image, random, amount, decay):
    side = 1 << (max(image.shape) - 1).bit_length()
    field = random.uniform_field(side * side - 1, low=-1, high=1)[0].double().numpy()
    draws, wibble, used, cells = [], 100.0, 0, 1
    while cells < side:
        for _ in range(3):
            draws.append(wibble * field[used : used + cells**2].reshape(cells, cells))
            used += cells**2
        cells, wibble = 2 * cells, wibble / decay
    with given(uniform=draws):
        return peer("fog", (amount, decay), image)


def elastic_transform(image, random, alpha):
    reach = len(image) / 200
    noise = random.uniform_field(2, *image.shape[:2], low=-reach, high=reach)[0].double().numpy()
    with given(uniform=list(noise)):
        return peer("elastic_transform", alpha, image)


def spatter(image, random, mean, std, *rest):
    noise = random.normal_field(*image.shape[:2], mean=mean, std=std)[0].double().numpy()
    with given(normal=[noise]):
        return peer("spatter", (mean, std, *rest[:-1], int(rest[-1] == "mud")), image)


WITH_DRAWS = {
    "gaussian_noise": gaussian_noise,
    "speckle_noise": speckle_noise,
    "impulse_noise": impulse_noise,
    "shot_noise": poisson,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "elastic_transform": elastic_transform,
    "spatter": spatter,
}


def compare(chosen, semantics, name, corruption, severity):
    """Ours, int (N, H, W, 3), and the package's values before it truncates them."""
    rows = SEMANTICS[semantics].parameter_sets[name].rows
    seeds = torch.arange(len(chosen)) + SEED
    ours = corrupt(
        tensor(chosen), corruption, severity, seeds=seeds, semantics=semantics, frost="photographs"
    )
    row = rows[corruption][severity - 1]
    if corruption in WITH_DRAWS:
        domain = zlib.crc32(f"{corruption}/{severity}".encode())
        streams = [Random(seeds[i : i + 1], domain) for i in range(len(chosen))]
        pairs = zip(chosen, streams, strict=True)
        theirs = [WITH_DRAWS[corruption](image, random, *row) for image, random in pairs]
    else:
        value = np.arange(1, *row) if corruption == "zoom_blur" else row
        theirs = [peer(corruption, value[0] if len(row) == 1 else value, im) for im in chosen]
    return ours.permute(0, 2, 3, 1).int().numpy(), np.stack(theirs)


@pytest.mark.parametrize(("semantics", "name", "corruption"), CASES)
def test_at_most_one_level(photographs, semantics, name, corruption):
    images = photographs[SEMANTICS[semantics].parameter_sets[name].side]
    images = images[: 1 if name == "imagenet224" else 4]
    for severity in SEVERITIES:
        ours, theirs = compare(images, semantics, name, corruption, severity)
        difference = np.abs(ours - np.floor(theirs + NUDGE))
        assert difference.max() <= 1, severity
        assert difference.mean() < 0.1, severity
        # Without the nudge more for this one: S, doubled, gives whole levels nearly everywhere.
        wholes = corruption == "saturate" and severity == 3
        difference = np.abs(ours - np.uint8(theirs))
        assert difference.max() <= 1, severity
        assert difference.mean() < (0.2 if wholes else 0.1), severity


@pytest.mark.parametrize("size", [(97, 131), (300, 224), (375, 500), (500, 375)])
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_the_package_at_every_size(corruption, size):
    image = (255 * resize(data.astronaut(), size, anti_aliasing=True)).round().astype(np.uint8)
    for severity in (1, 3, 5):
        ours, theirs = compare(image[None], "imagecorruptions", "imagenet224", corruption, severity)
        difference = np.abs(ours - np.floor(theirs + NUDGE))
        # One pixel more or less of an edge, where a float64 of theirs is all but a whole level,
        # moves a drop's rim: of spatter 1 in 11,000 values at 500x375.
        allowed = 1e-3 if corruption == "spatter" else 0
        assert (difference > 1).mean() <= allowed, severity
        assert difference.mean() < 0.1, severity


@pytest.mark.skipif(
    int(cv2.__version__.split(".")[0]) > 4, reason="OpenCV 5 no longer rounds to 1/32 of a pixel"
)
@pytest.mark.parametrize("name", SEMANTICS["imagenet_c"].parameter_sets)
def test_elastic_transform_of_imagenet_c(photographs, name):
    """The generator's steps: OpenCV 4's affine map, then scikit-image's and SciPy's filters."""
    side, _, rows = SEMANTICS["imagenet_c"].parameter_sets[name]
    for severity, (alpha, sigma, affine) in zip(SEVERITIES, rows["elastic_transform"], strict=True):
        for number, image in enumerate(photographs[side][: 1 if side == 224 else 3]):
            domain = zlib.crc32(f"elastic_transform/{severity}".encode())
            random = Random(torch.tensor([SEED + number]), domain)
            moves = random.uniform(3, 2, low=-affine, high=affine)[0].numpy()
            noise = random.uniform_field(2, side, side, low=-1, high=1)[0].double().numpy()
            centre, third = np.float32((side // 2, side // 2)), side // 3
            points = [centre + third, [centre[0] + third, centre[1] - third], centre - third]
            points = np.float32(points)
            matrix = cv2.getAffineTransform(points, points + moves.astype(np.float32))
            x = np.float32(image) / 255
            x = cv2.warpAffine(x, matrix, (side, side), borderMode=cv2.BORDER_REFLECT_101)
            right, down = (
                (gaussian(field, sigma, mode="reflect", truncate=3) * alpha).astype(np.float32)
                for field in noise
            )
            place = np.mgrid[:side, :side, :3].astype(float)
            place[0] += down[..., None]
            place[1] += right[..., None]
            theirs = 255 * map_coordinates(x, place, order=1, mode="reflect").clip(0, 1)
            seeds = SEED + number
            mine = corrupt(tensor(image[None]), "elastic_transform", severity, seeds=seeds)
            difference = np.abs(mine[0].permute(1, 2, 0).int().numpy() - np.floor(theirs + NUDGE))
            assert difference.max() <= 1, severity
            assert difference.mean() < 0.1, severity


@pytest.mark.parametrize("scale", [0.2, 0.3])
def test_overlays_are_resized_as_opencv_does(scale):
    names = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
    folder = frost_module.photograph_folder()
    overlays = frost_module.load_overlays("photographs", scale, torch.device("cpu"))
    for name, overlay in zip(names, overlays, strict=True):
        expected = cv2.resize(cv2.imread(str(folder / name)), (0, 0), fx=scale, fy=scale)
        difference = overlay.permute(1, 2, 0).int().numpy() - expected[..., ::-1].astype(int)
        assert np.abs(difference).max() <= 1


def test_the_packages_own_table():
    rows = SEMANTICS["imagecorruptions"].parameter_sets["imagenet224"].rows
    for corruption in CORRUPTIONS:
        for row, theirs in zip(rows[corruption], published(corruption), strict=True):
            if corruption == "zoom_blur":
                np.testing.assert_array_equal(np.arange(1, *row), theirs)
                continue
            ours = [int(v == "mud") if isinstance(v, str) else v for v in row]
            np.testing.assert_allclose(ours, np.atleast_1d(theirs), err_msg=corruption)
