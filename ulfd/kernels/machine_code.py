"""Reads SASS (NVIDIA) and GCN assembly (AMD): which global memory accesses the interior makes.

The interior is the body of the loop that reads and writes in the fewest instructions per byte, or,
in a kernel without such a loop, the way through it that does. Jumps which single lanes take over
work that does not concern them (inside BSSY ... BSYNC, or by s_cbranch_execz) are ignored, and
those to work of single lanes (s_cbranch_execnz) taken: in the interior all lanes have work, or the
ones without are masked anyway.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

Access = tuple[str, int]  # "load" or "store", bytes of one thread

_SASS_LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;")
_SASS_ACCESS = re.compile(r"\b(LDG|LDGSTS|STG)\.E((?:\.\w+)*)")
_SASS_WIDTH = re.compile(r"\.(128|64|[US]?16|[US]?8)\b")
_GCN_ACCESS = re.compile(r"^(?:global|buffer|flat)_(load|store)_(\w+)")
_GCN_WIDTHS = {"dwordx4": 16, "dwordx3": 12, "dwordx2": 8, "dword": 4}


@dataclass(frozen=True)
class Instruction:
    """What matters of one instruction. `target` is the index it may jump to."""

    access: Access | None = None
    target: int | None = None
    falls_through: bool = True


def _sass(text: str) -> list[Instruction]:
    lines = [found.groups() for found in map(_SASS_LINE.match, text.splitlines()) if found]
    places = {int(address, 16): index for index, (address, _) in enumerate(lines)}
    code, divergent = [], 0
    for _, line in lines:
        access = _SASS_ACCESS.search(line)
        if access:
            width = _SASS_WIDTH.search(access[2])
            size = int(re.sub(r"\D", "", width[1])) // 8 if width else 4
            code.append(Instruction(("store" if access[1] == "STG" else "load", size)))
        elif jump := re.search(r"\bBRA(?:\.\w+)*\s+(.*?)(0x[0-9a-f]+)", line):
            always = not line.startswith("@") and not jump[1].strip()
            ignored = divergent and not always
            target = None if ignored else places.get(int(jump[2], 16))
            code.append(Instruction(target=target, falls_through=not always))
        else:
            divergent += bool(re.search(r"\bBSSY", line)) - bool(re.search(r"\bBSYNC", line))
            ends = "EXIT" in line and not line.startswith("@")
            code.append(Instruction(falls_through=not ends))
    return code


def _gcn(text: str) -> list[Instruction]:
    lines = [line.split(";")[0].strip() for line in text.splitlines()]
    labels: dict[str, int] = {}
    body: list[str] = []
    for line in lines:
        if label := re.fullmatch(r"(\.LBB\w+):", line):
            labels[label[1]] = len(body)
        elif re.match(r"[a-z]", line):
            body.append(line)
    code = []
    for line in body:
        if access := _GCN_ACCESS.match(line):
            code.append(Instruction((access[1], _GCN_WIDTHS.get(access[2], 2))))
        elif jump := re.match(r"s_c?branch(\w*)\s+(\.LBB\w+)", line):
            target = None if jump[1] == "_execz" else labels[jump[2]]
            always = line.startswith("s_branch") or jump[1] == "_execnz"
            code.append(Instruction(target=target, falls_through=not always))
        else:
            code.append(Instruction(falls_through=line != "s_endpgm"))
    return code


def _following(code: list[Instruction], index: int) -> list[int]:
    now = code[index]
    targets = [] if now.target is None else [now.target]
    return targets + ([index + 1] if now.falls_through and index + 1 < len(code) else [])


def _loops(code: list[Instruction]) -> Iterator[list[Access]]:
    """The accesses in the body of every loop: a jump back from which the jump is reached again."""
    for index, now in enumerate(code):
        if now.target is None or now.target > index:
            continue
        reached, front = set(), [now.target]
        while front:
            place = front.pop()
            if place not in reached:
                reached.add(place)
                front += _following(code, place)
        if index in reached:
            body = code[now.target : index + 1]
            yield [other.access for other in body if other.access]


def _ways(code: list[Instruction]) -> Iterator[list[Access]]:
    """The accesses on every way through code without loops."""
    pending: list[tuple[int, list[Access]]] = [(0, [])]
    while pending:
        index, seen = pending.pop()
        access = code[index].access
        seen = [*seen, access] if access else seen
        following = _following(code, index)
        pending += [(place, seen) for place in following]
        if not following:
            yield seen


def _moved(accesses: list[Access]) -> int:
    return sum(width for _, width in accesses)


def interior(text: str) -> Counter[Access]:
    """How often a thread makes each access for one tile; see the module's docstring.

    Args:
        text: the output of `cuobjdump -sass`, or GCN assembly, of one kernel.
    """
    code = _sass(text) if "/*0000*/" in text else _gcn(text)
    found = [loop for loop in _loops(code) if {kind for kind, _ in loop} == {"load", "store"}]
    if not found:
        ways = [way for way in _ways(code) if {kind for kind, _ in way} == {"load", "store"}]
        # The tail moves as much as the interior, but in more and narrower pieces.
        cheapest: list[Access] = min(ways, key=lambda way: (_moved(way), len(way)))
        return Counter(cheapest)
    widest = min(found, key=lambda loop: (len(loop) / _moved(loop), len(loop)))
    # The compiler may have unrolled the interior's loop; the tail's goes tile by tile.
    unrolled = _moved(widest) // min(map(_moved, found))
    return Counter({access: count // unrolled for access, count in Counter(widest).items()})
