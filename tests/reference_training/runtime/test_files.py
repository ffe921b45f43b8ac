"""Files that were cut off, edited or never were what they should be."""

import json

import pytest

from reference_training.runtime.errors import RunError
from reference_training.runtime.files import JsonLines, read_json, reason

ROWS = [{"set": number, "results": {"a/0": {"top1": number / 7}}} for number in range(5)]


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b"\xff\xfe", b""])
def test_what_is_no_json_is_named(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"x.json is damaged \(.+\). Delete it"):
        read_json(path)


def test_a_reason_is_one_plain_line():
    """As torch's, of which the first line is in bold."""
    assert (
        reason(ValueError("It \x1b[1mwas \x1b[1;31mred\x1b[0m here. \n(1) no")) == "It was red here"
    )
    assert reason(KeyError()) == "KeyError"


@pytest.fixture
def sealed(tmp_path):
    lines = JsonLines(tmp_path / "x.jsonl", sealed=True)
    for row in ROWS:
        lines.append(row)
    return lines


def test_sealed_lines_come_back_as_they_were(sealed, capsys):
    assert sealed.read() == ROWS
    assert sealed.resume() == ROWS
    sealed.keep(3)
    assert sealed.read() == ROWS[:3]
    assert capsys.readouterr().err == ""


def test_a_changed_line_is_left_out_and_said(sealed, capsys):
    whole = sealed.path.read_bytes()
    third = whole.split(b"\n")[2]
    edited = json.loads(third)
    edited["results"]["a/0"]["top1"] = 0.9
    unsealed = json.dumps(ROWS[2]).encode()  # as an older version wrote it
    flips = [bytes([*third[:at], third[at] ^ 4, *third[at + 1 :]]) for at in range(len(third))]
    for changed in (json.dumps(edited).encode(), unsealed, b"[" * 100_000, b"3", *flips):
        sealed.path.write_bytes(whole.replace(third, changed))
        kept = sealed.resume()
        assert kept == ROWS[:2] + ROWS[3:]
        assert "do not fit their checksums; computing these again" in capsys.readouterr().err
        assert sealed.read() == kept


def test_a_line_added_by_hand_is_left_out(sealed):
    with sealed.path.open("ab") as file:
        file.write(json.dumps(ROWS[0] | {"results": {"a/0": {"top1": 1.0}}}).encode() + b"\n")
    assert sealed.read() == ROWS
