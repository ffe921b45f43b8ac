"""The device's clock, with a device that counts instead of one that computes."""

import pytest
import torch

from benchmarks import device_clock


@pytest.fixture
def stream(monkeypatch):
    """A stream's time in ms; each event holds that at which it was recorded."""

    class Stream:
        now = 0.0

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = Stream.now

        def synchronize(self):
            assert self.at is not None

        def elapsed_time(self, later):
            return later.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: advance(30.0))

    def advance(milliseconds):
        Stream.now += milliseconds

    return advance


def test_seconds_of_one_call(stream):
    short, long = (lambda: stream(1.0)), (lambda: stream(3.0))
    assert device_clock.device_time([short, long]) == pytest.approx(2e-3)


def test_pytest_benchmark_takes_the_clock(stream, request):
    """Only the call itself is counted, not what keeps the device busy before it."""
    pytest.importorskip("pytest_benchmark", reason="needs it: pip install 'ulfd[bench]'")
    benchmark = request.getfixturevalue("benchmark")
    # Not by the marker, which is unknown without the plugin; and xdist would disable it.
    benchmark._timer, benchmark.disabled = device_clock.Moment, False
    benchmark.pedantic(lambda: stream(2.0), setup=device_clock.keep_busy, rounds=3)
    assert benchmark.stats.stats.data == [pytest.approx(2e-3)] * 3
