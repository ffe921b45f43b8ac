"""What normalises an evaluation: AlexNet, or another network on the same images."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from reference_training.corruptions import CORRUPTIONS, SEVERITIES
from reference_training.data.class_folders import ClassFolders
from reference_training.data.imagenet_c import PublishedFolders
from reference_training.evaluation import OnTheFly
from reference_training.evaluation import corruption_error as ce
from reference_training.evaluation.results import Counts, checksum
from reference_training.evaluation.summary import summarise
from reference_training.reporting.evaluation_tables import corruption_table, metric_table
from reference_training.runtime.errors import RunError
from tests.reference_training.evaluation.material import PLAIN, digits, evaluate, tiny


def whole_counts(rates, images=50_000):
    """Counts of all 95 sets and the clean one, from top-1 accuracies."""
    counts = {("clean", 0): Counts(images, round(images * rates["clean"]), images)}
    for name in CORRUPTIONS:
        for severity, rate in zip(SEVERITIES, rates[name], strict=True):
            counts[name, severity] = Counts(images, round(images * rate), images)
    return counts


DESCRIPTION = {
    "model": {"name": "AlexNet", "weights_sha256": "0" * 64},
    "data": {"name": "ImageNet-C", "classes": 1000, "images": 50_000, "subset": None},
}


def test_alexnet_is_100_and_every_number_names_its_normaliser():
    rates = {"clean": 1 - ce.ALEXNET.clean_error}
    rates |= {name: [1 - error for error in row] for name, row in ce.ALEXNET.errors.items()}
    result = summarise(DESCRIPTION, whole_counts(rates), ce.ALEXNET)
    metrics = result["metrics"]
    assert metrics["mce"]["value"] == pytest.approx(1, abs=1e-12)
    assert metrics["relative_mce"]["value"] == pytest.approx(1, abs=1e-12)
    assert metrics["mean_error"]["value"] == pytest.approx(0.788993, abs=5e-7)
    assert metrics["unseen_top1"]["value"] == pytest.approx(1 - 0.752064, abs=5e-7)
    assert metrics["mean_error"]["normaliser"] is None
    assert metrics["mce"]["normaliser"]["name"] == "AlexNet"
    assert "76d9393" in metrics["mce"]["normaliser"]["source"]
    assert all("all 50000 images" in metric["label"] for metric in metrics.values())
    table = corruption_table(result)
    assert "CE, AlexNet = 100" in table.header
    assert table.rows[1][-2] == "100.00"
    assert "alexnet-owt-4df8aa71" in metric_table(result).terminal()


def test_a_reference_network_normalises_its_own_images_only(tmp_path):
    evaluate(digits(), tmp_path / "reference", corruptions=["seen"], subset=20, name="small")
    reference = tmp_path / "reference" / "result.json"
    other = {
        "model": tiny(10, seed=1),
        "subset": 20,
        "corruptions": ["seen"],
        "reference": reference,
    }
    result = evaluate(digits(), tmp_path / "other", **other)
    mce = result["metrics"]["mce"]
    assert mce["normaliser"]["name"] == "small"
    before = json.loads(reference.read_text())["top1"]["corruptions"]
    expected = ce.normalised_corruption_error(
        ce.errors_of(result["top1"]["corruptions"]), ce.errors_of(before)
    )
    assert mce["value"] == expected
    assert mce["value"] != 1
    folder = evaluate(digits(), tmp_path / "folder", **(other | {"reference": reference.parent}))
    assert folder["metrics"]["mce"]["value"] == expected
    with pytest.raises(RunError, match="of other images: subset was 20 and is now 60"):
        evaluate(digits(), tmp_path / "third", **(other | {"subset": 60}))
    with pytest.raises(RunError, match="does not exist"):
        evaluate(digits(), tmp_path / "third", **(other | {"reference": tmp_path / "no.json"}))
    wrong = tmp_path / "other" / "sets" / "fog-1.json"
    with pytest.raises(RunError, match="is no result"):
        evaluate(digits(), tmp_path / "third", **(other | {"reference": wrong}))


def test_a_reference_of_other_images_is_refused(published_folder, clean_folder, tmp_path):
    options = {"classes": 3, "corruptions": ["saturate"], "batch_size": 4}
    evaluate(PublishedFolders(published_folder, 3), tmp_path / "first", **options)
    reference = tmp_path / "first" / "result.json"
    again = options | {"reference": reference, "model": tiny(3, seed=1)}
    copied = Path(shutil.copytree(published_folder, tmp_path / "elsewhere" / "ImageNet-C"))
    result = evaluate(PublishedFolders(copied, 3), tmp_path / "second", **again)
    assert result["content"] == json.loads(reference.read_text())["content"]
    three = r"other images: (.* was .*; ){2}.* was .*; and [4-9] more\."
    with pytest.raises(RunError, match=three) as refused:
        evaluate(OnTheFly(ClassFolders(clean_folder, 3), PLAIN), tmp_path / "fly", **again)
    assert "ones corrupted on the fly do not compare" in str(refused.value)
    assert len(str(refused.value)) < 800
    # Wherever the images lie, they are told by their content: one of six is now darker.
    path = sorted((copied / "saturate" / "4").rglob("*.JPEG"))[2]
    Image.open(path).point(lambda level: level // 2).save(path)
    with pytest.raises(RunError, match="images of saturate had the same names, but another"):
        evaluate(PublishedFolders(copied, 3), tmp_path / "third", **again)
    assert not (tmp_path / "third" / "result.json").exists()


def test_the_checksum_is_of_the_images_in_any_order():
    images = torch.randint(0, 256, (6, 3, 70, 64), dtype=torch.uint8)
    whole = checksum(images)
    assert checksum(images.flip(0)) == whole == checksum(images[:2]) + checksum(images[2:])
    for row in (0, 68):  # every second of 70
        other = images.clone()
        other[4, 2, row, 62] ^= 1
        assert checksum(other) != whole
