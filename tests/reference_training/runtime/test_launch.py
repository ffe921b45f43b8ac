"""Several processes of one command: one message and the right code, whatever ends them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from reference_training.runtime import launch, ranks
from reference_training.runtime.command import READER_LEFT
from reference_training.runtime.errors import RunError

RANK = """
import json, os, sys, time
rank, what = os.environ["RANK"], sys.argv[1]
if what == "kill" and rank == "1":
    os.kill(os.getpid(), 9)
if what == "abort" and rank == "0":
    os.abort()
if what == "hang up":
    open(f"{sys.argv[2]}/{rank}", "w").close()
    time.sleep(3)
if what in ("lost", "alike"):  # as `command.exit_code` leaves a message
    own = "error: lost another process of this run (gloo)." if what == "lost" else "error: no data"
    content = {"message": "error: no data" if rank == "1" else own}
    content["extraInfo"] = {"timestamp": str(int(time.time()))}
    with open(os.environ["TORCHELASTIC_ERROR_FILE"], "w") as file:
        json.dump({"message": content}, file)
    sys.exit(1)
if what == "print" and rank == "0":
    sys.exit(141)
# In one write, for the launcher lets nobody buffer.
sys.stdout.write(f"rank {rank} of {os.environ['WORLD_SIZE']} does {what}\\n")
sys.exit(3 if what == "fail" and rank == "1" else 0)
"""


@pytest.fixture
def module(tmp_path, monkeypatch) -> str:
    """A command whose second rank can fail or be killed; it needs no torch to start."""
    (tmp_path / "ranks_end.py").write_text(RANK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "ranks_end"


def test_all_ranks_do_the_work(module, capfd):
    assert launch.start(module, ["well"], 2) == 0
    out, err = capfd.readouterr()
    assert sorted(out.splitlines()) == ["rank 0 of 2 does well", "rank 1 of 2 does well"]
    assert err == ""


def test_a_rank_that_fails_without_a_word_gives_its_code_and_is_named(module, capfd):
    assert launch.start(module, ["fail"], 2) == 3
    assert capfd.readouterr().err == "error: rank 1 ended with exit code 3.\n"


def test_a_reader_that_leaves_ends_it_without_a_word(module, capfd):
    assert launch.start(module, ["print"], 2) == READER_LEFT
    assert capfd.readouterr().err == ""


def test_what_one_rank_alone_says_is_told_and_what_rank_0_says_too_is_not(module, capfd):
    assert launch.start(module, ["lost"], 2) == 1
    assert capfd.readouterr().err == "error on rank 1: no data\n"
    assert launch.start(module, ["alike"], 2) == 1
    assert capfd.readouterr().err == ""  # rank 0 has printed it


def test_a_rank_leaves_its_words_to_the_launcher(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    for launcher, printed in (("", "error on rank 1: no data\n"), ("1", "")):
        if launcher:
            monkeypatch.setenv(ranks.OURS, launcher)
        with pytest.raises(RunError), ranks.telling():
            raise RunError("no data")
        assert capsys.readouterr().err == printed


def test_a_rank_that_is_killed_is_named_in_one_line(module, capfd):
    assert launch.start(module, ["kill"], 2) == 128 + signal.SIGKILL
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: rank 1 was ended by SIGKILL; ")
    assert line.endswith("Give the same command again: it continues.")


def test_a_rank_that_aborts_is_named(module, capfd):
    assert launch.start(module, ["abort"], 2) == 128 + signal.SIGABRT
    assert "error: rank 0 was ended by SIGABRT. Give the same" in capfd.readouterr().err


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system hangs up on nobody")
def test_under_nohup_it_outlives_its_terminal(module, tmp_path):
    program = "import signal, sys\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    program += "from reference_training.runtime.launch import start\n"
    program += f"sys.exit(start({module!r}, ['hang up', {str(tmp_path)!r}], 2))"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not all((tmp_path / rank).exists() for rank in "01"):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGHUP)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert sorted(out.split("\n")[:2]) == [f"rank {rank} of 2 does hang up" for rank in "01"]


def test_one_process_and_those_started_do_the_work_themselves(monkeypatch):
    assert launch.start("never", [], 1) is None
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launch.start("never", [], 1) is None  # started by torchrun
    with pytest.raises(RunError, match="--processes is 2, but torchrun started 2 in all"):
        launch.start("never", [], 2)  # on which machines?
    monkeypatch.setenv(ranks.OURS, "1")
    assert launch.start("never", [], 2) is None  # by this very option


def test_no_process_at_all_is_refused():
    with pytest.raises(RunError, match="--processes is 0, but must be at least 1"):
        launch.start("never", [], 0)


def test_an_error_of_every_rank_is_one_message_and_no_traceback(tmp_path):
    """The launcher of torch prints thirty lines of its own."""
    command = ["reference_training.evaluate", "resnet18", "--data", "fashion-mnist-subset"]
    done = subprocess.run(
        [sys.executable, "-m", *command, "--processes", "2"],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TORCH_HOME": str(tmp_path)},
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: torchvision's weights ResNet18_Weights.IMAGENET1K_V1 are not on")
