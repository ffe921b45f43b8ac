"""What σ buys at test time as a page: each use against its rivals, and the plan's rule applied."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reference_training.config import UEMOptions
from reference_training.methods.trainings import network_of
from reference_training.reporting.blocks import (
    Block,
    Code,
    Heading,
    Paragraph,
    Table,
    markdown_document,
)
from reference_training.reporting.statistics import RULE, Spread, cell, gain, paired

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Use:
    """A use of σ, and what it must beat; both are measures of the CSV."""

    title: str
    measure: str
    rivals: tuple[str, ...]
    lower_is_better: bool = False


ALONE = "pooling mean"
"""The image as it is, by the network as it is."""
USES = (
    Use("Pooling by exp(−σ)", "pooling exp(−σ)", (ALONE,)),
    Use("Pooling by exp(−σ/2)", "pooling exp(−σ/2)", (ALONE,)),
    *(
        Use(f"Rejecting by {title}: {what}", f"{key} {name}", rivals, key == "AURC")
        for name, title in (("θ", "θ"), ("both", "θ and max-softmax"))
        for key, what in (("AURC", "AURC, lower is better"), ("kept", "accuracy of the best 80 %"))
        for rivals in [(f"{key} max-softmax", f"{key} entropy")]
    ),
    *(
        Use(title, f"views {name}", ("views average", "views max-softmax", ALONE))
        for name, title in (("exp(−σ̄)", "Views weighted by exp(−σ̄)"), ("σ̄", "The view of least σ̄"))
    ),
    *(
        Use(f"Of two networks that of the smaller {name}", f"two {name}", rivals)
        for name in ("θ", "relative θ")
        for rivals in [("two average", "two max-softmax")]
    ),
)
ENOUGH = 2  # datasets
KINDS = {"uem=official": "official UEM", "global_skip=False": "no skip", "beta=0.5": "β = 0.5"}
"""{a part of a training's name: what tells it from others of the same shape of σ}."""
TRAINING = "python -m reference_training.run --seeds 0 1 2 3 4 --out runs/test_time/{name}{options}"
POINTWISE = "ulfd@lambda=0.03,uem=default"
SHAPES = f" --methods {POINTWISE} {POINTWISE},uem.log_variance={{spatial,element}}"
MEASURING = "python -m reference_training.experiments.test_time --run"
COMMANDS = (
    TRAINING.format(name="fashion-mnist-subset", options=f"{SHAPES} ulfd@uem=official"),
    TRAINING.format(name="digits", options=f" --dataset digits{SHAPES}"),
    "python -m reference_training.experiments.study --parts imagenette_validation imagenette "
    "--data imagenette=FOLDER",
    f"{MEASURING} runs/test_time/*",
    f"{MEASURING} runs/study/imagenette --images 100 --severities 1 3 5 --methods "
    "ulfd@lambda=1,uem=default ulfd@lambda=0.1,uem.blocks=2,uem=official",
)


def page(rows: Sequence[Row], facts: Mapping[str, Any]) -> str:
    """The page in Markdown, from the rows of the CSV and the facts beside it."""
    values: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for row in rows:
        own = values.setdefault((row["run"], row["method"]), {})
        for name, value in row.items():
            if isinstance(value, float):
                own.setdefault(name, {})[str(row["seed"])] = value
    blocks: list[Block] = []
    options = []
    for use in USES:
        heads = [f"{place} − {rival}" for place in ("unseen", "seen") for rival in use.rivals]
        ahead: dict[str, set[str]] = {}
        lines = []
        for (run, method), own in values.items():
            shape = network_of(method)[0].uem(UEMOptions()).log_variance
            if shape == "sample" and use.measure.startswith("pooling"):  # all weights are equal
                continue
            kind = ", ".join([shape, *(word for part, word in KINDS.items() if part in method)])
            if f"{use.measure} @ unseen" in own:
                lines.append((run, kind, cell(own[f"{use.measure} @ unseen"]), *_gains(use, own)))
                if all(_ahead(use, own, rival) for rival in use.rivals):
                    ahead.setdefault(shape, set()).add(run)
        found = "; ".join(f"σ {shape}, {', '.join(runs)}" for shape, runs in ahead.items())
        met = any(len(runs) >= ENOUGH for runs in ahead.values())
        options += [use.title] if met else []
        blocks += [
            Heading(use.title),
            Table(("data", "σ", "unseen", *heads), tuple(lines), use.measure, words=2),
            Paragraph(
                f"Ahead of every rival on unseen types by an effect: {found or 'nowhere'}. The "
                f"rule is {'met' if met else 'not met'}."
            ),
        ]
    measured = (
        f"{run} on {said['images']} images a set, severities {', '.join(map(str, levels))}"
        for run, said in facts.items()
        for levels in [said["severities"]]
    )
    head: list[Block] = [
        Heading("What σ buys at test time", level=1),
        Paragraph(
            "Definitions, rivals and the rule: PLAN_PHOTOGRAPHS.md, written before the runs. The "
            "numbers of each network: test_time.csv. In %, mean ± sample standard deviation over "
            f'seeds. {RULE} "{ALONE}" is the network as it is, on the image alone.'
        ),
        Paragraph(f"The rule is met by: {', '.join(options) or 'none'}.", callout=True),
    ]
    source: list[Block] = [
        Heading("Make it again"),
        Code("\n".join(COMMANDS)),
        Paragraph(f"Measured: {'; '.join(measured)}."),
    ]
    return markdown_document([*head, *blocks, *source])


def _gains(use: Use, own: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [
        gain(
            own[f"{use.measure} @ {place}"],
            own[f"{rival} @ {place}"],
            lower_is_better=use.lower_is_better,
        )
        for place in ("unseen", "seen")
        for rival in use.rivals
    ]


def _ahead(use: Use, own: Mapping[str, Mapping[str, float]], rival: str) -> bool:
    differences = paired(own[f"{use.measure} @ unseen"], own[f"{rival} @ unseen"])
    return Spread.of(differences.values()).effect == (-1 if use.lower_is_better else 1)
