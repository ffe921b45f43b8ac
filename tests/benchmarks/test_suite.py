"""What the suite adds to the tables of pytest-benchmark."""

import pytest

from benchmarks import conftest


def grouped(rows: list[dict], group_by: str = "group") -> list[str]:
    hook = conftest.pytest_benchmark_group_stats(group_by)
    next(hook)
    with pytest.raises(StopIteration) as end:
        hook.send([("title", rows)])
    return [row["name"] for row in end.value.value[0][1]]


def row(name: str, seconds: float, path: str | None = None, of: str | None = "pairs") -> dict:
    extra = {} if of is None else {"stage_of": of}
    return {"name": name, "min": seconds, "path": path, "extra_info": extra}


def test_stages_say_their_rate_and_their_share():
    assert grouped([row("decode", 0.25), row("step", 0.75), row("peer", 9.0, of=None)]) == [
        "decode: 4.0 pairs/s, 25.0%",
        "step: 1.3 pairs/s, 75.0%",
        "peer",
    ]


def test_each_compared_run_is_a_whole_of_its_own():
    names = grouped([row("a", 1.0), row("b", 1.0), row("a", 1.0, "saved"), row("b", 3.0, "saved")])
    assert [name.rsplit(" ", 1)[1] for name in names] == ["50.0%", "50.0%", "25.0%", "75.0%"]


def test_names_stay_where_rows_of_one_name_are_a_group():
    assert grouped([row("decode", 0.25)], "group,name") == ["decode"]
