"""Every command that the documentation and the README give exists, with the options it is given.

Nothing is computed: the program itself parses its options, and is stopped then.
"""

import argparse
import inspect
import re
import runpy
import shlex
import sys
import tomllib
from functools import wraps

import pytest
import tyro
from torch.distributed.run import get_args_parser

from reference_training.experiments.small_tables import BUDGETS
from reference_training.paper.experiments import EXPERIMENTS, ROWS
from tests.docs.pages import NAMES, ROOT, commands

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAIN = {
    "run": "reference_training.run",
    "bench-published": "benchmarks.cpu",
    "bench-gpu": "benchmarks.gpu",
    "gpu": "benchmarks.gpu_page",
}
"""What a target of the Makefile hands ARGS to."""
PYTEST = ("test", "test-gpu", "bench", "bench-compare")
"""The targets that hand it to pytest."""
NAMED = {"--experiment": {"all", *EXPERIMENTS, *ROWS}, "--budget": BUDGETS}
"""Options whose values are looked up only after all are parsed."""
BARE = ("ulfd.env", "benchmarks.tables")
"""Modules without options."""
OTHERS = {"imagecorruptions-imaug"}
"""Packages of others that may be installed."""
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
ALL = [(name, shlex.join(command)) for name in NAMES for command in commands(name)]


class Parsed(Exception):
    """The options were understood."""


def check_module(module: str, options: list[str], monkeypatch) -> None:
    """`python -m module options` up to the parsed options."""
    if module in BARE:
        assert not options
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
        return
    understood, parse = tyro.cli, argparse.ArgumentParser.parse_args

    def stop(function):
        def stopped(target, *args, **kwargs):
            if inspect.isfunction(target):  # the command itself: parsed for, and not carried out
                target = wraps(target)(lambda *values, **options: None)
            function(target, *args, **kwargs)
            raise Parsed

        return stopped

    monkeypatch.setattr(tyro, "cli", stop(understood))
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop(parse))
    monkeypatch.setattr(sys, "argv", [module, *options])
    wanted = SystemExit if "--help" in options else Parsed
    with pytest.raises(wanted) as stopped:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert wanted is Parsed or stopped.value.code == 0
    for option, known in NAMED.items():
        if option in options:
            assert options[options.index(option) + 1] in known


def check(command: list[str], monkeypatch) -> None:
    """Raises, or fails, where the command is not one of this project."""
    program, *rest = command
    match program:
        case "make":
            target, *variables = rest
            assert target in TARGETS
            given = dict(one.split("=", 1) for one in variables)
            arguments = given.pop("ARGS", "")
            if target in MAIN and arguments:
                check_module(MAIN[target], shlex.split(arguments), monkeypatch)
            assert not arguments or target in {*MAIN, *PYTEST}
            assert not given
        case "pip":
            assert rest[0] == "install"
            for wanted in rest[1:]:
                name, extras = re.fullmatch(r"([\w-]+|\.)(?:\[([\w,-]+)\])?", wanted).groups()
                assert name in {".", PROJECT["name"], *OTHERS}
                for extra in filter(None, (extras or "").split(",")):
                    assert PROJECT["optional-dependencies"][extra]
        case "pytest":
            assert all((ROOT / path).exists() for path in rest)
        case "torchrun":
            given = get_args_parser().parse_args(rest)
            assert given.module
            check_module(given.training_script, given.training_script_args, monkeypatch)
        case "python":
            assert rest[0] == "-m"
            check_module(rest[1], rest[2:], monkeypatch)


@pytest.mark.parametrize(("name", "command"), ALL)
def test_a_command_is_understood(name, command, monkeypatch, capsys):
    check(shlex.split(command), monkeypatch)


@pytest.mark.parametrize(
    "command",
    [
        "make nothing",
        "pip install 'ulfd[nothing]'",
        "python -m reference_training.run --nothing",
        "python -m reference_training.evaluate",
        "torchrun --nproc-per-node 2 -m reference_training.run --experiment table1/nothing",
        "python -m ulfd.env --verbose",
        "pytest tests/nothing",
    ],
)
def test_a_wrong_command_is_found(command, monkeypatch, capsys):
    with pytest.raises((AssertionError, KeyError, SystemExit, pytest.fail.Exception)):
        check(shlex.split(command), monkeypatch)


def test_commands_are_found():
    found = {shlex.split(command)[0] for _, command in ALL}
    assert found == {"make", "pip", "python", "pytest", "torchrun"}
    for page, start, end in (
        ("README.md", "make run", "run"),  # indented
        ("docs/reproducing.md", "torchrun --nnodes 2", "--data-root imagenet"),  # over two lines
    ):
        of_page = [command for name, command in ALL if name == page]
        assert any(one.startswith(start) and one.endswith(end) for one in of_page)
