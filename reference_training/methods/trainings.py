"""A training by name: a method, and what is changed in the recipe: "ulfd@lambda=0.3,beta=0.5"."""

import dataclasses
from dataclasses import dataclass, field, replace
from typing import Any

from reference_training.config import UEMS, Recipe, UEMOptions
from reference_training.data.second_images import SECOND_IMAGES
from reference_training.evaluation.adaptation import ADAPTATIONS, NONE, Adaptation
from reference_training.methods import METHODS, Method
from reference_training.networks.resnet import Classifier
from reference_training.paper.experiments import Row
from reference_training.runtime.errors import RunError

ALIASES = {"lambda": "distillation_weight"}
UEM_PREFIX = "uem."
KINDS = (int, float, str, bool)
LABELS = {
    "vanilla": "Vanilla (clean only)",
    "cross_entropy": "CE on clean + degraded",
    "cross_entropy_degraded": "CE on degraded only",
    "feature_distillation": "+ feature distillation (MSE)",
    "ulfd": "+ uncertainty (ULFD)",
    "ulfd_reconstruct": "ULFD, reconstruct head (UEM variant B)",
    "kd_vid": "KD-VID",
    "ddp": "DDP-style",
    "urie": "URIE",
    "i_revnet": "i-RevNet (QualNet's first stage)",
    "qualnet": "QualNet-style",
    "augmix": "AugMix",
}
SECONDS = {
    "augmix": "on AugMix",
    "deepaugment": "on DeepAugment's stand-in",
    "deepaugment_or_clean": "on clean images and DeepAugment's stand-in",
    "deepaugment_augmix": "on DeepAugment's stand-in + AugMix",
}

SIGNS = {"lambda": "λ", "beta": "β", "gamma": "γ", "prior_weight": "k"}


def _options() -> dict[str, Any]:
    """{option: its default} of everything that a name may change."""
    recipe = {entry.name: entry.default for entry in dataclasses.fields(Recipe)}
    del recipe["view"]  # of photographs alone
    uem = {f"{UEM_PREFIX}{entry.name}": entry.default for entry in dataclasses.fields(UEMOptions)}
    options = recipe | uem | {"second": "corruption", "uem": "official"}
    return {name: default for name, default in options.items() if isinstance(default, KINDS)} | {
        "uem.width": 0,
        "gamma": 0.0,
    }


OPTIONS = _options()


@dataclass(frozen=True)
class Training:
    """A method, with changes of the recipe and of the UEM that are part of its name."""

    method: Method
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The same for the same training, however it was written."""
        names = {full: short for short, full in ALIASES.items()}
        parts = sorted(f"{names.get(key, key)}={value}" for key, value in self.changes.items())
        return "@".join([self.method.name, ",".join(parts)] if parts else [self.method.name])

    @property
    def second(self) -> str:
        """What the second image of each pair is; a key of `SECOND_IMAGES`."""
        return self.changes.get("second", self.method.second)

    def recipe(self, recipe: Recipe) -> Recipe:
        """The recipe with this training's changes."""
        known = {entry.name for entry in dataclasses.fields(Recipe)}
        return replace(recipe, **{k: v for k, v in self.changes.items() if k in known})

    def uem(self, options: UEMOptions) -> UEMOptions:
        """The UEM's options, or those of the UEM that it names, with this training's changes."""
        changes = {
            key.removeprefix(UEM_PREFIX): value
            for key, value in self.changes.items()
            if key.startswith(UEM_PREFIX)
        }
        return replace(UEMS[self.changes["uem"]] if "uem" in self.changes else options, **changes)

    @property
    def before(self) -> list["Training"]:
        """The trainings whose networks this one begins with or needs."""
        names = (self.method.start, self.method.needs)
        return [training(name) for name in names if name is not None]

    def make_step(self, model: Classifier, recipe: Recipe, options: UEMOptions) -> Any:
        """The step of the method, on a network with the weights of `method.start`."""
        return self.method.make_step(model, self.recipe(recipe), self.uem(options))


def training(text: str) -> Training:
    """The training that a name stands for.

    >>> training("ulfd@beta=0.5,lambda=0.30").name
    'ulfd@beta=0.5,lambda=0.3'

    Raises:
        RunError: an unknown method or option, or a value of another kind.
    """
    name, _, changes = text.partition("@")
    if name not in METHODS:
        raise RunError(f"unknown method {name!r} in {text!r}; use some of {sorted(METHODS)}.")
    parsed: dict[str, Any] = {}
    for change in filter(None, changes.split(",")):
        key, _, value = change.partition("=")
        key = ALIASES.get(key, key)
        if key not in OPTIONS or key in parsed:
            known = sorted({*OPTIONS, *ALIASES} - set(ALIASES.values()))
            raise RunError(
                f"{text!r} changes {key!r}, which is unknown or named twice; after the @ stand "
                f"option=value, separated by commas, with the options {', '.join(known)}."
            )
        parsed[key] = _value(text, key, value)
    for key, named, what in (("second", SECOND_IMAGES, "second image"), ("uem", UEMS, "UEM")):
        if key in parsed and parsed[key] not in named:
            raise RunError(f"unknown {what} in {text!r}; use one of {', '.join(sorted(named))}.")
    return Training(METHODS[name], parsed)


def network_of(method: str) -> tuple[Training, Adaptation]:
    """A network by name, as "augmix+bn": its training, and what adapts it when it predicts.

    Raises:
        RunError: an unknown training or adaptation.
    """
    name, plus, adaptation = method.partition("+")
    if plus and adaptation not in ADAPTATIONS:
        raise RunError(
            f"unknown adaptation {adaptation!r} in {method!r}; use one of {sorted(ADAPTATIONS)}."
        )
    return training(name), ADAPTATIONS[adaptation] if plus else NONE


def method_of(row: Row) -> str:
    """What metrics.json calls the network of a row of the paper's tables."""
    return canonical(row.training if row.adaptation is None else f"{row.training}+{row.adaptation}")


def canonical(method: str) -> str:
    """The one name of a network, however it was written."""
    found, adaptation = network_of(method)
    return found.name if adaptation is NONE else f"{found.name}+{adaptation.name}"


def _value(text: str, key: str, value: str) -> Any:
    kind = type(OPTIONS[key])
    try:
        return {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
    except (ValueError, KeyError) as error:
        raise RunError(f"{key}={value} in {text!r} is no {kind.__name__}.") from error


def label(name: str) -> str:
    """What a network is called in tables and figures."""
    name, _, adaptation = name.partition("+")
    method, _, changes = name.partition("@")
    words = [LABELS.get(method, method.replace("_", " "))]
    for change in filter(None, changes.split(",")):
        key, _, value = change.partition("=")
        sign = SIGNS.get(key, key.replace("_", " "))
        named = {"second": SECONDS.get(value, value), "uem": f"{value} UEM"}
        words.append(named.get(key, f"{sign} {value}"))
    if adaptation:
        known = adaptation in ADAPTATIONS
        words[-1] += f" + {ADAPTATIONS[adaptation].label if known else adaptation}"
    return ", ".join(words)
