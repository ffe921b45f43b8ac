"""The full-scale path as its users run it: one process or many, killed, interrupted, damaged."""

import errno
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
import torch
from safetensors.torch import load_file

from reference_training.methods.feature_distillation import DistillationStep
from reference_training.run import main
from reference_training.runtime import files
from reference_training.training import checkpoint
from scripts.make_photograph_crops import write_folder
from tests.reference_training.experiments.material import ITERATIONS, rows

LAST = f"{ITERATIONS:08d}.safetensors"
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """What runs here has as many threads as what `start` starts: their number decides rounding."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """A run from beginning to end, in six shards: in one process."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main([*small, "--accumulate", "6", "--out", str(folder)]) == 0
    return folder


def start(arguments: list[str], folder: Path, processes: int = 1) -> subprocess.Popen:
    command = [sys.executable, "-m", "reference_training.run", *arguments, "--out", str(folder)]
    command += ["--processes", str(processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    out, err = process.communicate(timeout=180)
    return process.returncode, out + err


def wait_for(path: Path, process: subprocess.Popen) -> None:
    for _ in range(6000):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError(f"{path} never came")


def same(one: Path, other: Path) -> bool:
    """Whether two runs ended with the same bits: weights, optimiser and log."""
    return all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in (LAST, "metrics.jsonl")
    )


def close(one: Path, other: Path) -> None:
    """Whether two runs ended alike, but for rounding."""
    for a, b in zip(rows(one), rows(other), strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)
    a, b = load_file(one / LAST), load_file(other / LAST)
    assert a.keys() == b.keys()
    for name in a:
        if name.startswith("step."):
            # Adam moves a weight by at most its learning rate, whatever the gradient's rounding.
            torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-3)


def test_leaves_what_it_promises(whole):
    row = rows(whole)[-1]
    assert row["iteration"] == ITERATIONS
    low, mean, high = (row[f"log_variance_{name}"] for name in ("min", "mean", "max"))
    assert low < mean < high <= 0  # the official UEM's σ
    assert row["loss"] == pytest.approx(
        row["clean"] + row["degraded"] + row["distillation"], rel=1e-5
    )
    performance = rows(whole, "performance.jsonl")[-1]
    parts = [performance[f"seconds_{part}"] for part in
             ("data", "degradation", "forward", "backward", "optimizer")]  # fmt: skip
    assert min(parts) > 0
    assert sum(parts) <= performance["seconds_all"]
    assert performance["pairs_per_second"] > 0
    assert performance["peak_memory_bytes"] > 1e7
    run = json.loads((whole / "run.json").read_text())
    assert run["config"]["recipe"]["iterations"] == ITERATIONS
    assert run["dataset"]["train"] == 8 * 8
    unreadable = {row["file"]: row["error"] for row in rows(whole, "unreadable.jsonl")}
    assert set(unreadable) <= {f"astronaut/000{n}.jpeg" for n in range(3)}
    assert unreadable["astronaut/0001.jpeg"].startswith("no image of a known format")
    assert len(list(whole.glob("[0-9]*.json"))) == 3  # --kept


def test_checkpoints_come_by_time_and_change_nothing(whole, small, tmp_path, monkeypatch):
    begun = []
    begin = checkpoint.Writer.begin
    monkeypatch.setattr(
        checkpoint.Writer, "begin", lambda *given: (begun.append(given[1].iteration), begin(*given))
    )
    given = [*small, "--accumulate", "6", "--checkpoint-every", "1000"]
    folder = tmp_path / "by time"
    assert main([*given, "--checkpoint-minutes", "0", "--out", str(folder)]) == 0
    assert begun == [10, ITERATIONS]  # with every line of the log
    assert same(whole, folder)
    begun.clear()
    assert main([*given, "--out", str(tmp_path / "seldom")]) == 0
    assert begun == [ITERATIONS]


def test_two_processes_are_one(whole, small, tmp_path):
    """The number of shards makes the result, not who works on them."""
    folder = tmp_path / "two"
    code, text = finish(start([*small, "--accumulate", "3"], folder, processes=2))
    assert code == 0, text
    assert text.count("6 shards") == 0
    close(whole, folder)
    assert text.count("the trained network") == 1


def test_two_processes_train_evaluate_and_write_a_table_together(small, tmp_path):
    """Batch normalisation's averages differ by rank after the last step, unless they are shared."""
    root, folder = tmp_path / "data", tmp_path / "runs"
    for name in ("val", "train"):
        write_folder(root, each=4, broken=0)
        if name == "val":
            (root / "train").rename(root / "val")
    given = [*small[2:], "--experiment", "shallow", "--dataset", "imagenet"]
    given += ["--data-root", str(root), "--recipe.iterations", "2", "--evaluation-subset", "2"]
    code, text = finish(start(given, folder, processes=2))
    assert code == 0, text
    for row in ("table1-ulfd", "shallow-shallow"):
        run = folder / f"{row}-resnet8-seed-0"
        result = json.loads((run / "evaluation/none/result.json").read_text())
        assert result["data"]["subset"] == 2
        exported = load_file(run / "export/model.safetensors")
        saved = load_file(run / "00000002.safetensors")
        assert all(
            torch.equal(value, saved[f"step.model.{name}"]) for name, value in exported.items()
        )
    page = (folder / "shallow.md").read_text()
    assert "SUBSET of 2 of 32 images. Frost overlays in training: procedural." in page
    assert "JPEG 85, generated frost" in page
    assert "The paper's numbers are left out: these are not the published ImageNet-C" in page
    assert f"| {100 * result['metrics']['seen_top1']['value']:.1f} |" in page


def test_an_error_of_one_rank_alone_is_printed_with_its_rank(small, tmp_path):
    """The data of rank 1 are missing; torchrun's report alone would not say what happened."""
    script = tmp_path / "one_rank.py"
    script.write_text(
        "import os, sys\n"
        "from reference_training.run import main\n"
        "missing = ['--data-root', 'no/such/folder'] if os.environ['RANK'] == '1' else []\n"
        "sys.exit(main([*sys.argv[1:], *missing]))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        [*command, *small, "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode != 0
    assert re.search(r"error on rank 1: .*no/such/folder.* does not exist", done.stderr)


@linux
def test_killed_ranks_continue_bit_by_bit(small, tmp_path):
    """Three ranks, for with two the order of their gradients cannot matter."""
    reference, folder = tmp_path / "reference", tmp_path / "killed"
    code, text = finish(start(small, reference, processes=3))
    assert code == 0, text

    process = start(small, folder, processes=3)
    wait_for(folder / "00000004.json", process)
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(ranks[-1]), signal.SIGKILL)  # one of them
    code, text = finish(process)
    assert code == 128 + signal.SIGKILL
    assert "was ended by SIGKILL" in text
    assert "Traceback" not in text

    process = start(small, folder, processes=3)
    wait_for(folder / "00000008.json", process)
    os.killpg(process.pid, signal.SIGSTOP)  # so that none has the time to react
    for rank in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(rank), signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)  # all of them
    process.communicate()
    assert not (folder / LAST).exists()

    code, text = finish(start(small, folder, processes=3))
    assert code == 0, text
    assert "resuming the run" in text
    assert same(reference, folder)


@linux
def test_ranks_end_when_their_launcher_is_killed(small, tmp_path):
    """Or they would write beside the ranks of the next start."""
    folder = tmp_path / "orphaned"
    endless = [*small, "--recipe.iterations", "100000"]
    process = start(endless, folder, processes=2)
    wait_for(folder / "00000004.json", process)
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(600):
        if not any(Path(f"/proc/{rank}").exists() for rank in ranks):
            break
        time.sleep(0.1)
    else:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError("the ranks live on")
    assert main([*endless, "--accumulate", "2", "--out", str(folder), "--max-hours", "0"]) == 130


def test_a_signal_saves_and_another_number_of_ranks_goes_on(whole, small, tmp_path):
    folder = tmp_path / "terminated"
    process = start([*small, "--accumulate", "6", "--workers", "2"], folder)
    wait_for(folder / "00000004.json", process)
    os.killpg(process.pid, signal.SIGTERM)  # as queues do: the data workers get it too
    code, text = finish(process)
    assert code == 130
    assert "Traceback" not in text
    assert re.search(r"interrupted.*continue with: python -m reference_training.run", text)
    twin = tmp_path / "twin"
    shutil.copytree(folder, twin)
    assert main([*small, "--accumulate", "6", "--out", str(folder)]) == 0
    assert same(whole, folder)
    code, text = finish(start([*small, "--accumulate", "3"], twin, processes=2))
    assert code == 0, text
    close(whole, twin)


def test_another_number_of_shards_is_said(whole, small, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for path in (*folder.glob(f"{ITERATIONS:08d}.*"), folder / "export/model.safetensors"):
        path.unlink()
    assert main([*small, "--out", str(folder)]) == 0
    assert "in 6 shards, and goes on in 1" in capsys.readouterr().out
    assert not same(whole, folder)  # batch normalisation saw other groups


def test_a_time_limit_saves(small, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main([*small, "--out", str(folder), "--max-hours", "0"]) == 130
    assert "--max-hours" in capsys.readouterr().err
    assert [path.stem for path in folder.glob("[0-9]*.json")] == ["00000001"]


def test_a_full_disk_loses_nothing(whole, small, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    write = files.os.fsync
    checkpoints = []

    def full(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if ".safetensors" in path:
            checkpoints.append(path)
            if len(checkpoints) == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
        write(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        assert main([*small, "--accumulate", "6", "--out", str(folder)]) == 1
    message = capsys.readouterr().err
    assert re.search(r"cannot write .*00000012.safetensors: No space left.*Make room", message)
    assert sorted(path.stem for path in folder.glob("[0-9]*.json")) == ["00000004", "00000008"]
    assert not list(folder.glob("*.part"))
    assert main([*small, "--accumulate", "6", "--out", str(folder)]) == 0
    assert same(whole, folder)


def test_a_flipped_byte_gives_way_to_the_checkpoint_before(whole, small, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    content = bytearray((folder / LAST).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / LAST).write_bytes(content)
    assert main([*small, "--accumulate", "6", "--out", str(folder)]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"{LAST} is damaged .*; continuing from iteration 16", out)
    assert same(whole, folder)


def test_nan_names_the_step_and_its_images(whole, small, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    count = 0
    forward = DistillationStep.forward

    def poisoned(self, batch):
        nonlocal count
        result = forward(self, batch)
        count += 1  # 6 shards an iteration: this is in the seventh
        return result._replace(loss=result.loss * float("nan")) if count == 40 else result

    with monkeypatch.context() as patch:
        patch.setattr(DistillationStep, "forward", poisoned)
        assert main([*small, "--accumulate", "6", "--out", str(folder)]) == 1
    assert re.search(r"the loss \(nan\) is not finite at iteration 7", capsys.readouterr().err)
    told = json.loads((folder / "diverged.json").read_text())
    assert told["iteration"] == 7
    assert len(told["batch"]["samples"]) == len(told["batch"]["files"]) == 12
    assert [path.stem for path in folder.glob("[0-9]*.json")] == ["00000004"]
    assert main([*small, "--accumulate", "6", "--out", str(folder)]) == 0
    assert same(whole, folder)


def test_another_configuration_is_not_mixed_in(whole, small, capsys):
    before = (whole / LAST).read_bytes()
    assert main([*small, "--out", str(whole), "--lambda", "0.5"]) == 1
    assert "holds another run" in capsys.readouterr().err
    assert (whole / LAST).read_bytes() == before
