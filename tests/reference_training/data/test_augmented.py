"""DeepAugment's own images in folders: which one a pair gets, and how it is cropped."""

import numpy as np
import pytest
import torch
from PIL import Image

from reference_training.data.photograph_pairs import PhotographPairs
from reference_training.data.photographs import AugmentedFolders, ImageFolder
from reference_training.data.second_images import Corruptions
from reference_training.data.views import Views
from reference_training.run import main
from reference_training.runtime.clock import Clock
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import JsonLines
from reference_training.runtime.ranks import ALONE


def write(root, images, change):
    for number, image in enumerate(images):
        path = root / f"class{number % 2}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(change(image)).save(path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Photographs, and two augmentations that can be told apart: inverted, and without red."""
    root = tmp_path_factory.mktemp("augmented")
    images = np.random.default_rng(0).integers(0, 256, (10, 40, 40, 3), dtype=np.uint8)
    write(root / "train", images, lambda image: image)
    write(root / "inverted", images, lambda image: 255 - image)
    write(root / "without_red", images, lambda image: image * np.array([0, 1, 1], np.uint8))
    return root


def source(root, tmp_path, roots, **options):
    photographs = ImageFolder(root / "train")
    return PhotographPairs(
        photographs,
        batch_size=16,
        seed=3,
        views=Views(40, 32, Corruptions()),
        channels_last=True,
        most_unreadable=20,
        unreadable=JsonLines(tmp_path / "unreadable.jsonl"),
        world=ALONE,
        clock=Clock(torch.device("cpu")),
        deepaugmented=AugmentedFolders(photographs, [root / name for name in roots]),
        **({"second": "deepaugment", "workers": 0} | options),
    )


def levels(images):
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return ((images * std + mean) * 255).round()


def test_a_pair_is_a_photograph_and_its_augmented_version_cropped_alike(folders, tmp_path):
    pairs = source(folders, tmp_path, ["inverted", "without_red"])
    inverted = red = 0
    for batch in pairs.batches(0, 4):
        for clean, second in zip(levels(batch.clean), levels(batch.degraded), strict=True):
            if torch.equal(second, 255 - clean):
                inverted += 1
            else:
                assert torch.equal(second[1:], clean[1:])
                assert second[0].max() == 0
                red += 1
    assert inverted + red == 64
    assert abs(inverted - red) < 6 * 64**0.5


def test_workers_and_resumption_change_nothing(folders, tmp_path):
    roots = ["inverted", "without_red"]
    for second, views in (("deepaugment", 1), ("deepaugment_augmix", 2)):
        options = {"second": second, "second_views": views}
        whole = list(source(folders, tmp_path, roots, **options).batches(0, 3))
        later = list(source(folders, tmp_path, roots, workers=1, **options).batches(1, 3))
        for one, other in zip(whole[1:], later, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert (whole[0].degraded[:, 0] != whole[0].degraded[:, 1]).any()


def test_a_damaged_augmented_image_is_replaced_like_a_photograph(folders, tmp_path):
    broken = tmp_path / "broken"
    for path in (folders / "inverted").rglob("*.png"):
        target = broken / path.relative_to(folders / "inverted")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes()[: 50 if path.stem == "004" else None])
    pairs = source(folders, tmp_path, [broken])
    for batch in pairs.batches(0, 3):
        assert torch.equal(levels(batch.degraded), 255 - levels(batch.clean))
    pairs.check()
    assert "class0/004.png" in pairs.unreadable.path.read_text()


def test_folders_that_do_not_fit(folders, tmp_path, capsys):
    with pytest.raises(RunError, match=r"class0/000.png does not exist.*--deepaugment-roots"):
        source(folders, tmp_path, ["nowhere"])
    given = ["--experiment", "table5/cross_entropy", "--data-root", str(folders)]
    given += ["--deepaugment-roots", str(folders / "inverted"), "--out", str(tmp_path / "run")]
    assert main(given) == 1
    assert "--deepaugment-roots: the pairs of table5/cross_entropy" in capsys.readouterr().err


def test_a_network_stands_in_for_deepaugment_only_if_asked(folders, tmp_path, capsys):
    given = ["--experiment", "table3/deepaugment", "--arch", "resnet8", "--weights", "random"]
    given += ["--data-root", str(folders), "--resize", "36", "--crop", "32", "--workers", "0"]
    given += ["--recipe.iterations", "1", "--recipe.batch-size", "4", "--device", "cpu"]
    roots = ["--deepaugment-roots", str(folders / "inverted"), str(folders / "without_red")]
    stand_in = ["--deepaugment-stand-in"]
    for number, more in enumerate((stand_in, roots)):
        assert main([*given, *more, "--out", str(tmp_path / str(number))]) == 0
    for more, message in (([], "needs DeepAugment's own images"), (roots + stand_in, "not both")):
        assert main([*given, *more, "--out", str(tmp_path / "refused")]) == 1
        assert message in capsys.readouterr().err
    as_they_are = ["--recipe.iterations", "0", "--out", str(tmp_path / "as they are")]
    assert main([*given, *as_they_are]) == 0  # published weights need no training images
    assert main([*given, "--plan"]) == 0
    assert "[ ] DeepAugment's own images" in capsys.readouterr().out
