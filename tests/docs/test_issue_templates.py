"""The issue forms name what there is, and ask for the report where a machine matters."""

import re
from importlib.util import find_spec

import pytest

from tests.docs.pages import ROOT

FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_what_a_form_names_is_there(form):
    text = form.read_text(encoding="utf-8")
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert find_spec(module), module
    for target in re.findall(r"`make ([\w-]+)`", text):
        assert target in TARGETS
    for path in re.findall(r"`(docs/[\w./]+)`", text):
        assert (ROOT / path).is_file(), path


def test_a_report_about_a_machine_says_which():
    asking = {form.stem for form in FORMS if "python -m ulfd.env" in form.read_text("utf-8")}
    assert asking == {"bug", "numbers_or_speed"}
