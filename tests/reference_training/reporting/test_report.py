"""The command: one page of any runs."""

import re

from reference_training import report


def test_the_command_writes_one_page(first, second, other, tmp_path, capsys, undrawn):
    out = tmp_path / "new" / "page.html"
    assert report.main([str(first), str(second), str(other), "--out", str(out)]) == 0
    assert re.search(r"report of 3 runs, 0\.\d MB: .*page\.html", capsys.readouterr().out)
    text = out.read_text(encoding="utf-8")
    assert "<h1>Report of 3 runs</h1>" in text
    anchors = re.findall(r'href="#([\w-]+)">([^<]+)', text)
    assert [name for _, name in anchors] == ["All runs", "one", "two", "three"]
    assert re.findall(r'<h2 id="([\w-]+)">([^<]+)', text) == anchors
    assert report.main([str(other), "--out", str(out)]) == 0
    assert "<h1>Report: clothes</h1>" in out.read_text(encoding="utf-8")
