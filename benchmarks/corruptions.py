"""Corruptions on one CPU core: `python -m benchmarks.corruptions`.

Per image of 224x224, this project's `corrupt` on a batch of 32 and on one image at a time, against
`corruption_peers`, which take one image at a time; `--wheel` adds the wheel `imagecorruptions`
1.1.2, in which what newer libraries no longer accept is mended (`MENDED`). What is not installed is
left out. The environment, in the project's folder:

    python -m venv runs/peers
    runs/peers/bin/pip install -e '.[test]' corrupt-tta torch-uncertainty kornia albumentations
    runs/peers/bin/python -m benchmarks.corruptions --out benchmarks/results/corruptions_cpu.json
    runs/peers/bin/python -m benchmarks.tables

One thread each. The candidates take turns in one process at every (type, severity), and the whole
is repeated; what counts is the processor's time, which waiting for others does not lengthen, and
its median over the rounds. Before anything is timed, ours is compared with the package's.

A peer's type is exact if at severities 1, 3 and 5 it lies within one grey level of the generator's
result, or, where numbers are drawn, within the spread of its draws: over 64 of them the means of
the image's brightness, of its change and its contrast to the right and downwards are the same to
5 standard errors, one level and 2 %. The generator is `imagecorruptions-imaug`, or, for the four
types that ImageNet-C's own makes otherwise, this project.
"""

import argparse
import functools
import importlib.util
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images
from tqdm import tqdm

from benchmarks.corruption_peers import ON_TENSORS, Peer, installed, levels, unit_tensor
from benchmarks.operations import Cost
from benchmarks.problems import CORRUPTED_BATCH, PEER_IMAGES, SIDE
from reference_training.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from ulfd.env import versions

IMAUG, WHEEL = "imagecorruptions-imaug 1.1.5", "imagecorruptions 1.1.2, mended"
DEFAULT, ALONE, SAME = "ulfd", "ulfd, one at a time", "ulfd, the package's semantics"
DRAWS, STANDARD_ERRORS = 64, 5
PIXELWISE = {
    "defocus_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
    "gaussian_blur",
    "saturate",
}
TWO_DEFINITIONS = {"elastic_transform", "motion_blur", "snow", "frost"}
"""Types of which the two public definitions make something else."""
MENDED = {
    "from scipy.ndimage.interpolation import": "from scipy.ndimage import",
    "from pkg_resources import resource_filename": (
        "resource_filename = lambda _, name: os.path.join(os.path.dirname(__file__), name)"
    ),
    "np.float_": "np.float64",
    "multichannel=True": "channel_axis=-1",
}
Candidate = Callable[..., np.ndarray]


def photographs(count: int, width: int, height: int) -> np.ndarray:
    """Photographs that come with scikit-image and scikit-learn: uint8 (count, height, width, 3)."""
    full = [data.astronaut(), data.chelsea(), data.coffee(), *load_sample_images().images]
    made = []
    for number in range(count):
        picture = Image.fromarray(full[number % len(full)])
        scale = min(picture.width / width, picture.height / height)
        across, down = round(width * scale), round(height * scale)
        left = (picture.width - across) * (number // len(full)) // (count // len(full) + 1)
        box = (left, 0, left + across, down)
        made.append(np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box)))
    return np.stack(made)


def single_thread() -> None:
    """Has torch and OpenCV compute in this thread alone."""
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def from_wheel(wheel: Path, folder: Path) -> ModuleType:
    """The package out of a wheel, mended, under another name."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    source = folder / "imagecorruptions" / "corruptions.py"
    text = source.read_text(encoding="utf-8")
    for broken, mended in MENDED.items():
        if broken not in text:
            raise SystemExit(f"{wheel}: has no {broken!r}; is it imagecorruptions 1.1.2?")
        text = text.replace(broken, mended)
    source.write_text(text, encoding="utf-8")
    place = folder / "imagecorruptions" / "__init__.py"
    spec = importlib.util.spec_from_file_location("imagecorruptions_wheel", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def ours(images: np.ndarray, semantics: str, together: int) -> Candidate:
    """`corrupt` on that many images at a time."""
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def run(name: str, severity: int, every: bool = True) -> np.ndarray:
        options: dict[str, Any] = {"semantics": semantics, "frost": "photographs"}
        chosen = batch if every else batch[:PEER_IMAGES]
        seeds = torch.arange(len(chosen))
        parts = zip(chosen.split(together), seeds.split(together), strict=True)
        made = [corrupt(part, name, severity, seeds=some, **options) for part, some in parts]
        return torch.cat(made).permute(0, 2, 3, 1).numpy()

    return run


def theirs(peer: Peer, images: np.ndarray, on_tensors: bool) -> Candidate:
    """A peer on one image after another."""
    given = [unit_tensor(image) if on_tensors else image for image in images]

    def run(name: str, severity: int, every: bool = False) -> Any:
        corrupted = peer(name, severity)
        assert corrupted is not None
        return [corrupted(image) for image in (given if every else given[:PEER_IMAGES])]

    return run


def candidates(images: np.ndarray, wheel: Path | None, folder: Path) -> dict[str, Candidate]:
    """What the suite compares: each corrupts images by a type at a severity, to uint8."""
    import imagecorruptions

    packages = {IMAUG: imagecorruptions}
    if wheel is not None:
        packages[WHEEL] = from_wheel(wheel, folder)
    run = {
        DEFAULT: ours(images, "imagenet_c", len(images)),
        SAME: ours(images, "imagecorruptions", len(images)),
    }
    for who, package in packages.items():
        made = theirs(_peer(package), images, on_tensors=False)
        run[who] = lambda *args, made=made, **options: np.stack(made(*args, **options))
    return run


def _peer(package: ModuleType) -> Peer:
    return lambda name, severity: lambda image: package.corrupt(image, severity, name)


def check(
    run: dict[str, Candidate], peer: str, name: str, severity: int, images: np.ndarray
) -> None:
    """Raises AssertionError unless a peer makes what we make by its semantics.

    Pixel by pixel where nothing is random; else by the distance from the clean images, to 2 % and 5
    standard errors of its mean difference over all of them.
    """
    np.random.seed(0)  # the package draws from numpy's global generator
    ours = run[SAME](name, severity).astype(int)
    theirs = run[peer](name, severity, every=name not in PIXELWISE).astype(int)
    if name in PIXELWISE:
        right = np.abs(ours[: len(theirs)] - theirs).max() <= 1
    else:
        mine, peers = (np.abs(each - images).mean(axis=(1, 2, 3)) for each in (ours, theirs))
        error = (mine - peers).std(ddof=1) / len(images) ** 0.5
        right = abs((mine - peers).mean()) <= STANDARD_ERRORS * error + 0.02 * mine.mean()
    if not right:
        raise AssertionError(f"{name} {severity}: not what {peer} makes")


def signature(draws: list[np.ndarray], clean: np.ndarray) -> np.ndarray:
    """(4, draws): brightness, change, and contrast to the right and downwards, in grey levels."""
    made = np.stack(draws).astype(float)
    measures = (
        made,
        np.abs(made - clean),
        np.abs(np.diff(made, axis=2)),
        np.abs(np.diff(made, axis=1)),
    )
    return np.stack([each.mean(axis=(1, 2, 3)) for each in measures])


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two signatures' means agree as the module says."""
    means = np.stack([one.mean(axis=1), other.mean(axis=1)])
    error = np.sqrt((one.var(axis=1) + other.var(axis=1)) / one.shape[1])
    allowed = STANDARD_ERRORS * error + [1, *(0.02 * means[:, 1:].max(axis=0) + 0.1)]
    return bool((np.abs(means[0] - means[1]) <= allowed).all())


def exact(peer: Peer, on_tensors: bool, name: str, images: np.ndarray) -> bool | None:
    """Whether a peer makes a type as the generator does; None where it has none."""
    clean = images[0]
    batch = torch.from_numpy(clean).permute(2, 0, 1).expand(DRAWS, -1, -1, -1)
    for severity in SEVERITIES[::2]:
        run = peer(name, severity)
        if run is None:
            return None
        given = unit_tensor(clean) if on_tensors else clean
        made = [levels(run(given)) for _ in range(1 if name in PIXELWISE else DRAWS)]
        if name in PIXELWISE:
            if np.abs(made[0].astype(int) - generated(name, severity, images)[0]).max() > 1:
                return False
            continue
        drawn = signature(made, clean)
        known = [signature(generated(name, severity, images), clean)]
        if name in TWO_DEFINITIONS:
            options: dict[str, Any] = {"seeds": torch.arange(DRAWS), "frost": "photographs"}
            result = corrupt(batch, name, severity, **options).permute(0, 2, 3, 1)
            known.append(signature(list(result.numpy()), clean))
        if not any(alike(drawn, each) for each in known):
            return False
    return True


def generated(name: str, severity: int, images: np.ndarray) -> list[np.ndarray]:
    """The package's results for the first image: one, or all draws."""
    from imagecorruptions import corrupt as generate

    count = 1 if name in PIXELWISE else DRAWS
    return [generate(images[0], severity, name).astype(int) for _ in range(count)]


def cost(name: str, images: np.ndarray) -> dict[str, Any]:
    """Operations and MiB of tensors that one image takes, the most over the severities."""
    image, found = torch.from_numpy(images[:1]).permute(0, 3, 1, 2).contiguous(), []
    for severity in SEVERITIES:
        corrupt(image, name, severity, seeds=0, frost="photographs")  # what is kept is made
        with Cost() as counted:
            corrupt(image, name, severity, seeds=0, frost="photographs")
        found.append((counted.operations, counted.peak))
    operations, peak = (max(each) for each in zip(*found, strict=True))
    return {"operations": operations, "MiB": round(peak / 2**20, 2)}


def measure(run: dict[str, Candidate], has: dict[str, set[str]], rounds: int) -> dict[str, Any]:
    """The median processor time in milliseconds per image: {type: {who: one for each severity}}."""
    times: dict[tuple[str, str, int], list[float]] = {}
    for _ in tqdm(range(rounds), unit="round"):
        for name in CORRUPTIONS:
            for severity in SEVERITIES:
                for who in (who for who in run if name in has[who]):
                    start = time.process_time()
                    made = run[who](name, severity)
                    spent = 1e3 * (time.process_time() - start) / len(made)
                    times.setdefault((name, who, severity), []).append(spent)
    found: dict[str, Any] = {}
    for (name, who, _), values in times.items():
        each = found.setdefault(name, {}).setdefault(who, [])
        each.append(round(statistics.median(values), 3))
    return found


def main() -> None:
    """Checks, measures, prints the totals and writes the raw numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheel", type=Path, help="imagecorruptions-1.1.2-py3-none-any.whl")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="where the raw JSON goes")
    arguments = parser.parse_args()

    single_thread()
    warnings.filterwarnings("ignore")
    images = photographs(CORRUPTED_BATCH, SIDE, SIDE)
    load = os.getloadavg()[0]
    run = {
        DEFAULT: ours(images, "imagenet_c", CORRUPTED_BATCH),
        ALONE: functools.partial(ours(images, "imagenet_c", 1), every=False),
    }
    with tempfile.TemporaryDirectory() as folder:
        checked = candidates(images, None, Path(folder))
        for name in CORRUPTIONS:
            for severity in SEVERITIES if name in PIXELWISE else SEVERITIES[2:3]:
                check(checked, IMAUG, name, severity, images)
        peers = installed()
        if arguments.wheel is not None:
            peers[WHEEL] = _peer(from_wheel(arguments.wheel, Path(folder)))
        has: dict[str, set[str]] = {DEFAULT: set(CORRUPTIONS), ALONE: set(CORRUPTIONS)}
        faithful: dict[str, dict[str, bool]] = {name: {} for name in CORRUPTIONS}
        for who, peer in peers.items():
            on_tensors = who.split()[0] in ON_TENSORS
            run[who] = theirs(peer, images, on_tensors)
            found = {name: exact(peer, on_tensors, name, images) for name in tqdm(CORRUPTIONS, who)}
            has[who] = {name for name, one in found.items() if one is not None}
            for name in has[who]:
                faithful[name][who] = bool(found[name])
        times = measure(run, has, arguments.rounds)
    rows = {
        name: {"ms": times[name], "exact": faithful[name], **cost(name, images)}
        for name in CORRUPTIONS
    }
    for who in (DEFAULT, ALONE):
        print(f"{who}: {sum(statistics.mean(row['ms'][who]) for row in rows.values()):.2f} ms")
    if arguments.out is not None:
        packages = {
            name: sys.modules[name].__version__ for name in ("cv2", "scipy", "skimage", "PIL")
        }
        result = {
            "machine": {
                "processor": platform.machine(),
                "capability": torch.backends.cpu.get_cpu_capability(),
                "cores": os.cpu_count(),
                "load average": [round(load, 2), round(os.getloadavg()[0], 2)],
            },
            "versions": {**versions(), **packages},
            "image": [SIDE, SIDE],
            "batch": CORRUPTED_BATCH,
            "rounds": arguments.rounds,
        }
        lines = (f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
        text = json.dumps(result, indent=1).removesuffix("\n}")
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + ',\n "rows": {\n' + ",\n".join(lines) + "\n }\n}\n")


if __name__ == "__main__":
    main()
