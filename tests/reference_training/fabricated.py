"""The files of a finished run, with numbers made up so that the right cells are plain."""

import json
from pathlib import Path

from reference_training.corruptions import CORRUPTIONS, SEEN, UNSEEN
from reference_training.training.checkpoint import KEPT, Checkpoint, Writer

TABLE_5 = ("vanilla", "cross_entropy", "feature_distillation", "ulfd")
RUN = {
    "command": "python -m reference_training.run --seeds 0 1",
    "config": {"frost": "procedural", "recipe": {"iterations": 10}},
    "versions": {"torch": "2.9"},
    "git": {"commit": "c0ffee", "dirty": True},
    "wall_seconds": 123.4,
    "frost": "procedural",
    "dataset": {"description": "<b>&", "licence": "MIT", "train": 80, "test": 20, "sha256": "5a"},
    "network": "ResNet-8",
    "parameters": {"network": 7, "uem": 9},
}


def write_checkpoint(folder: Path, point: Checkpoint, kept: int = KEPT) -> None:
    writer = Writer(folder, kept)
    writer.begin(point)
    writer.finish()


def result(seen, unseen=0.5, clean=0.9, uncertainty=False):
    rows = {name: [seen] * 5 for name in SEEN} | {name: [unseen] * 5 for name in UNSEEN}
    theta = {name: [0.2, 0.3, 0.4, 0.5, 0.6] for name in CORRUPTIONS} | {"fog": [0.3] * 5}
    sigma = {"mean": -2.0, "min": -9.5}
    auroc = {name: [0.8] * 5 for name in SEEN} | {name: [0.6] * 5 for name in UNSEEN}
    detected = {
        "auroc_max_softmax": {"clean": 0.5, "corruptions": {n: [0.7] * 5 for n in CORRUPTIONS}},
        "rank_correlation": [-0.5, 0.0, 0.25] if uncertainty else [],
    }
    if uncertainty:
        detected["calibration"] = {"auroc": {"clean": 0.5, "corruptions": auroc}}
    return detected | {
        "clean": clean,
        "corruptions": rows,
        "uncertainty": {"clean": 0.1, "corruptions": theta} if uncertainty else None,
        "log_variance": {"clean": sigma, "corruptions": {n: [sigma] * 5 for n in CORRUPTIONS}}
        if uncertainty
        else None,
    }


def metrics(**seen_by_method):
    """{method: Seen of each seed} → metrics.json."""
    seeds = range(max(map(len, seen_by_method.values())))
    return {
        "dataset": "toy",
        "evaluation_images": 100,
        "seeds": list(seeds),
        "methods": list(seen_by_method),
        "results": {
            name: {str(s): result(v, uncertainty=name == "ulfd") for s, v in enumerate(values)}
            for name, values in seen_by_method.items()
        },
    }


def full():
    return metrics(
        vanilla=(0.2, 0.4),
        cross_entropy=(0.6, 0.6),
        feature_distillation=(0.70, 0.70),
        ulfd=(0.715, 0.725),
    )


def write_run(folder: Path, content, **run) -> Path:
    """The folder of a finished run with these metrics."""
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(content))
    (folder / "run.json").write_text(json.dumps(RUN | run))
    return folder
