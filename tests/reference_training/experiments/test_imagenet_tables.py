"""The evaluation at the end of a full-scale run, and whole tables on ImageNet."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from reference_training import report
from reference_training.config import ImageNetRun
from reference_training.corruptions import CORRUPTIONS
from reference_training.experiments import imagenet, imagenet_tables
from reference_training.experiments.job import resolve
from reference_training.paper.experiments import EXPERIMENTS, ROWS
from reference_training.run import main, parse
from scripts.make_photograph_crops import write_folder

SMALL = (
    "--arch resnet8 --weights random --crop 32 --resize 36 --recipe.batch-size 12 "
    "--recipe.iterations 2 --numerics.precision float32 --workers 0 --device cpu --frost procedural"
).split()


def test_a_run_ends_with_its_evaluation_and_continues_it(tmp_path, capsys):
    write_folder(tmp_path, each=4, broken=0)
    command = ["--experiment", "table5/ulfd", *SMALL, "--data-root", str(tmp_path)]
    command += ["--out", str(tmp_path / "run"), "--evaluate", "--evaluation-subset", "4"]
    assert main(command) == 1
    assert "The trained network is safe" in capsys.readouterr().err
    assert report.main([str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 0
    assert "Not evaluated yet" in (tmp_path / "page.html").read_text()
    (tmp_path / "train").rename(tmp_path / "val")
    write_folder(tmp_path, each=4, broken=0)
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


def test_a_network_is_evaluated_as_the_tables_ask():
    def asked(row: str) -> set[tuple[str, bool]]:
        run = ImageNetRun(experiment=row, arch=ROWS[row].arch)
        return {(adaptation.name, few) for adaptation, few in resolve(run).evaluations()}

    assert asked("table1/urie") == {("none", False)}
    assert asked("table1/vanilla") == {("none", False), ("none", True)}  # it is in Table 4
    both = {(name, few) for name in ("none", "bn", "rpl") for few in (False, True)}
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


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Pretends to train: networks get better in the order in which they are trained."""
    done: list[ImageNetRun] = []

    def execute(run: ImageNetRun) -> None:
        done.append(run)
        for adaptation, few in resolve(run).evaluations():
            folder = imagenet.evaluation_folder(run, adaptation.name, few=few)
            folder.mkdir(parents=True)
            accuracy = 0.3 + 0.1 * len(done)
            top1 = {
                "clean": {"clean_resize256_center224": 0.9, "clean_squash224": accuracy},
                "corruptions": dict.fromkeys(CORRUPTIONS, [accuracy / (2 if few else 1)] * 5),
            }
            (folder / "result.json").write_text(json.dumps({"top1": top1}))

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
    assert "+ SFD + UM" in capsys.readouterr().out
    assert not (imagenet_tables.OUT / "table1.md").exists()


def test_table_4_has_adaptations_and_few_images(trained):
    assert main("--experiment table4 --dataset imagenet".split()) == 0
    lines = (imagenet_tables.OUT / "table4.md").read_text().splitlines()
    adapted = next(line for line in lines if "BNAdapt" in line)
    seen, subset = adapted.split("|")[3], adapted.split("|")[6]
    assert float(seen) == pytest.approx(2 * float(subset), abs=0.1)


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


def test_another_network_than_the_tables_is_refused_before_it_is_trained(trained, capsys):
    assert main("--experiment table5 --dataset imagenet --arch resnet18".split()) == 1
    assert "--arch resnet18 is not the network of the row table5/" in capsys.readouterr().err
    assert not trained
