"""Evaluation of any classifier on clean images and on every (corruption, severity).

    from reference_training.evaluation import OnTheFly, evaluate_corruptions
    from reference_training.networks.preprocessing import Preprocessing
    data = OnTheFly(ClassFolders(Path("imagenet/val"), classes=1000))
    result = evaluate_corruptions(model, data, out=Path("runs/mine"), preprocessing=...)

`runner` computes, `results` keeps each finished set, `summary` makes the metrics and `tables` their
tables; `sets` and `loading` choose and read the images (with the readers of `data`), `on_the_fly`
degrades clean ones; `models` loads a network by name, from `libraries` or `checkpoints`. `trained`
is the evaluation inside a run.
"""

from reference_training.evaluation.on_the_fly import CorruptionOptions, OnTheFly
from reference_training.evaluation.runner import evaluate_corruptions
from reference_training.networks.preprocessing import Preprocessing

__all__ = ["CorruptionOptions", "OnTheFly", "Preprocessing", "evaluate_corruptions"]
