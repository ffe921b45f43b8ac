"""The report for bug reports fits one screen, whatever the machine has."""

import pytest

from ulfd import env

torch = pytest.importorskip("torch")


def test_eight_gpus_fit_one_screen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "A100" if index else "H100")
    lines = env.report().splitlines()
    assert f"device cuda: H100, CUDA {torch.version.cuda} (1)" in lines
    assert f"device cuda: A100, CUDA {torch.version.cuda} (7)" in lines
    assert not any("this machine shows none" in line for line in lines)
    assert len(lines) <= 24
