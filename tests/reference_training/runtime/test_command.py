"""What all commands do alike."""

import os
import subprocess
import sys

import pytest

from reference_training.runtime.command import exit_code
from reference_training.runtime.errors import RunError
from reference_training.runtime.stop import Interrupted


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_without_greek_letters_gets_the_table(encoding):
    """λ and σ become question marks; nothing that was computed ends in an UnicodeEncodeError."""
    done = subprocess.run(
        [sys.executable, "-m", "reference_training.run", "--list"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0, done.stderr
    assert b"ulfd@uem.log_variance=spatial" in done.stdout
    assert b"Table 6a: the weight ?" in done.stdout


COMMANDS = {
    "run": ["run", "--list"],
    "evaluate": ["evaluate", "--help"],
    "report": ["report", "--help"],
    "uncertainty": ["uncertainty", "--help"],
    "corruptions": ["corruptions", "--help"],
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_every_command_is_quiet_about_encodings_and_readers_that_leave(arguments):
    """As in `... --help | head -1`, where the terminal knows no Greek letters."""
    module, *others = arguments
    reader, writer = os.pipe()
    os.close(reader)  # it left before the first line
    with os.fdopen(writer) as out:
        done = subprocess.run(
            [sys.executable, "-m", f"reference_training.{module}", *others],
            stdout=out,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONIOENCODING": "ascii"},
        )
    assert done.stderr == b""


def test_the_reader_of_a_large_output_leaves():
    script = "import sys; from reference_training.runtime.command import exit_code; "
    script += "sys.exit(exit_code(lambda: [print('x' * 99) for _ in range(99_999)]))"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_another_broken_pipe_is_a_bug_and_keeps_its_traceback():
    with pytest.raises(BrokenPipeError):
        exit_code(fail(BrokenPipeError()))


def fail(error):
    def work():
        raise error

    return work


def test_exit_codes_and_messages(capsys):
    assert exit_code(lambda: None) == 0
    assert exit_code(fail(RunError("what, why, how"))) == 1
    assert capsys.readouterr().err == "error: what, why, how\n"
    assert exit_code(fail(Interrupted()), lambda: "python -m x --out y") == 130
    assert "interrupted, everything is saved; continue with: python -m x --out y" in (
        capsys.readouterr().err
    )
    assert exit_code(fail(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        exit_code(fail(ZeroDivisionError()))


def test_torchruns_report_ends_with_the_message_and_not_with_advice(tmp_path):
    """Its own traceback comes for every code but 0; its last lines are what a file of ours says."""
    script = tmp_path / "fails.py"
    script.write_text(
        "import sys\n"
        "from reference_training.runtime.command import exit_code\n"
        "from reference_training.runtime.errors import RunError\n"
        "def work():\n"
        "    raise RunError('there is no such folder; name another.')\n"
        "sys.exit(exit_code(work))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1", str(script)],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1
    assert "error: there is no such folder; name another.\n" in done.stderr
    end = done.stderr[done.stderr.index("Root Cause") :]
    assert "traceback : error: there is no such folder; name another.\n" in end
    assert "To enable traceback" not in done.stderr
    assert "fails.py" not in done.stderr.partition("=====")[0]  # no traceback of the rank
