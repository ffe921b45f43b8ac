"""One writer for each run folder."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from reference_training.run import main
from reference_training.runtime import lock
from reference_training.runtime.errors import RunError
from reference_training.runtime.lock import sole_writer

HOLDER = """
import sys, time
from pathlib import Path
from reference_training.runtime.lock import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_other_writer_is_named_and_its_death_frees_the_folder(tmp_path, capsys):
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLDER, str(folder)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=rf"process {holder.pid} on .*, since 20"):
            sole_writer(folder).__enter__()
        assert main(["--dataset", "digits", "--out", str(folder)]) == 1
        assert f"process {holder.pid}" in capsys.readouterr().err
        assert not (folder / "run.json").exists()
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with sole_writer(folder):
        pass


def test_the_workers_of_a_killed_writer_are_waited_for(tmp_path):
    """They share its lock, and outlive it by a moment."""
    fork = "import os\n    if os.fork(): os._exit(1)\n    time.sleep(1.5)"
    command = [sys.executable, "-c", HOLDER.replace("time.sleep(60)", fork), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        holder.wait()
        with sole_writer(tmp_path):
            pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write .*file/run/.lock: .*--out"):
        sole_writer(tmp_path / "file/run").__enter__()


def test_a_file_system_without_locks_is_said_and_written_to(tmp_path, monkeypatch, capsys):
    def flock(*arguments):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with sole_writer(tmp_path):
        pass
    assert "cannot be locked (Function not implemented)" in capsys.readouterr().err
