"""The paper's tables and figures: one entry for each, one `Row` for each of its networks.

`methods.md`'s checklist is this file: what is evaluated, how it was trained, and where in
paper_results.json the paper's own numbers stand.
"""

from collections.abc import Mapping
from dataclasses import dataclass

RESNET50, RESNEXT101 = "resnet50", "resnext101_32x8d"


@dataclass(frozen=True)
class Row:
    """A network of a table."""

    key: str
    """Its name in the table here, as "ulfd" in "table1/ulfd", and in paper_results.json."""
    label: str
    """What the paper calls it."""
    training: str
    """How it is trained: a name as `trainings.training` reads it."""
    arch: str = RESNET50
    """The paper's backbone; a small dataset has a first and a second network instead."""
    adaptation: str | None = None
    """What adapts it to the test images: a key of `adaptation.ADAPTATIONS`."""


@dataclass(frozen=True)
class Experiment:
    """A table or a figure."""

    title: str
    rows: tuple[Row, ...]
    columns: tuple[str, ...] = ()
    """What its table shows: keys of `reporting.measures.MEASURES`."""
    paper: str | None = None
    """Its key in paper_results.json."""
    figure: str | None = None
    """What draws it: a key of `paper_figures.FIGURES`."""


VANILLA = Row("vanilla", "Vanilla", "vanilla")
QUALNET = Row("qualnet", "QualNet50", "qualnet")
WITHOUT_UEM = Row("feature_distillation", "Ours w/o UEM", "feature_distillation")
OURS = Row("ulfd", "Ours", "ulfd")
NEXT = (
    Row("next_vanilla", "Vanilla", "vanilla", RESNEXT101),
    Row("next_qualnet", "QualNeXt101", "qualnet", RESNEXT101),
    Row("next_feature_distillation", "Ours w/o UEM", "feature_distillation", RESNEXT101),
    Row("next_ulfd", "Ours", "ulfd", RESNEXT101),
)
DEEPAUGMENT = "cross_entropy_degraded@second=deepaugment_or_clean"
BOTH = "augmix@second=deepaugment_augmix"  # DeepAugment + AugMix

ALL = "all"
"""Stands for all of them."""
EXPERIMENTS: Mapping[str, Experiment] = {
    "table1": Experiment(
        "Table 1: clean, seen and unseen corruptions",
        (
            VANILLA,
            Row("ddp", "DDP", "ddp"),
            Row("urie", "URIE", "urie"),
            Row("kd_vid", "KD-VID", "kd_vid"),
            QUALNET,
            WITHOUT_UEM,
            OURS,
            *NEXT,
        ),
        ("clean", "seen", "unseen", "mce"),
        "table_1",
    ),
    "table2": Experiment(
        "Table 2: the unseen corruptions one by one",
        (VANILLA, QUALNET, WITHOUT_UEM, OURS, *NEXT),
        ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
        "table_2",
    ),
    "table3": Experiment(
        "Table 3: on augmentations instead of corruptions",
        (
            Row("deepaugment", "DeepAugment", DEEPAUGMENT),
            Row("deepaugment_ulfd", "DeepAugment + Ours", "ulfd@second=deepaugment"),
            Row("augmix", "AugMix", "augmix"),
            Row("augmix_ulfd", "AugMix + Ours", "ulfd@second=augmix"),
            Row("deepaugment_augmix", "DeepAugment + AugMix", BOTH),
            Row(
                "deepaugment_augmix_ulfd",
                "DeepAugment + AugMix + Ours",
                "ulfd@second=deepaugment_augmix",
            ),
        ),
        ("clean", "mce"),
        "table_3",
    ),
    "table4": Experiment(
        "Table 4: against test-time adaptation",
        (
            VANILLA,
            Row("deepaugment_augmix", "DeepAugment+AugMix", BOTH),
            Row("bn", "DeepAugment+AugMix+BNAdapt", BOTH, adaptation="bn"),
            Row("rpl", "DeepAugment+AugMix+RPL", BOTH, adaptation="rpl5"),
            Row(
                "deepaugment_augmix_ulfd",
                "DeepAugment+AugMix+Ours",
                "ulfd@second=deepaugment_augmix",
            ),
        ),
        ("seen", "seen_subset"),
        "table_4",
    ),
    "table5": Experiment(
        "Table 5: what each of the two modules brings",
        (
            Row("cross_entropy", "no module", "cross_entropy"),
            Row("feature_distillation", "+ SFD", "feature_distillation"),
            Row("ulfd", "+ SFD + UM", "ulfd"),
            Row(
                "cross_entropy_degraded",
                "no module, as the text has it: degraded images only",
                "cross_entropy_degraded",
            ),
        ),
        ("clean", "mce"),
        "table_5",
    ),
    "table6a": Experiment(
        "Table 6a: the weight λ",
        (
            Row("0", "λ = 0", "cross_entropy"),
            Row("0.01", "λ = 0.01", "ulfd@lambda=0.01"),
            Row("0.1", "λ = 0.1", "ulfd"),
            Row("1", "λ = 1", "ulfd@lambda=1"),
        ),
        ("seen",),
        "table_6a",
    ),
    "table6b": Experiment(
        "Table 6b: the shape of the uncertainty",
        (
            Row("sample", "sample-wise", "ulfd@uem.log_variance=sample"),
            Row("spatial", "spatial, read as (B, 1, H, W)", "ulfd@uem.log_variance=spatial"),
            Row("element", "spatial, as the official code has it: (B, C, H, W)", "ulfd"),
        ),
        ("mce",),
        "table_6b",
    ),
    "shallow": Experiment(
        "Sec. 4.5: distilling the shallow feature",
        (OURS, Row("shallow", "shallow feature", "ulfd@layer=shallow")),
        ("seen", "mce"),
        "text",
    ),
    "figure1": Experiment("Figure 1: t-SNE of the logits", (VANILLA, QUALNET, OURS), figure="tsne"),
    "figure2": Experiment(
        "Figure 2: feature differences",
        (Row("ddp", "DDP", "ddp"), Row("shallow", "Ours", "ulfd@layer=shallow")),
        figure="differences",
    ),
    "figure4": Experiment(
        "Figure 4: predicted uncertainty by severity", (OURS,), figure="uncertainty"
    ),
}
"""A new table or figure is one entry; a new method is one file in `methods`."""

STAGES = (Row("i_revnet", "QualNet's first stage", "i_revnet"),)
VARIANTS = (
    Row("ulfd_reconstruct", "Ours, the official training script's UEM", "ulfd_reconstruct"),
    Row("self_detached", "Ours, no gradient through the teacher", "ulfd@teacher=self_detached"),
    Row("frozen", "Ours, frozen teacher", "ulfd@teacher=frozen"),
)
"""In no table: what a row needs, and readings of the paper that differ from the default."""

ROWS: Mapping[str, Row] = {
    **{f"{name}/{row.key}": row for name, one in EXPERIMENTS.items() for row in one.rows},
    **{f"stages/{row.key}": row for row in STAGES},
    **{f"variants/{row.key}": row for row in VARIANTS},
}
"""Every network by name, as "table1/ulfd"."""
