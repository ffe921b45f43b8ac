"""The command: what it prints, writes and refuses."""

import json

import pytest

from reference_training.uncertainty import __main__ as command


def test_ranks(run, photographs, tmp_path, capsys):
    out = tmp_path / "made/scores.json"
    assert command.main([str(run("ulfd")[0]), str(photographs), "--out", str(out)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert "12 images" in first
    *read, broken = json.loads(out.read_text())
    assert "error" in broken
    for line, row in zip(lines, read, strict=True):
        assert line.endswith(repr(row["file"]))
        assert float(line.split()[0]) == pytest.approx(row["theta"], rel=1e-3)


def test_measures_on_the_runs_own_images_and_on_a_folder(
    run, photographs, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(command, "IMAGES", 10)
    model = str(run("ulfd")[0])
    options = ["--measure", "--corruptions", "fog", "pixelate"]
    out = tmp_path / "measured.json"
    assert command.main([model, *options, "--out", str(out)]) == 0
    assert [row["corruption"] for row in json.loads(out.read_text())] == ["fog", "pixelate"]
    own = capsys.readouterr().out
    assert "10 images" in own
    assert "mean, seen" in own
    assert command.main([model, str(photographs), *options]) == 0
    told = capsys.readouterr()
    assert "7 images" in told.out  # every second of 13
    assert command.main([model, str(photographs / "deep/er"), *options]) == 0
    assert "1 images" in capsys.readouterr().out


BAD = {
    "corruption": (["--measure", "--corruptions", "fogg"], "did you mean 'fog'"),
    "device": (["--device", "nonsense"], "--device nonsense is not available"),
    "out": (["digits", "--out", "/dev/null/a.json"], "cannot write /dev/null/a.json"),
    "no folder": ([], "give the FOLDER"),
    "no such folder": (["nowhere"], "there is no image below nowhere"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_mistakes_are_named(arguments, message, run, photographs, capsys, monkeypatch):
    monkeypatch.chdir(photographs.parent)
    arguments = [photographs.name if word == "digits" else word for word in arguments]
    assert command.main([str(run("ulfd")[0]), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_an_export_has_no_images_of_its_own(exported, capsys):
    assert command.main([str(exported[0]), "--measure"]) == 1
    assert "give a FOLDER of clean images" in capsys.readouterr().err


def test_an_interrupted_call_says_how_to_go_on(run, photographs, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "rank", interrupted)
    assert command.main([str(run("ulfd")[0]), str(photographs)]) == 130
    assert capsys.readouterr().err.endswith("interrupted\n")
