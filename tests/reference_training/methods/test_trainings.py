"""Trainings by name: what a name changes, that equal ones are one, and what is refused."""

import pytest

from reference_training.config import SHORT, UEMS, UEMOptions
from reference_training.methods import METHODS
from reference_training.methods.trainings import OPTIONS, canonical, label, network_of, training
from reference_training.runtime.errors import RunError
from ulfd.uem import UEMSpec


@pytest.mark.parametrize("name", METHODS)
def test_a_method_alone_changes_nothing(name):
    one = training(name)
    assert one.name == name
    assert one.recipe(SHORT) == SHORT
    assert one.uem(UEMOptions()) == UEMOptions()
    assert one.second == METHODS[name].second


def test_a_name_changes_what_it_says_and_nothing_else():
    one = training("ulfd@lambda=0.3,teacher=frozen,uem.blocks=2,uem.global_skip=false")
    recipe, uem = one.recipe(SHORT), one.uem(UEMOptions())
    assert (recipe.distillation_weight, recipe.teacher) == (0.3, "frozen")
    assert (uem.blocks, uem.global_skip) == (2, False)
    differing = [key for key in vars(SHORT) if vars(recipe)[key] != vars(SHORT)[key]]
    assert differing == ["distillation_weight", "teacher"]


def test_a_uem_by_name_is_the_librarys():
    assert UEMS["default"].spec(64) == UEMSpec(64)
    assert UEMS["official"].spec(64) == UEMSpec.official(64)
    of_run = UEMOptions(blocks=2)
    assert training("ulfd@uem=default").uem(of_run).spec(64) == UEMSpec(64)
    changed = training("ulfd@uem.log_variance=spatial,uem=default").uem(of_run)
    assert changed.spec(64) == UEMSpec(64, log_variance="spatial")
    assert label("ulfd@lambda=0.3,uem=default").endswith("λ 0.3, default UEM")


def test_the_same_training_has_one_name():
    written = ("ulfd@beta=.50,lambda=0.3", "ulfd@lambda=0.30,beta=0.5")
    assert {canonical(name) for name in written} == {"ulfd@beta=0.5,lambda=0.3"}
    assert canonical(canonical(written[0])) == canonical(written[0])


def test_an_adaptation_is_of_the_network_not_of_its_training():
    trained, adaptation = network_of("vanilla+bn")
    assert (trained.name, adaptation.name) == ("vanilla", "bn")
    assert canonical("vanilla+bn") == "vanilla+bn"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ulfdd", "unknown method"),
        ("ulfd@lamda=1", "unknown or named twice"),
        ("ulfd@beta=1,beta=2", "unknown or named twice"),
        ("ulfd@beta=high", "is no float"),
        ("ulfd@uem.global_skip=perhaps", "is no bool"),
        ("ulfd@second=rain", "unknown second image"),
        ("ulfd@uem=mine", "unknown UEM"),
        ("ulfd+prayer", "unknown adaptation"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(name, message):
    with pytest.raises(RunError, match=message):
        network_of(name)


def test_labels_say_what_was_changed():
    assert label("ulfd@beta=0.5,lambda=0.3").endswith("β 0.5, λ 0.3")
    assert label("vanilla+bn") != label("vanilla")
    names = [*METHODS, *(f"ulfd@{option}=1" for option in OPTIONS)]
    assert len({label(name) for name in names}) == len(names)
