"""The counts of all sets → accuracies, corruption errors and labelled metrics.

Every metric carries its normaliser and that one's source, and a subset is named in every label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from reference_training.corruptions import CORRUPTIONS, SEEN, SEVERITIES, UNSEEN
from reference_training.data.samples import CLEAN, EvaluationSet
from reference_training.evaluation import corruption_error as ce
from reference_training.evaluation.corruption_error import Normaliser
from reference_training.evaluation.results import TOP, Counts, differences
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import read_json
from ulfd.env import versions

Json = Mapping[str, Any]
T = TypeVar("T")
HENDRYCKS = "Hendrycks & Dietterich 2019, Sec. 4"
PAPER = "the ULFD paper, Table 1"


def images_label(data: Json) -> str:
    """Which images, as "ImageNet-C, subset of 5000 of 50000 images"."""
    if data["subset"] is None:
        return f"{data['name']}, all {data['images']} images"
    return f"{data['name']}, SUBSET of {data['subset']} of {data['images']} images"


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
    """
    top1 = _accuracies({one: found.top1 / found.images for one, found in counts.items()})
    top5 = None
    if description["data"]["classes"] > TOP:
        top5 = _accuracies({one: found.top5 / found.images for one, found in counts.items()})
    clean = next(iter(top1["clean"].values()), None)
    label = images_label(description["data"])
    return {
        "label": label,
        **description,
        "top1": top1,
        "top5": top5,
        "corruption_errors": _corruption_errors(top1["corruptions"], clean, normaliser),
        "metrics": _metrics(top1, clean, normaliser, label),
        "versions": versions(),
    }


def _accuracies(share: Mapping[EvaluationSet, float]) -> dict[str, dict[str, Any]]:
    return {
        "clean": {name: value for (name, severity), value in share.items() if not severity},
        "corruptions": by_corruption(share),
    }


def by_corruption(values: Mapping[EvaluationSet, T]) -> dict[str, list[T]]:
    """For each corruption that was evaluated, its values at the severities 1 to 5."""
    return {
        name: [values[name, severity] for severity in SEVERITIES]
        for name in CORRUPTIONS
        if (name, SEVERITIES[0]) in values
    }


def _or_none(compute: Callable[[], T]) -> tuple[T | None, str | None]:
    """What it computes, or None and the reason why it cannot."""
    try:
        return compute(), None
    except ValueError as error:
        return None, str(error).removesuffix(".")


def _not_evaluated(types: Sequence[str], accuracies: ce.PerSeverity) -> str | None:
    """Why a metric over these types cannot be said, or None."""
    if all(name in accuracies for name in types):
        return None
    return f"some types were not evaluated; without --corruptions all {len(CORRUPTIONS)} are"


def _no_normaliser() -> ValueError:
    return ValueError("no errors to normalise by are known for these images; see --reference")


def _relative_errors(
    accuracies: ce.PerSeverity,
    clean: float | None,
    normaliser: Normaliser | None,
    corruptions: Sequence[str],
) -> dict[str, float]:
    if normaliser is None:
        raise _no_normaliser()
    if clean is None or normaliser.clean_error is None:
        raise ValueError("the clean images were not evaluated; see --clean")
    return ce.relative_corruption_errors(
        ce.errors_of(accuracies),
        1 - clean,
        normaliser.errors,
        normaliser.clean_error,
        corruptions=corruptions,
    )


def _errors(
    accuracies: ce.PerSeverity, normaliser: Normaliser | None, corruptions: Sequence[str]
) -> dict[str, float]:
    if normaliser is None:
        raise _no_normaliser()
    errors = ce.errors_of(accuracies)
    return ce.corruption_errors(errors, normaliser.errors, corruptions=corruptions)


def _corruption_errors(
    accuracies: ce.PerSeverity, clean: float | None, normaliser: Normaliser | None
) -> dict[str, dict[str, float | None]]:
    """For each corruption: mean error, CE and relative CE."""
    rows: dict[str, dict[str, float | None]] = {}
    for name, row in accuracies.items():
        own, _ = _or_none(partial(_errors, accuracies, normaliser, [name]))
        relative, _ = _or_none(partial(_relative_errors, accuracies, clean, normaliser, [name]))
        rows[name] = {
            "mean_error": 1 - fmean(row),
            "ce": None if own is None else own[name],
            "relative_ce": None if relative is None else relative[name],
        }
    return rows


def _metrics(
    top1: Json, clean: float | None, normaliser: Normaliser | None, label: str
) -> dict[str, dict[str, Any]]:
    """Every metric with its label, normaliser and source."""
    accuracies = top1["corruptions"]
    by = None if normaliser is None else {"name": normaliser.name, "source": normaliser.source}
    metrics: dict[str, dict[str, Any]] = {}

    def add(
        key: str,
        title: str,
        source: str,
        types: Sequence[str],
        compute: Callable[[], float],
        divided_by: Json | None = None,
    ) -> None:
        value, why_not = None, _not_evaluated(types, accuracies)
        if why_not is None:
            value, why_not = _or_none(compute)
        metrics[key] = {
            "title": title,
            "label": f"{title}; {label}",
            "value": value,
            "why_not": why_not,
            "normaliser": divided_by,
            "source": source,
        }

    for name, value in top1["clean"].items():
        kind = name.removeprefix(CLEAN).strip("_") or "as is"
        add(f"{name}_top1", f"Clean top-1 ({kind})", PAPER, (), partial(float, value))
    sets = f"× {len(SEVERITIES)} severities"
    add(
        "seen_top1",
        f"Seen: mean top-1, {len(SEEN)} types {sets}",
        PAPER,
        SEEN,
        partial(ce.seen_accuracy, accuracies),
    )
    add(
        "unseen_top1",
        f"Unseen: mean top-1, {len(UNSEEN)} types {sets}",
        PAPER,
        UNSEEN,
        partial(ce.unseen_accuracy, accuracies),
    )
    add(
        "mean_error",
        f"Mean error, {len(SEEN)} types {sets}",
        HENDRYCKS,
        SEEN,
        partial(ce.mean_corruption_error, accuracies),
    )
    add(
        "mce",
        f"mCE, {len(SEEN)} types",
        HENDRYCKS,
        SEEN,
        lambda: fmean(_errors(accuracies, normaliser, SEEN).values()),
        by,
    )
    add(
        "relative_mce",
        f"Relative mCE, {len(SEEN)} types",
        HENDRYCKS,
        SEEN,
        lambda: fmean(_relative_errors(accuracies, clean, normaliser, SEEN).values()),
        by,
    )
    return metrics


def normaliser_from(path: Path, data: Json) -> Normaliser:
    """Another network's result.json as the normaliser of an evaluation on the same images.

    Args:
        path: the reference's result.json.
        data: the "data" of this evaluation's description.

    Raises:
        RunError: it is no result, or one on other images.
    """
    if not path.is_file():
        raise RunError(f"the reference {path} does not exist; name a result.json with --reference.")
    result = read_json(path)
    try:
        changes = list(differences(result["data"], data))
        if changes:
            raise RunError(
                f"the reference {path} is of other images: {'; '.join(changes)}. Evaluate the "
                "reference with the same --data, --subset and options first."
            )
        top1 = result["top1"]
        clean = next(iter(top1["clean"].values()), None)
        return Normaliser(
            name=result["model"]["name"],
            errors=ce.errors_of(top1["corruptions"]),
            clean_error=None if clean is None else 1 - clean,
            source=f"{path}, on the same images; weights {result['model']['weights_sha256'][:12]}",
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is no result of an evaluation (no {error}).") from error
