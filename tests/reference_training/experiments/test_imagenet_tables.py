"""The evaluation at the end of a full-scale run, and whole tables on ImageNet."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reference_training import report
from reference_training.config import ImageNetRun
from reference_training.corruptions import CORRUPTIONS
from reference_training.data.photographs import RECORD
from reference_training.experiments import imagenet, imagenet_tables
from reference_training.experiments.job import resolve
from reference_training.networks.backbones import ARCHITECTURES
from reference_training.paper.experiments import EXPERIMENTS, ROWS
from reference_training.run import main, parse
from reference_training.training import export
from scripts.make_photograph_crops import write_folder

SMALL = (
    "--arch resnet8 --weights random --crop 32 --resize 36 --recipe.batch-size 12 "
    "--recipe.iterations 2 --numerics.precision float32 --workers 0 --device cpu --frost procedural"
).split()


def test_a_run_ends_with_its_evaluation_and_continues_it(tmp_path, capsys):
    write_folder(tmp_path, each=4, broken=0)
    command = ["--experiment", "table5/ulfd", *SMALL, "--data-root", str(tmp_path)]
    command += ["--out", str(tmp_path / "run")]
    assert main(command) == 0
    assert report.main([str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 0
    assert "Not evaluated yet" in (tmp_path / "page.html").read_text()
    (tmp_path / "train").rename(tmp_path / "val")
    write_folder(tmp_path, each=4, broken=0)
    command += ["--evaluate", "--evaluation-subset", "4"]
    assert main(command) == 0
    path = tmp_path / "run/evaluation/none/result.json"
    result = json.loads(path.read_text())
    assert set(result["top1"]["corruptions"]) == set(CORRUPTIONS)
    assert result["data"]["subset"] == 4
    page = tmp_path / "page.html"
    assert report.main([str(tmp_path / "run"), "--out", str(page)]) == 0
    text = page.read_text()
    assert "table5/ulfd, resnet8" in text
    assert "SUBSET of 4 of" in text  # what was evaluated
    assert f"{100 * result['metrics']['seen_top1']['value']:.1f}" in text
    assert report.main([str(tmp_path / "run"), str(tmp_path), "--out", str(page)]) == 1
    assert "give it by itself" in capsys.readouterr().err
    path.unlink()
    kept = {file: file.stat().st_mtime_ns for file in path.parent.rglob("*.json")}
    assert main(command) == 0
    assert json.loads(path.read_text()) == result
    assert all(file.stat().st_mtime_ns == then for file, then in kept.items() if file != path)


def test_published_weights_are_a_row_as_they_are(tmp_path, capsys):
    """Files like AugMix's: below "module.", with the optimiser's state beside, no objects."""
    write_folder(tmp_path, each=2, broken=0)
    torch.manual_seed(5)
    network = ARCHITECTURES["resnet8"].make(8)
    weights = {f"module.{name}": value for name, value in network.state_dict().items()}
    published = {"epoch": 89, "arch": "resnet8", "state_dict": weights, "best_acc1": torch.ones(1)}
    torch.save(published, tmp_path / "augmix.pth.tar")
    given = ["--experiment", "table3/augmix", *SMALL, "--data-root", str(tmp_path)]
    given += ["--recipe.iterations", "0", "--out", str(tmp_path / "run")]
    given += ["--weights", str(tmp_path / "augmix.pth.tar")]
    assert main(given) == 0
    exported = load_file(tmp_path / "run/export" / export.MODEL)
    for name, value in network.state_dict().items():
        assert torch.equal(exported[name], value)
    torch.save(published | {"ema": weights}, tmp_path / "augmix.pth.tar")
    assert main([*given, "--out", str(tmp_path / "two")]) == 1
    assert "'state_dict.module.', 'ema.module.'; choose" in capsys.readouterr().err
    assert main([*given, "--out", str(tmp_path / "two"), "--weights-prefix", "ema.module."]) == 0


def test_squeezed_photographs_have_no_parts_of_random_shape(tmp_path, capsys):
    write_folder(tmp_path, each=2, broken=0)
    (tmp_path / RECORD).write_text("{}")
    given = ["--experiment", "table3/augmix", *SMALL, "--data-root", str(tmp_path)]
    given += ["--out", str(tmp_path / "run")]
    assert main(given) == 1
    assert "were squeezed to squares by data.prepare" in capsys.readouterr().err
    assert main([*given, "--recipe", "shared"]) == 0


def test_a_network_is_evaluated_as_the_tables_ask():
    def asked(row: str) -> set[tuple[str, int | None]]:
        run = ImageNetRun(experiment=row, arch=ROWS[row].arch)
        return {(adaptation.name, draw) for adaptation, draw in resolve(run).evaluations()}

    draws = (None, *range(5))
    assert asked("table1/urie") == {("none", None)}
    assert asked("table1/vanilla") == {("none", draw) for draw in draws}  # it is in Table 4
    both = {(name, draw) for name in ("none", "bn", "rpl5") for draw in draws}
    assert asked("table3/deepaugment_augmix") == both


def test_every_network_is_trained_once_and_what_it_needs_before():
    rows = imagenet_tables.rows("all")
    networks = [(ROWS[row].training, ROWS[row].arch) for row in rows]
    assert len(set(networks)) == len(networks)
    assert set(networks) == {
        (row.training, row.arch) for one in EXPERIMENTS.values() for row in one.rows
    } | {("i_revnet", "resnet50")}
    assert rows[0] == "stages/i_revnet"
    for table in EXPERIMENTS:  # and nothing again that another table had trained
        assert set(imagenet_tables.rows(table)) <= set(rows)


def published(draw: int | None = None) -> dict:
    """What result.json says of the published ImageNet-C, but for the accuracies."""
    subset = {"subset": None} if draw is None else {"subset": 500, "draw": draw}
    data = {"name": "ImageNet-C", "published": "ImageNet-C", "images": 50_000, **subset}
    return {
        "label": "ImageNet-C, all 50000 images",
        "data": data,
        "model": {"preprocessing": {"input_size": 224}},
        "content": {"corruptions": {"fog": [1, 2, 3, 4, 5]}},
        "metrics": {"mce": {"normaliser": {"name": "AlexNet"}}},
    }


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Pretends to train: networks get better in the order in which they are trained."""
    done: list[ImageNetRun] = []

    def execute(run: ImageNetRun) -> None:
        done.append(run)
        for adaptation, draw in resolve(run).evaluations():
            folder = imagenet.evaluation_folder(run, adaptation.name, draw)
            folder.mkdir(parents=True)
            accuracy = 0.3 + 0.1 * len(done)
            seen = accuracy if draw is None else accuracy / 2 + 0.01 * draw
            top1 = {
                "clean": {"clean_resize256_center224": 0.9, "clean_squash224": accuracy},
                "corruptions": dict.fromkeys(CORRUPTIONS, [seen] * 5),
            }
            (folder / "result.json").write_text(json.dumps(published(draw) | {"top1": top1}))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(imagenet, "execute", execute)
    return done


def test_a_table_is_written_with_the_papers_numbers_beside(trained, capsys):
    assert main("--experiment table5 --dataset imagenet".split()) == 0
    assert [ROWS[run.experiment].key for run in trained] == [
        "cross_entropy",
        "feature_distillation",
        "ulfd",
        "cross_entropy_degraded",
    ]
    assert all(run.evaluate for run in trained)
    page = (imagenet_tables.OUT / "table5.md").read_text()
    # the third network: 60 %, whose mCE is the mean of 40 % over AlexNet's errors
    line = next(line for line in page.splitlines() if "SFD + UM" in line)
    assert "| 60.0 | 76.23 | −16.23 |" in line
    assert "Evaluated on ImageNet-C, all 50000 images. Frost overlays in training: photo" in page
    assert "Recipes: own (cross_entropy, feature_distillation, ulfd, cross_entropy_degr" in page
    assert "left out" not in page
    assert "+ SFD + UM" in capsys.readouterr().out
    assert not (imagenet_tables.OUT / "table1.md").exists()


def test_table_4_has_adaptations_and_few_images(trained):
    assert main("--experiment table4 --dataset imagenet --deepaugment-roots there".split()) == 0
    lines = (imagenet_tables.OUT / "table4.md").read_text().splitlines()
    adapted = next(line for line in lines if "BNAdapt" in line)
    seen, few = adapted.split("|")[3], adapted.split("|")[6].split(" ± ")
    # Of the draws: half of it, and 0 to 4 points more.
    assert float(few[0]) == pytest.approx(float(seen) / 2 + 2, abs=0.1)
    assert float(few[1]) == pytest.approx(2.5**0.5, abs=0.05)


def test_a_stand_in_for_deepaugment_is_named_and_not_compared(trained):
    given = "--experiment table3 --dataset imagenet --deepaugment-stand-in --recipe shared"
    assert main(given.split()) == 0
    page = (imagenet_tables.OUT / "table3.md").read_text()
    everyone = ", ".join(row.key for row in EXPERIMENTS["table3"].rows)  # an equal budget
    assert f"Recipes: shared ({everyone}). Weights at first: pretrained ({everyone})." in page
    assert "was DeepAugment: deepaugment, deepaugment_ulfd, deepaugment_augmix, deep" in page
    assert "left out: DeepAugment's own images were not there" in page
    assert "60.31" not in page


def test_a_row_that_cannot_be_trained_is_said_before_the_first(trained, capsys):
    assert main("--experiment table3 --dataset imagenet".split()) == 1
    assert "table3/deepaugment needs DeepAugment's own images" in capsys.readouterr().err
    assert not trained


def test_every_network_has_its_folder_and_the_stage_that_it_needs(trained, tmp_path):
    assert main("--experiment table2 --dataset imagenet --out here".split()) == 0
    stage, *networks = trained
    assert stage.experiment == "stages/i_revnet"
    assert [run.evaluate for run in trained] == [False] + [True] * len(networks)
    assert len({run.folder for run in trained}) == len(trained)
    assert all(run.folder.parent == Path("here") for run in trained)
    needing = [run for run in networks if run.needed is not None]
    assert {(ROWS[run.experiment].training, run.arch) for run in needing} == {
        ("qualnet", "resnet50"),
        ("qualnet", "resnext101_32x8d"),
    }
    assert {run.needed for run in needing} == {stage.folder / "export/model.safetensors"}
    assert (tmp_path / "here/table2.md").is_file()


def test_plans_train_nothing(trained):
    runs = parse("--experiment table5 --dataset imagenet --plan".split())
    imagenet_tables.execute([replace(run, plan=True) for run in runs])
    assert not any(run.evaluate for run in trained)


def test_one_network_in_the_place_of_two_is_refused_before_it_is_trained(trained, capsys):
    assert main("--experiment table1 --dataset imagenet --arch resnet18".split()) == 1
    assert "--arch resnet18 would stand for both networks of the table" in capsys.readouterr().err
    assert not trained


def change(run: ImageNetRun, **parts: dict) -> None:
    path = imagenet.evaluation_folder(run) / "result.json"
    result = json.loads(path.read_text())
    for key, part in parts.items():
        result[key].update(part)
    path.write_text(json.dumps(result))


TABLE5 = "--experiment table5 --dataset imagenet".split()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"data": {"published": None}}, "published was 'ImageNet-C' and is now None"),
        ({"data": {"subset": 100}}, "subset was None and is now 100"),
        ({"content": {"corruptions": {"fog": [1, 2, 9, 4, 5]}}}, "content.corruptions.fog was"),
        ({"model": {"preprocessing": {"input_size": 64}}}, "input_size was 224 and is now 64"),
    ],
)
def test_rows_of_different_images_are_not_mixed(trained, monkeypatch, capsys, parts, message):
    assert main(TABLE5) == 0
    change(trained[2], **parts)
    monkeypatch.setattr(imagenet, "execute", lambda run: None)
    assert main(TABLE5) == 1
    told = capsys.readouterr().err
    assert re.search(
        rf"rows cross_entropy and ulfd of table5 .*different images: .*{message}", told
    )


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"data": {"published": None, "name": "val, on the fly"}}, "not the published ImageNet-C"),
        ({"data": {"images": 5_000}}, "not all 50000 images"),
        ({"metrics": {"mce": {"normaliser": None}}}, "mCE is not normalised by AlexNet"),
    ],
)
def test_the_papers_numbers_stand_beside_the_same_kind_only(trained, monkeypatch, parts, reason):
    assert main(TABLE5) == 0
    for run in trained:
        change(run, **parts)
    monkeypatch.setattr(imagenet, "execute", lambda run: None)
    assert main(TABLE5) == 0
    page = (imagenet_tables.OUT / "table5.md").read_text()
    assert "The paper's numbers are left out: " in page
    assert reason in page
    assert "76.23" not in page
    assert ("Mean corruption error" in page) == ("metrics" in parts)  # what needs no normaliser


def test_another_network_has_its_own_name_and_no_numbers_of_the_paper(trained):
    assert main([*TABLE5, "--arch", "resnet18"]) == 0
    assert all(run.arch == "resnet18" for run in trained)
    page = (imagenet_tables.OUT / "table5.md").read_text()
    assert "| resnet18 |" in page
    assert "76.23" not in page


@pytest.fixture
def split(tmp_path):
    for name in ("val", "train"):
        write_folder(tmp_path, each=2, broken=0)
        if name == "val":
            (tmp_path / "train").rename(tmp_path / "val")
    return tmp_path


def empty(root: Path) -> None:
    for path in (root / "val" / "coffee").iterdir():
        path.unlink()


SPOILT = {
    "missing": (lambda root: (root / "val").rename(root / "test"), "needs clean images in .*val"),
    "classes": (
        lambda root: (root / "val/coffee").rename(root / "val/tea"),
        "have other classes: coffee, tea are in one of them only",
    ),
    "empty": (empty, "no image in the class folders coffee"),
    "damaged": (
        lambda root: (root / "val/astronaut/0000.jpeg").write_bytes(b"no image"),
        "0000.jpeg cannot be read",
    ),
    "published": (
        lambda root: shutil.copytree(root / "val", root / "imagenet-c/fog/1"),
        "missing: .*fog/2",
    ),
    "subset": (lambda root: None, "--subset is 17, but must be from 1 to 16"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_cannot_be_evaluated_is_said_before_the_first_step(name, split, tmp_path, capsys):
    spoil, message = SPOILT[name]
    spoil(split)
    command = ["--experiment", "table5/ulfd", *SMALL, "--data-root", str(split), "--evaluate"]
    command += ["--evaluation-subset", "17"] if name == "subset" else []
    assert main([*command, "--out", str(tmp_path / "run")]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not list((tmp_path / "run").glob("*.safetensors"))
