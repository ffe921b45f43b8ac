"""A trained network as others can use it: plain weights, the UEM beside them, a model card.

`hf upload user/name RUN/export --private` puts it on the Hugging Face hub; `hf` comes with
`pip install 'ulfd[hub]'`.
"""

from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save
from torch import Tensor, nn

from reference_training.config import ImageNetRun
from reference_training.data.views import MEAN, STD
from reference_training.networks.backbones import TorchvisionResNet
from reference_training.networks.weights import fill, read_tensors
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import JsonLines, write_atomically, write_json
from reference_training.training.record import plain

MODEL, UEM, CARD = "model.safetensors", "uem.safetensors", "README.md"
CONFIG = "config.json"
"""What is needed to build both networks again, and to give them the images they expect."""


class Titles(NamedTuple):
    """What was trained, in words."""

    method: str
    """The name of the method, as in `METHODS`."""
    training: str
    """The label of the method with its options."""
    row: str
    """What the paper's table calls the network."""


def _contiguous(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}


def write(
    folder: Path, step: Any, run: ImageNetRun, description: dict[str, Any], heading: Titles
) -> None:
    """Writes the weights, the card, and what the networks and their input are.

    Args:
        folder: where to.
        step: the trained step, with `model` and `uem`.
        run: what it was.
        description: the content of run.json.
        heading: the method and the row in words.
    """
    write_atomically(folder / MODEL, save(_contiguous(step.model)))
    if step.uem is not None:
        write_atomically(folder / UEM, save(_contiguous(step.uem)))
    classes = description["dataset"]["classes"]
    write_json(folder / CONFIG, configuration(run, heading.method, classes))
    text = card(run, description, heading, type(step.model).__name__)
    write_atomically(folder / CARD, text.encode())


def read(folder: Path, step: Any) -> None:
    """Fills the network and the UEM of a step that is built as the exported one was.

    Raises:
        RunError: a file is missing or damaged, or it is of another network.
    """
    fill(step.model, read_tensors(folder / MODEL))
    if step.uem is None:
        return
    if not (folder / UEM).is_file():
        raise RunError(
            f"the export {folder} has no UEM ({UEM}), with which its network was trained. Train "
            "again with the command in its README.md: what is finished is only exported anew."
        )
    fill(step.uem, read_tensors(folder / UEM))


def configuration(run: ImageNetRun, method: str, classes: int) -> dict[str, Any]:
    """The content of config.json: how the networks are built, and what their input is."""
    return {
        "arch": run.arch,
        "classes": classes,
        "method": method,
        "recipe": plain(run.recipe),
        "uem": plain(run.uem),
        "resize": run.resize,
        "crop": run.crop,
        "mean": MEAN,
        "std": STD,
    }


def _how_to_load(run: ImageNetRun, classes: int, network: str) -> list[str]:
    """Lines of the card: torchvision's own network, or one that is more than that."""
    if network != TorchvisionResNet.__name__:
        return [
            f"This is no plain {run.arch} but a `{network}` of `reference_training`, built as "
            f"`{CONFIG}` says; `--evaluate` evaluates it.",
        ]
    return [
        "```python",
        "import torchvision",
        "from safetensors.torch import load_file",
        "",
        f"model = torchvision.models.{run.arch}(num_classes={classes})",
        f'model.load_state_dict(load_file("{MODEL}"))',
        "```",
    ]


def card(run: ImageNetRun, description: dict[str, Any], heading: Titles, network: str) -> str:
    """The model card, in Markdown with the hub's header; `network` is the model's class."""
    recipe = run.recipe
    classes = description["dataset"]["classes"]
    rows = JsonLines(run.folder / "metrics.jsonl").read()
    lines = [
        "---",
        "library_name: torchvision",
        "pipeline_tag: image-classification",
        "tags: [ulfd, robustness, distillation]",
        "---",
        f"# {run.arch}, {heading.training}",
        "",
        f"Row “{heading.row}” ({run.experiment}) of *Self-Feature Distillation with Uncertainty "
        "Modeling for Degraded Image Recognition* (ECCV 2022), trained by ulfd.",
        "",
        *_how_to_load(run, classes, network),
        "",
        f"Input: {run.crop} x {run.crop} pixels, ImageNet's mean and standard deviation. "
        f"`{UEM}`, where present, holds the uncertainty module (`ulfd_torch.UEM`), which the "
        "network does not need.",
        "",
        "| training | |",
        "|---|---|",
        f"| photographs, classes | {description['dataset']['train']}, {classes} |",
        f"| starting weights (SHA-256) | {description['dataset']['weights_sha256']} |",
        f"| iterations, batch, seed | {recipe.iterations}, {recipe.batch_size}, {run.seed} |",
        f"| learning rate, weight decay | {recipe.learning_rate:g}, {recipe.weight_decay:g} |",
        f"| λ, prior weight | {recipe.distillation_weight:g}, {recipe.prior_weight:g} |",
        f"| precision | {run.numerics.precision} |",
        f"| frost overlays | {description['frost']} |",
    ]
    if rows:
        last = {name: value for name, value in rows[-1].items() if name != "learning_rate"}
        lines += [
            f"| {name.replace('_', ' ')}, last | {value:.6g} |" for name, value in last.items()
        ]
    commit = (description["git"] or {}).get("commit", "unknown")
    lines += [f"| command | `{description['command']}` |", f"| commit | {commit} |", ""]
    return "\n".join(lines)
