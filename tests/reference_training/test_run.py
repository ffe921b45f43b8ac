"""The main job as its users run it: whole, killed, interrupted, misused."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reference_training.config import OFFICIAL_CODE, PAPER
from reference_training.presets import PRESETS
from reference_training.run import main, parse

SMALL = (
    "--dataset digits --methods vanilla ulfd --seeds 0 "
    "--pretraining.iterations 12 --pretraining.batch-size 32 "
    "--recipe.iterations 12 --recipe.batch-size 32 "
    "--evaluation-images 10 --checkpoint-every 4 --jobs 1"
).split()


def start(folder: Path, *more: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "reference_training.run", *SMALL, "--out", str(folder), *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=900)
    return process.returncode, out, err


def wait_for(path: Path, process: subprocess.Popen, *, lines: int = 0) -> None:
    """Waits until a file is there (and has so many lines) while the run goes on."""
    for _ in range(6000):
        if path.exists() and path.read_bytes().count(b"\n") >= lines:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError(f"{path} never came")


def ends_as(whole: tuple[Path, str], folder: Path, *more: str) -> bool:
    """Whether the run, begun or not, ends here with the results of the one from end to end."""
    assert main([*SMALL, "--out", str(folder), *more]) == 0
    return (folder / "metrics.json").read_bytes() == (whole[0] / "metrics.json").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One run from beginning to end."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    code, out, err = finish(start(folder))
    assert code == 0, err
    return folder, out


def test_leaves_what_it_promises(whole):
    folder, out = whole
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["results"]) == {"vanilla", "ulfd"}
    entry = metrics["results"]["ulfd"]["0"]
    assert len(entry["corruptions"]) == 19
    assert all(len(row) == 5 for row in entry["corruptions"].values())
    assert 0 < entry["uncertainty"]["clean"] <= 1  # the official UEM's θ
    assert metrics["results"]["vanilla"]["0"]["uncertainty"] is None
    run = json.loads((folder / "run.json").read_text())
    assert run["config"]["recipe"]["iterations"] == 12
    assert run["wall_seconds"] > 0
    assert {"torch", "ulfd", "python"} <= set(run["versions"])
    for name in ("report.md", "report.html"):
        assert (folder / name).stat().st_size > 1000
    assert "report.html" in out
    losses = (folder / "seed-0/ulfd/metrics.jsonl").read_text().splitlines()
    assert {"loss", "log_variance_min", "distillation"} <= set(json.loads(losses[0]))


@pytest.mark.parametrize(
    ("moment", "lines"),
    [("seed-0/ulfd/00000004.json", 0), ("evaluation.jsonl", 30)],
    ids=["training", "evaluation"],
)
def test_killed_and_started_again_ends_with_the_same_metrics(
    whole, tmp_path, capsys, moment, lines
):
    folder = tmp_path / "killed"
    process = start(folder)
    wait_for(folder / moment, process, lines=lines)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "metrics.json").exists()
    assert ends_as(whole, folder)
    assert "resuming the run" in capsys.readouterr().out


def test_interrupted_says_how_to_continue(whole, tmp_path):
    folder = tmp_path / "interrupted"
    process = start(folder)
    wait_for(folder / "seed-0/vanilla/00000004.json", process)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert "Traceback" not in err
    message = re.search(r"continue with: (python -m reference_training.run .*)", err)
    assert message
    assert str(folder) in message[1]
    assert ends_as(whole, folder)


def workers_of(process: subprocess.Popen) -> list[int]:
    """The process numbers of a run's workers, from Linux's /proc: children of its fork server."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if "forkserver" in (folder / "cmdline").read_text():
                parents[int(folder.name)] = parent
        except (OSError, IndexError):
            continue  # it ended while we looked
    return [worker for worker, server in parents.items() if parents.get(server) == process.pid]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_a_killed_worker_is_named_and_a_killed_parent_leaves_none(whole, tmp_path):
    folder = tmp_path / "worker"
    process = start(folder)
    wait_for(folder / "seed-0/ulfd/00000004.json", process)
    for worker in workers_of(process):
        os.kill(worker, signal.SIGKILL)
    code, _, err = finish(process)
    assert code == 1
    assert "a worker process was killed" in err
    process = start(folder)
    wait_for(folder / "evaluation.jsonl", process, lines=3)
    left = workers_of(process)
    assert left
    process.kill()
    process.communicate()
    for _ in range(100):
        if not any(Path(f"/proc/{worker}").exists() for worker in left):
            break
        time.sleep(0.1)
    else:
        raise AssertionError("workers outlived their parent")
    assert ends_as(whole, folder)


def test_the_number_of_jobs_changes_nothing(whole, tmp_path):
    assert ends_as(whole, tmp_path / "two", "--jobs", "2")


def test_a_finished_run_is_not_computed_again(whole):
    folder, _ = whole
    kept = [folder / "metrics.json", folder / "evaluation.jsonl"]
    content = [path.read_bytes() for path in kept]
    checkpoints = {path: path.stat().st_mtime_ns for path in folder.glob("seed-*/*/[0-9]*")}
    assert checkpoints
    assert main([*SMALL, "--out", str(folder)]) == 0
    assert [path.read_bytes() for path in kept] == content
    assert checkpoints == {path: path.stat().st_mtime_ns for path in checkpoints}


def test_another_configuration_is_not_mixed_in(whole, capsys):
    folder, _ = whole
    before = {path: path.read_bytes() for path in folder.rglob("*.json*")}
    assert main([*SMALL, "--out", str(folder), "--lambda", "0.5"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "holds another run: recipe.distillation_weight was 0.1 and is now 0.5. Use" in said
    assert before == {path: path.read_bytes() for path in folder.rglob("*.json*")}


def test_a_damaged_checkpoint_is_made_anew(whole, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(whole[0], folder)
    path = folder / "seed-0/ulfd/00000012.safetensors"
    sound = path.read_bytes()
    content = bytearray(sound)
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    code, out, err = finish(start(folder))  # of which the workers' words are part
    assert code == 0, err
    assert re.search(r"00000012.safetensors is damaged.*continuing from iteration 8", out + err)
    assert path.read_bytes() == sound
    assert (folder / "metrics.json").read_bytes() == (whole[0] / "metrics.json").read_bytes()


def test_a_full_disk_loses_nothing(whole, tmp_path):
    """A limit on the size of files stands for the disk; lifted, the run continues."""
    import resource

    folder = tmp_path / "full"

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    code, _, err = finish(start(folder, preexec_fn=limit))
    assert code == 1
    assert re.search(r"error: cannot write .*\.safetensors: File too large.*Make room", err)
    assert "Traceback" not in err
    assert ends_as(whole, folder)


BAD = {
    "dataset": (["--dataset", "imagenet-1"], "unknown dataset 'imagenet-1'"),
    "method": (["--methods", "ulfd", "magic"], "unknown method 'magic'"),
    "seeds": (["--seeds", "1", "1"], "named twice"),
    "iterations": (["--recipe.iterations", "0"], "--recipe.iterations is 0"),
    "frost": (["--frost", "snowy"], "--frost"),
    "data root": (["--data-root", "no/such/folder"], "does not exist"),
    "teacher": (["--recipe.teacher", "me"], "teacher is 'me'"),
    "uem": (["--uem.log-variance", "pixel"], "log_variance is 'pixel'"),
    "uem of nothing": (
        ["--methods", "vanilla", "ulfd@uem=default", "--uem.blocks", "2"],
        "--uem.* would change nothing",
    ),
    "few": (["--train-images", "7"], "digits has 10 classes"),
    "held out": (["--validation-images", "1290"], "leaves 7 of 1297 training images"),
    "negative": (["--validation-images", "-1"], "must be at least 0"),
    "adaptation": (["--methods", "ulfd+luck"], "unknown adaptation 'luck'"),
    "change": (["--methods", "ulfd@lamda=1"], "'lamda', which is unknown"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_with_a_message(name, tmp_path, capsys):
    arguments, message = BAD[name]
    assert main([*SMALL, "--out", str(tmp_path / "run"), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "run").exists()


def test_an_unwritable_folder_ends_with_a_message(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([*SMALL, "--out", str(tmp_path / "file" / "run")]) == 1
    assert re.search(r"error: cannot write .*--out", capsys.readouterr().err)


def test_dry_run_writes_nothing(tmp_path, capsys):
    assert main([*SMALL, "--out", str(tmp_path / "run"), "--dry-run"]) == 0
    assert "24 iterations, then 96 evaluation sets" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_the_images_counted_are_those_evaluated(tmp_path, capsys):
    held_out = "--evaluation-images 50 --validation-images 20 --dry-run".split()
    assert main([*SMALL, "--out", str(tmp_path / "run"), *held_out]) == 0
    assert f"{1297 - 20} training, 20 evaluation images" in capsys.readouterr().out


def test_every_number_is_overridable():
    run = parse(
        "--lambda 0.3 --recipe.prior-weight 1 --uem.width 4 --network.blocks 2 --seeds 4 5".split()
    )
    assert (run.recipe.distillation_weight, run.recipe.prior_weight) == (0.3, 1.0)
    assert (run.uem.width, run.network.blocks, run.seeds) == (4, 2, (4, 5))
    assert parse(["--dataset", "cifar10"]) == PRESETS["cifar10"]


def test_the_published_recipes():
    """Paper, Sec. 4: /10 after 5k, 12.5k and 25k of 40k; the script's in its epochs of 2,503."""
    assert [PAPER.iterations * part for part in PAPER.milestones] == [5_000, 12_500, 25_000]
    assert (PAPER.batch_size, PAPER.distillation_weight) == (256, 0.1)
    parts = [round(OFFICIAL_CODE.iterations * part) for part in OFFICIAL_CODE.milestones]
    assert parts == [2 * 2_503 + 1_250, 4 * 2_503 + 2_500, 9 * 2_503 + 2_500, 17 * 2_503 + 1_250]


def test_environment_is_not_needed(tmp_path):
    """No network, no home folder: everything is in the package."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": os.getcwd()}
    process = start(tmp_path / "run", "--dry-run", env=environment)
    code, out, err = finish(process)
    assert code == 0, err
    assert "training" in out
