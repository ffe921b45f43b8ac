"""The counts of all sets → accuracies, corruption errors and labelled metrics.

Every metric carries its normaliser and that one's source, and a subset is named in every label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, TypeVar

from reference_training.corruptions import CORRUPTIONS, SEEN, SEVERITIES, UNSEEN
from reference_training.data.samples import CLEAN, EvaluationSet
from reference_training.evaluation import corruption_error as ce
from reference_training.evaluation.corruption_error import Normaliser
from reference_training.evaluation.results import TOP, Counts, differences
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import read_json, reading
from reference_training.runtime.image_files import some
from ulfd.env import versions

Json = Mapping[str, Any]
T = TypeVar("T")
HENDRYCKS = "Hendrycks & Dietterich 2019, Sec. 4"
PAPER = "the ULFD paper, Table 1"
PARTIAL = f"some types were not evaluated; without --corruptions all {len(CORRUPTIONS)} are"


class _Accuracies(NamedTuple):
    """A network's top-1 accuracies, and whose errors normalise them."""

    corruptions: ce.PerSeverity
    clean: float | None
    normaliser: Normaliser | None

    def mean_error(self, types: Sequence[str], *, relative: bool) -> float:
        """The mean of CE or relative CE over these types; ValueError says why there is none."""
        by = self.normaliser
        if by is None:
            raise ValueError(
                "no errors to normalise by are known for these images; see --reference"
            )
        clean = 0.0, 0.0
        if relative:
            if self.clean is None or by.clean_error is None:
                raise ValueError("the clean images were not evaluated; see --clean")
            clean = 1 - self.clean, by.clean_error
        errors = ce.errors_of(self.corruptions), by.errors
        return fmean(ce.corruption_errors(*errors, *clean, corruptions=types).values())


def summarise(
    description: Json, counts: Mapping[EvaluationSet, Counts], normaliser: Normaliser | None
) -> dict[str, Any]:
    """The result of an evaluation as JSON; fractions throughout.

    Args:
        description: of the network and the data, as in evaluation.json.
        counts: of every set.
        normaliser: whose errors divide; None leaves the normalised errors out.

    Returns:
        The result; "top5" is None where there are not more than five classes.

    Raises:
        RunError: the normaliser's errors are of other images.
    """
    data = description["data"]
    top1 = _by_set({place: found.top1 / found.images for place, found in counts.items()})
    top5 = _by_set({place: found.top5 / found.images for place, found in counts.items()})
    content = _by_set({place: found.content for place, found in counts.items()})
    if normaliser is not None:
        _check_content(normaliser, content)
    label = label_of(data)
    clean = next(iter(top1["clean"].values()), None)
    found = _Accuracies(top1["corruptions"], clean, normaliser)
    return {
        "label": label,
        **description,
        "top1": top1,
        "top5": top5 if data["classes"] > TOP else None,
        "corruption_errors": {
            name: {
                "mean_error": 1 - fmean(row),
                "ce": _said(partial(found.mean_error, [name], relative=False))[0],
                "relative_ce": _said(partial(found.mean_error, [name], relative=True))[0],
            }
            for name, row in found.corruptions.items()
        },
        "metrics": _metrics(found, top1["clean"], label),
        "content": content,
        "versions": versions(),
    }


def label_of(data: Json) -> str:
    """Which images, in words: of the data's name and number, and of what `sets.choose` said."""
    part = "all" if data["subset"] is None else f"SUBSET of {data['subset']} of"
    label = f"{data['name']}, {part} {data['images']} images"
    label += f", random draw {data['draw']}" if "draw" in data else ""
    return label + (f", those in {data['image_list']}" if "image_list" in data else "")


def _by_set(values: Mapping[EvaluationSet, T]) -> dict[str, dict[str, Any]]:
    return {
        "clean": {name: value for (name, severity), value in values.items() if not severity},
        "corruptions": by_corruption(values),
    }


def by_corruption(values: Mapping[EvaluationSet, T]) -> dict[str, list[T]]:
    """For each corruption that was evaluated, its values at the severities 1 to 5."""
    return {
        name: [values[name, severity] for severity in SEVERITIES]
        for name in CORRUPTIONS
        if (name, SEVERITIES[0]) in values
    }


def _check_content(normaliser: Normaliser, content: Json) -> None:
    """Raises RunError for sets whose images the normaliser's network did not see."""
    for kind, sets in normaliser.content.items():
        for name in sets.keys() & content[kind].keys():
            if sets[name] != content[kind][name]:
                raise RunError(
                    f"the reference {normaliser.source}: its images of {name} had the same names, "
                    "but another content. Evaluate the reference on these images first."
                )


def _said(compute: Callable[[], float]) -> tuple[float | None, str | None]:
    """What it computes, or None and the reason why it cannot."""
    try:
        return compute(), None
    except ValueError as error:
        return None, str(error).removesuffix(".")


def _metrics(found: _Accuracies, clean: Mapping[str, float], label: str) -> dict[str, Any]:
    """Every metric with its label, normaliser and source; a new one is one more entry."""
    top1, by = found.corruptions, found.normaliser
    seen, unseen, levels = len(SEEN), len(UNSEEN), f"types × {len(SEVERITIES)} severities"
    kinds = {name: name.removeprefix(CLEAN).strip("_") or "as is" for name in clean}
    mce, relative = (partial(found.mean_error, SEEN, relative=kind) for kind in (False, True))
    # {key: (title, source, the types that must have been evaluated, what computes it)}
    metrics: dict[str, tuple[str, str, Sequence[str], Callable[[], float]]] = {
        f"{name}_top1": (f"Clean top-1 ({kinds[name]})", PAPER, (), partial(float, value))
        for name, value in clean.items()
    }
    titles = f"Seen: mean top-1, {seen} {levels}", f"Unseen: mean top-1, {unseen} {levels}"
    metrics["seen_top1"] = titles[0], PAPER, SEEN, partial(ce.seen_accuracy, top1)
    metrics["unseen_top1"] = titles[1], PAPER, UNSEEN, partial(ce.unseen_accuracy, top1)
    error = partial(ce.mean_corruption_error, top1)
    metrics["mean_error"] = f"Mean error, {seen} {levels}", HENDRYCKS, SEEN, error
    metrics["mce"] = f"mCE, {seen} types", HENDRYCKS, SEEN, mce
    metrics["relative_mce"] = f"Relative mCE, {seen} types", HENDRYCKS, SEEN, relative
    entries = {}
    for key, (title, source, types, compute) in metrics.items():
        whole = all(name in top1 for name in types)
        value, why_not = _said(compute) if whole else (None, PARTIAL)
        divided = by is not None and compute in (mce, relative)
        entries[key] = {
            "title": title,
            "label": f"{title}; {label}",
            "value": value,
            "why_not": why_not,
            "normaliser": {"name": by.name, "source": by.source} if by and divided else None,
            "source": source,
        }
    return entries


def normaliser_from(path: Path, data: Json) -> Normaliser:
    """Another network's result.json as the normaliser of an evaluation on the same images.

    Args:
        path: the reference's result.json, or the folder with it.
        data: the "data" of this evaluation's description.

    Raises:
        RunError: it is no result, or one on other images.
    """
    given, path = path, path / "result.json" if path.is_dir() else path
    if not path.is_file():
        why = "does not exist" if given == path else "is a folder without a result.json"
        raise RunError(f"the reference {given} {why}; give that of a finished evaluation.")
    with reading(path, "is no result of an evaluation", "Name the result.json of one"):
        result = read_json(path)
        top1, model = result["top1"], result["model"]
        clean = next(iter(top1["clean"].values()), None)
        changes = [*differences(result["data"], data)]
        found = Normaliser(
            name=model["name"],
            errors=ce.errors_of(top1["corruptions"]),
            clean_error=None if clean is None else 1 - clean,
            source=f"{path}, on the same images; weights {model['weights_sha256'][:12]}",
            content=result["content"],
        )
    if changes:
        raise RunError(
            f"the reference {path} is of other images: {some(changes, 3, '; ')}. Evaluate that "
            "network with the --data, --clean, --subset and other options of this command (images "
            "of a -C folder and ones corrupted on the fly do not compare); give that result.json."
        )
    return found
