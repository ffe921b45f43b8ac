"""What comes in comes out: type, shape, dtype, mode; and the same pixels whatever holds them."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from reference_training.corruptions import CORRUPTIONS, corrupt
from reference_training.corruptions.layouts import as_batch

FAST = ("gaussian_noise", "fog", "contrast", "saturate", "pixelate", "motion_blur")


def photo(height, width, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("kind", FAST)
def test_one_photograph_in_every_type_is_the_same_photograph(kind):
    array = photo(33, 47)
    tensor = torch.from_numpy(array).movedim(-1, 0)
    expected = corrupt(tensor[None], kind, 3, seeds=7 << 32)[0].movedim(0, -1).numpy()
    assert (expected != array).any()
    assert np.array_equal(corrupt(array, kind, 3, seed=7), expected)
    assert np.array_equal(np.asarray(corrupt(Image.fromarray(array), kind, 3, seed=7)), expected)
    assert np.array_equal(corrupt(tensor, kind, 3, seed=7).movedim(0, -1).numpy(), expected)
    floats = corrupt(array / np.float32(255), kind, 3, seed=7)
    assert floats.dtype == np.float32
    assert np.array_equal(floats, expected / np.float32(255))


def test_a_grey_image_is_the_luma_of_its_corruption_and_one_channel_of_a_noise():
    grey = photo(40, 31, 1)
    rgb = np.repeat(grey, 3, axis=2)
    for kind in ("saturate", "frost", "fog", "spatter"):
        whole = corrupt(Image.fromarray(rgb), kind, 2, frost="procedural")
        expected = (np.asarray(whole) @ np.array([299, 587, 114]) + 500) // 1000
        assert np.array_equal(corrupt(grey[..., 0], kind, 2, frost="procedural"), expected)
    for kind in ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"):
        expected = corrupt(rgb, kind, 2)[..., :1]
        assert np.array_equal(corrupt(grey, kind, 2), expected)
    both = corrupt(np.stack([grey, grey]), ["impulse_noise", "fog"], 2, seeds=[0, 0])
    assert np.array_equal(both[0], corrupt(grey, "impulse_noise", 2))
    assert np.array_equal(both[1], corrupt(grey, "fog", 2))


def test_a_seed_gives_each_image_of_a_batch_its_own_draw():
    same = np.repeat(photo(40, 40)[None], 3, axis=0)
    noisy = corrupt(same, "gaussian_noise", 1, seed=-5)
    assert (noisy[0] != noisy[1]).mean() > 0.5
    seeds = [(-5 << 32) + place for place in range(3)]
    assert np.array_equal(noisy, corrupt(same, "gaussian_noise", 1, seeds=seeds))
    assert np.array_equal(noisy[0], corrupt(same[0], "gaussian_noise", 1, seed=-5))
    assert (noisy != corrupt(same, "gaussian_noise", 1, seed=-4)).mean() > 0.5


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_type_layout_dtype_size_and_batch(data):
    kind = data.draw(st.sampled_from(FAST))
    channels = data.draw(st.sampled_from([1, 3]))
    height, width = data.draw(st.integers(3, 60)), data.draw(st.integers(3, 60))
    batch = data.draw(st.sampled_from([None, 1, 3]))
    levels = np.stack([photo(height, width, channels, seed) for seed in range(batch or 1)])
    expected = corrupt(torch.from_numpy(levels).movedim(-1, 1), kind, 4, seed=2)
    expected = expected.movedim(1, -1).numpy()

    dtype = data.draw(st.sampled_from(["uint8", "float16", "float32", "float64"]))
    wide = np.float64 if dtype == "float64" else np.float32
    images = (levels if dtype == "uint8" else levels.astype(wide) / wide(255)).astype(dtype)
    due = (expected if dtype == "uint8" else expected.astype(wide) / wide(255)).astype(dtype)
    if batch is None:
        images, due = images[0], due[0]
    given_as = ["numpy", "torch", "strided"]
    given_as += ["pil"] if batch is None and dtype == "uint8" else []
    given_as += ["plane"] if batch is None and channels == 1 else []
    match data.draw(st.sampled_from(given_as)):
        case "numpy":
            images.flags.writeable = False
            result = corrupt(images, kind, 4, seed=2)
        case "torch":
            result = corrupt(torch.from_numpy(images).movedim(-1, -3), kind, 4, seed=2)
            result = result.movedim(-3, -1).numpy()
        case "strided":
            result = corrupt(images[..., ::-1, :][..., ::-1, :], kind, 4, seed=2)
        case "plane":
            due = due[..., 0]
            result = corrupt(images[..., 0], kind, 4, seed=2)
        case "pil":
            picture = Image.fromarray(images[..., 0] if channels == 1 else images)
            result = corrupt(picture, kind, 4, seed=2)
            assert result.mode == picture.mode
            result = np.asarray(result).reshape(due.shape)
    assert isinstance(result, np.ndarray)
    assert result.dtype == due.dtype
    assert np.array_equal(result, due)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floating_point_is_rounded_to_the_nearest_level(dtype):
    """Against float64, at what is next to every half level, and at a half itself (to even)."""
    halves = (torch.arange(255, dtype=torch.float64) + 0.5) / 255
    near = torch.stack([halves.to(dtype), *(halves.to(dtype) + s * 2.0**-9 for s in (-1, 1))])
    given = torch.cat([near.flatten(), torch.tensor([0, 0.5, 1], dtype=dtype)])
    given = given.clamp(0, 1)
    rounded, _ = as_batch(given.view(1, 1, -1))
    expected = (given.double() * 255).round().to(torch.uint8)
    assert torch.equal(rounded[0, 0, 0], expected)


@pytest.mark.parametrize(
    ("size", "name"),
    [
        ((32, 32), "cifar32"),
        ((48, 500), "cifar32"),
        ((49, 49), "tiny64"),
        ((300, 128), "tiny64"),
        ((129, 130), "imagenet224"),
    ],
)
def test_the_shorter_side_chooses_the_severities(size, name):
    image = photo(*size)
    chosen = corrupt(image, "gaussian_noise", 3)
    sets = ("cifar32", "tiny64", "imagenet224")
    same = [
        np.array_equal(chosen, corrupt(image, "gaussian_noise", 3, parameters=each))
        for each in sets
    ]
    assert same == [each == name for each in sets]


@pytest.mark.parametrize("size", [(3, 5), (1, 50), (97, 131), (240, 130), (33, 400)])
@pytest.mark.parametrize("semantics", ["imagenet_c", "imagecorruptions"])
def test_every_type_at_odd_sizes_works_or_says_that_the_image_is_too_small(size, semantics):
    image, refused = photo(*size), []
    for kind in CORRUPTIONS:
        options = {"semantics": semantics, "frost": "procedural"}
        try:
            assert corrupt(image, kind, 3, **options).shape == image.shape
        except ValueError:
            refused.append(kind)
            with pytest.raises(ValueError, match=f"{size[0]}x{size[1]} pixels are too few for"):
                corrupt(image, kind, 3, **options)
    if min(size) > 20 or (min(size) > 1 and semantics == "imagenet_c"):
        assert not refused


def test_frost_of_a_large_photograph():
    """Larger than every overlay; the generated ones have 512 pixels a side."""
    image = np.full((1080, 1920, 3), 100, np.uint8)
    for semantics in ("imagenet_c", "imagecorruptions"):
        result = corrupt(image, "frost", 2, frost="procedural", semantics=semantics)
        assert result.shape == image.shape
        assert (result.astype(int) - 80 > 10).all(axis=2).mean() > 0.99


def _in_a_new_process(code):
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr


def test_only_a_few_packages_are_needed_and_torchvision_only_by_the_transform():
    _in_a_new_process(
        """
        import sys
        from importlib.abc import MetaPathFinder

        class Refused(MetaPathFinder):
            names = {"torchvision", "sklearn", "matplotlib", "tqdm", "tyro", "skimage", "cv2",
                     "safetensors", "timm", "jax", "imagecorruptions", "ulfd", "ulfd_torch"}

            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in self.names:
                    raise ImportError(f"{name} is not of this extra")

        sys.meta_path.insert(0, Refused())
        import numpy as np
        from reference_training.corruptions import CORRUPTIONS, corrupt
        photo = np.zeros((40, 60, 3), np.uint8)
        for kind in CORRUPTIONS:
            assert corrupt(photo, kind, 1, frost="procedural").shape == photo.shape
        try:
            from reference_training.corruptions import RandomCorruption
        except ImportError as error:
            assert "torchvision" in str(error)
        else:
            raise AssertionError
        """
    )


def test_a_plain_import_loads_no_torchvision():
    _in_a_new_process(
        """
        import sys
        import reference_training.corruptions
        slow = {"torchvision", "sklearn", "matplotlib", "tyro", "ulfd"}
        assert not slow & set(sys.modules), slow & set(sys.modules)
        """
    )


def test_what_would_be_lost_or_ignored_is_refused():
    photo = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(TypeError, match="mask would be lost"):
        corrupt(np.ma.masked_array(photo, photo > 1), "contrast", 1)
    with pytest.raises(ValueError, match="give one of them"):
        corrupt(photo, "contrast", 1, seed=1, seeds=[2])
    with pytest.raises(TypeError, match=r"astype\(np.uint8\)"):
        corrupt(photo.astype(np.int64), "contrast", 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Tensor.to_sparse, "layout sparse_coo"),
        (Tensor.to_mkldnn, "layout _mkldnn"),
        (lambda images: torch.nested.nested_tensor([*images]), "layout nested"),
        (lambda images: images.to(torch.float8_e4m3fn), "got torch.float8_e4m3fn"),
    ],
)
def test_tensors_without_elements_to_read_are_refused(make, message):
    with pytest.raises(TypeError, match=message):
        corrupt(make(torch.rand(2, 3, 32, 32)), "contrast", 1)
