"""Evaluation of any classifier on clean images and on every (corruption, severity).

    from reference_training.evaluation import OnTheFly, evaluate_corruptions
    from reference_training.networks.preprocessing import Preprocessing
    data = OnTheFly(ClassFolders(Path("imagenet/val"), classes=1000))
    result = evaluate_corruptions(model, data, out=Path("runs/mine"), preprocessing=...)

`loop` is the one loop over a set, for `runner`, the evaluator, and `trained`, the evaluation inside
a run. `results` keeps each finished set, `summary` makes the metrics; `sets` says which sets there
are, `on_the_fly` degrades clean images.
"""

from reference_training.corruptions import CorruptionOptions
from reference_training.evaluation.on_the_fly import OnTheFly
from reference_training.evaluation.runner import evaluate_corruptions
from reference_training.networks.preprocessing import Preprocessing

__all__ = ["CorruptionOptions", "OnTheFly", "Preprocessing", "evaluate_corruptions"]
