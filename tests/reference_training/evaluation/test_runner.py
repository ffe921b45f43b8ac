"""`evaluate_corruptions`: its numbers, what it keeps, and what it refuses."""

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import distributed, nn

from reference_training.corruptions import SEVERITIES
from reference_training.data.cifar_c import PublishedArrays
from reference_training.data.class_folders import ClassFolders
from reference_training.data.imagenet_c import PublishedFolders
from reference_training.data.images import balanced
from reference_training.evaluation import runner as module
from reference_training.evaluation.adaptation import ADAPTATIONS
from reference_training.reporting.evaluation_tables import corruption_table, metric_table
from reference_training.runtime.errors import RunError
from reference_training.runtime.lock import sole_writer
from tests.reference_training.evaluation.material import CORRUPTIONS as PUBLISHED
from tests.reference_training.evaluation.material import (
    IMAGES,
    LABELS,
    READY,
    digits,
    evaluate,
    tiny,
)

TWO = ("gaussian_noise", "contrast")


def accuracy(network: nn.Module, pictures: list[np.ndarray], labels) -> float:
    """One image at a time, by hand."""
    network.eval()
    right = 0
    for picture, label in zip(pictures, labels, strict=True):
        x = (picture / 255 - READY.mean) / READY.std
        logits = network(torch.from_numpy(x).float().permute(2, 0, 1)[None])
        right += int(logits.argmax()) == label
    return right / len(labels)


def test_published_folders_give_the_accuracy_of_their_files(
    published_folder, clean_folder, tmp_path
):
    data = PublishedFolders(published_folder, 3, ClassFolders(clean_folder, 3))
    result = evaluate(data, tmp_path / "out", classes=3, corruptions=PUBLISHED, batch_size=4)
    for name in PUBLISHED:
        for severity in SEVERITIES:
            folder = next(published_folder.rglob(name)) / str(severity)
            pictures = [np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.JPEG"))]
            by_hand = accuracy(tiny(3), pictures, [0, 0, 1, 1, 2, 2])
            assert result["top1"]["corruptions"][name][severity - 1] == by_hand
    assert set(result["top1"]["clean"]) == {"clean_resize256_center224", "clean_squash224"}
    assert result["top5"] is None  # of three classes that would say nothing
    values = {v for row in result["top1"]["corruptions"].values() for v in row}
    assert len(values) > 1  # or the comparison says nothing
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result


def test_arrays_give_the_accuracy_of_their_images(arrays_folder, tmp_path):
    data = PublishedArrays(arrays_folder, 10)
    result = evaluate(data, tmp_path / "out", corruptions=["fog", "pixelate"])
    raw = np.load(arrays_folder / "fog.npy").reshape(5, IMAGES, 32, 32, 3)
    by_hand = [accuracy(tiny(10), list(images), LABELS) for images in raw]
    assert result["top1"]["corruptions"]["fog"] == by_hand
    assert result["metrics"]["mce"]["value"] is None
    for metric in ("seen_top1", "unseen_top1", "mean_error", "mce", "relative_mce"):
        assert "some types were not evaluated" in result["metrics"][metric]["why_not"]
    table = metric_table(result)
    assert [row[0] for row in table.rows] == [
        f"Top-1 ({name}, 5 severities)" for name in ("fog", "pixelate")
    ]
    assert table.rows[0][1] == f"{100 * sum(by_hand) / 5:.2f}"
    (note,) = table.notes
    assert note.startswith("No Seen, Unseen, Mean error, mCE, Relative mCE: some types were not")
    assert note.endswith("all 19 are.")


def test_top5_counts_the_five_best(tmp_path):
    data = digits()
    result = evaluate(data, tmp_path / "out", corruptions=["contrast"])
    with torch.no_grad():
        logits = tiny(10).eval()(READY(data.samples(("clean", 0)).images[:]))
    truth = logits.gather(1, data.labels[:, None])
    rank = (logits > truth).sum(dim=1)
    assert result["top5"]["clean"]["clean"] == float((rank < 5).double().mean())
    assert result["top1"]["clean"]["clean"] == float((rank < 1).double().mean())
    assert 0.3 < result["top5"]["clean"]["clean"] < 0.7


def test_batches_and_workers_change_nothing(tmp_path):
    first = evaluate(digits(), tmp_path / "a", corruptions=["gaussian_noise"])
    second = evaluate(
        digits(), tmp_path / "b", corruptions=["gaussian_noise"], batch_size=77, workers=1
    )
    assert first == second
    names = {path.name for path in (tmp_path / "a" / "sets").iterdir()}
    for name in names:
        a, b = ((tmp_path / folder / "sets" / name).read_bytes() for folder in "ab")
        assert a == b


def test_a_finished_set_is_not_computed_again(tmp_path, monkeypatch):
    calls = []
    original = module.count

    def spy(*arguments):
        calls.append(arguments[-1])
        return original(*arguments)

    monkeypatch.setattr(module, "count", spy)
    first = evaluate(digits(), tmp_path, corruptions=["contrast"], batch_size=500)
    assert len(calls) == 6
    (tmp_path / "sets" / "contrast-4.json").unlink()
    assert evaluate(digits(), tmp_path, corruptions=["contrast"], batch_size=500) == first
    assert calls[6:] == [("contrast", 4)]
    more = evaluate(digits(), tmp_path, corruptions=TWO, batch_size=500)
    assert len(calls) == 7 + 5  # other corruptions join those that are there
    assert more["top1"]["corruptions"]["contrast"] == first["top1"]["corruptions"]["contrast"]


CHANGES = {
    "weights": (lambda: {"model": tiny(10, seed=1)}, "weights_sha256"),
    "seed": (lambda: {"data": digits(seed=1)}, "data.seed was 0 and is now 1"),
    "jpeg": (lambda: {"data": digits(jpeg85=True)}, "jpeg85 was False and is now True"),
    "subset": (lambda: {"subset": 100}, "data.subset was None and is now 100"),
    "name": (lambda: {"name": "other"}, "model.name was 'Tiny' and is now 'other'"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_results_of_something_else_are_refused(tmp_path, change):
    evaluate(digits(), tmp_path, corruptions=["contrast"])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    options, message = CHANGES[change]
    with pytest.raises(RunError, match=message) as caught:
        evaluate(**({"data": digits(), "out": tmp_path, "corruptions": ["contrast"]} | options()))
    assert "--out" in str(caught.value)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.json")}


def test_a_set_copied_from_elsewhere_and_a_damaged_one_are_refused(tmp_path):
    evaluate(digits(), tmp_path / "a", corruptions=["contrast"])
    evaluate(digits(), tmp_path / "b", corruptions=["contrast"], subset=100)
    stray = tmp_path / "a" / "sets" / "contrast-1.json"
    shutil.copy(tmp_path / "b" / "sets" / "contrast-1.json", stray)
    with pytest.raises(RunError, match=r"contrast-1.json belongs to another evaluation"):
        evaluate(digits(), tmp_path / "a", corruptions=["contrast"])
    stray.unlink()
    evaluate(digits(), tmp_path / "a", corruptions=["contrast"])
    own = json.loads(stray.read_text())
    other = json.loads((tmp_path / "a" / "sets" / "contrast-2.json").read_text())
    for content in (own | {"top1": own["top1"] + 1}, other):
        stray.write_text(json.dumps(content))
        with pytest.raises(RunError, match=r"contrast-1.json .* or it was edited"):
            evaluate(digits(), tmp_path / "a", corruptions=["contrast"])
    for content in ("{", "[]", '{"images": 3}'):
        stray.write_text(content)
        with pytest.raises(RunError, match=r"contrast-1.json is damaged.*[Dd]elete it"):
            evaluate(digits(), tmp_path / "a", corruptions=["contrast"])


def test_more_tars_may_come_but_images_must_stay(published_folder, tmp_path):
    later = published_folder / "noise" / "gaussian_noise"
    later.rename(tmp_path / "gaussian_noise")
    options = {"classes": 3, "corruptions": ["saturate"]}
    first = evaluate(PublishedFolders(published_folder, 3), tmp_path / "out", **options)
    (tmp_path / "gaussian_noise").rename(later)  # now the first in the order of corruptions
    assert evaluate(PublishedFolders(published_folder, 3), tmp_path / "out", **options) == first
    path = next((published_folder / "saturate" / "4").rglob("*.JPEG"))
    Image.open(path).save(path, quality=30)
    with pytest.raises(RunError, match=r"saturate-4.json belongs .*images have changed since"):
        evaluate(PublishedFolders(published_folder, 3), tmp_path / "out", **options)


def test_arrays_that_changed_are_noticed(arrays_folder, tmp_path):
    evaluate(PublishedArrays(arrays_folder, 10), tmp_path, corruptions=["fog"])
    fog = np.load(arrays_folder / "fog.npy")
    fog[2 * IMAGES + 3] ^= 1
    changed = (arrays_folder / "fog.npy").stat().st_mtime_ns
    np.save(arrays_folder / "fog.npy", fog)
    os.utime(arrays_folder / "fog.npy", ns=(changed, changed))
    with pytest.raises(RunError, match=r"fog-3.json belongs .*images have changed since"):
        evaluate(PublishedArrays(arrays_folder, 10), tmp_path, corruptions=["fog"])


def test_a_subset_is_named_in_every_label(tmp_path):
    result = evaluate(digits(), tmp_path, corruptions=["contrast"], subset=70)
    assert json.loads((tmp_path / "sets" / "contrast-1.json").read_text())["images"] == 70
    remark = "SUBSET of 70 of 500 images"
    assert all(remark in metric["label"] for metric in result["metrics"].values())
    for table in (corruption_table(result), metric_table(result)):
        assert remark in table.caption


def test_an_unreadable_image_ends_it_by_name_and_keeps_what_is_finished(published_folder, tmp_path):
    path = sorted((published_folder / "saturate" / "3").rglob("*.JPEG"))[4]
    path.write_bytes(path.read_bytes()[:1500])
    data = PublishedFolders(published_folder, 3)
    for workers in (0, 2):
        with pytest.raises(RunError, match=path.name) as caught:
            evaluate(data, tmp_path, classes=3, corruptions=["saturate"], workers=workers)
        assert "Traceback" not in str(caught.value)
    kept = sorted(entry.name for entry in (tmp_path / "sets").iterdir())
    assert kept == ["saturate-1.json", "saturate-2.json"]


class Broken(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.fc = nn.Linear(1, 1)

    def forward(self, x):
        logits = torch.zeros(len(x), 1000 if self.how == "classes" else 10)
        if self.how == "nan":
            logits[0, 3] = torch.nan
        return (logits, logits) if self.how == "tuple" else logits


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("classes", r"returned \(256, 1000\) for 256 images of 10 classes"),
        ("tuple", "returned tuple"),
        ("nan", r"not numbers \(NaN\)"),
    ],
)
def test_networks_that_cannot_be_evaluated_are_refused(tmp_path, how, message):
    with pytest.raises(RunError, match=message):
        evaluate(digits(), tmp_path, model=Broken(how), corruptions=["contrast"])
    assert not (tmp_path / "sets").exists()


def test_the_network_is_left_as_it_was(tmp_path):
    network = tiny(10)
    network.norm.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    evaluate(digits(), tmp_path, model=network, corruptions=["contrast"])
    assert network.training
    assert not network.norm.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_have_the_network_s_precision(tmp_path, dtype):
    """Rounded networks differ, so another number of images may be right: at most a few."""
    asked = {"corruptions": ["contrast"], "subset": 100}
    whole = evaluate(digits(), tmp_path / "whole", model=tiny(10), **asked)
    other = evaluate(digits(), tmp_path / "other", model=tiny(10).to(dtype), **asked)
    assert abs(whole["top1"]["clean"]["clean"] - other["top1"]["clean"]["clean"]) <= 0.03


def test_a_folder_has_one_evaluator(tmp_path):
    with sole_writer(tmp_path), pytest.raises(RunError, match=rf"process {os.getpid()} on .* wr"):
        evaluate(digits(), tmp_path, corruptions=["contrast"])
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    evaluate(digits(), tmp_path, corruptions=["contrast"], subset=20)


def one_rank(rank: int, folder: Path) -> None:
    method = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", init_method=method, rank=rank, world_size=2)
    try:
        evaluate(digits(), folder / "out", corruptions=TWO)
    finally:
        distributed.destroy_process_group()


def test_two_ranks_share_the_sets(tmp_path):
    context = multiprocessing.get_context("spawn")
    other = context.Process(target=one_rank, args=(1, tmp_path))
    other.start()
    one_rank(0, tmp_path)
    other.join(60)
    assert other.exitcode == 0
    evaluate(digits(), tmp_path / "alone", corruptions=TWO)
    alone = (tmp_path / "alone" / "result.json").read_bytes()
    assert (tmp_path / "out" / "result.json").read_bytes() == alone


@pytest.mark.parametrize(("subset", "batch"), [(None, 96), (40, 32)])
def test_a_network_adapts_to_each_set_by_itself(tmp_path, subset, batch):
    data = digits()
    model, kind = tiny(10), ADAPTATIONS["rpl" if subset is None else "bn"]
    result = evaluate(
        data, tmp_path, model=model, corruptions=["contrast"], adaptation=kind, subset=subset
    )
    positions = torch.arange(len(data.labels))
    if subset is not None:
        positions = balanced(data.labels, subset)
    order = torch.randperm(len(positions), generator=torch.Generator().manual_seed(0))
    positions = positions[order]
    for severity in SEVERITIES:
        samples = data.samples(("contrast", severity))
        clean = torch.stack([samples.images[at] for at in positions.tolist()])
        shown = READY(samples.degrade(clean, positions)).split(batch)
        logits = torch.cat(list(kind.predict(tiny(10).eval(), shown)))
        right = int((logits.argmax(1) == data.labels[positions]).sum())
        assert result["top1"]["corruptions"]["contrast"][severity - 1] == right / len(positions)
    plain = evaluate(data, tmp_path / "plain", corruptions=["contrast"], subset=subset)
    assert plain["top1"] != result["top1"]
    assert "adaptation" not in plain["model"]
    assert result["model"]["adaptation"] == {"name": kind.name, "batch_size": batch}
    assert result["model"]["name"] == f"Tiny + {kind.label}"
    with pytest.raises(RunError, match=r"another evaluation: model"):
        evaluate(data, tmp_path, model=model, corruptions=["contrast"], subset=subset)
