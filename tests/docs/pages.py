"""What the documentation's pages hold: code blocks, and commands."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted({*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"})
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r"^```([\w{}-]*)[^\n]*\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
SHELL = ("bash", "sh", "console", "")
COMMANDS = ("make", "pip", "python", "pytest", "torchrun")


class Code(NamedTuple):
    """One fenced block."""

    language: str
    text: str
    line: int


def blocks(name: str) -> list[Code]:
    """The fenced blocks of a page."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return [
        Code(found[1], found[2], text.count("\n", 0, found.start()) + 2)
        for found in FENCE.finditer(text)
    ]


def commands(name: str) -> list[list[str]]:
    """The shell commands of a page, as words: in fenced blocks, or indented as the README's."""
    text = (ROOT / name).read_text(encoding="utf-8")
    lines = [block.text for block in blocks(name) if block.language in SHELL]
    indented = re.findall(r"^    (.*\S)$", FENCE.sub("", text), flags=re.MULTILINE)
    joined = "\n".join([*lines, *indented]).replace("\\\n", " ")
    return [
        shlex.split(line, comments=True)
        for line in joined.splitlines()
        if line.split(" ")[0] in COMMANDS
    ]
