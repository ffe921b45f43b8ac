"""Corruptions on one CPU core: `python -m benchmarks.corruptions --wheel WHEEL`.

Per image of 224x224, this project's `corrupt` on a batch of 32 against two versions of the public
package, which take one image at a time: `imagecorruptions-imaug` 1.1.5 (with numba), and the wheel
`imagecorruptions` 1.1.2, in which what newer libraries no longer accept is mended (`MENDED`). The
environment, in the project's folder:

    python -m venv runs/peers
    runs/peers/bin/pip install -e '.[test]'
    runs/peers/bin/pip download --no-deps --dest runs imagecorruptions==1.1.2
    runs/peers/bin/python -m benchmarks.corruptions --wheel runs/imagecorruptions-*.whl \
        --out benchmarks/results/corruptions_cpu.json
    runs/peers/bin/python -m benchmarks.tables

One thread each. The candidates take turns in one process at every (type, severity), and the whole
is repeated; what counts is the processor's time, which waiting for others does not lengthen, and
its median over the rounds. Before anything is timed, results are compared with the package's: pixel
by pixel where nothing is random, else by their mean distance from the clean images.
"""

import argparse
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

from benchmarks.problems import CORRUPTED_BATCH, PEER_IMAGES, SIDE
from reference_training.corruptions import CORRUPTIONS, SEEN, SEVERITIES, corrupt
from ulfd.env import versions

IMAUG, WHEEL = "imagecorruptions-imaug 1.1.5", "imagecorruptions 1.1.2, mended"
DEFAULT, SAME = "ulfd", "ulfd, the package's semantics"
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


def candidates(images: np.ndarray, wheel: Path | None, folder: Path) -> dict[str, Candidate]:
    """What is compared: each corrupts images by a type at a severity."""
    import imagecorruptions

    batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    seeds = torch.arange(len(images))

    def ours(semantics: str) -> Candidate:
        def run(name: str, severity: int, every: bool = True) -> np.ndarray:
            result = corrupt(
                batch, name, severity, seeds=seeds, semantics=semantics, frost="photographs"
            )
            return result.permute(0, 2, 3, 1).numpy()

        return run

    def theirs(package: ModuleType) -> Candidate:
        def run(name: str, severity: int, every: bool = False) -> np.ndarray:
            chosen = images if every else images[:PEER_IMAGES]
            return np.stack([package.corrupt(image, severity, name) for image in chosen])

        return run

    found = {DEFAULT: ours("imagenet_c"), SAME: ours("imagecorruptions")}
    found[IMAUG] = theirs(imagecorruptions)
    if wheel is not None:
        found[WHEEL] = theirs(from_wheel(wheel, folder))
    return found


def check(
    run: dict[str, Candidate], peer: str, name: str, severity: int, images: np.ndarray
) -> None:
    """Raises AssertionError unless a peer makes what we make by its semantics.

    Pixel by pixel where nothing is random; else by the mean distance from all the clean images, for
    a few would differ by chance.
    """
    ours = run[SAME](name, severity).astype(int)
    theirs = run[peer](name, severity, every=name not in PIXELWISE).astype(int)
    if name in PIXELWISE:
        right = np.abs(ours[: len(theirs)] - theirs).max() <= 1
    else:
        near, far = sorted(np.abs(each - images).mean() for each in (ours, theirs))
        right = far < 1.3 * near
    if not right:
        raise AssertionError(f"{name} {severity}: not what {peer} makes")


def measure(run: dict[str, Candidate], rounds: int) -> list[dict[str, Any]]:
    """The median processor time in milliseconds per image, for each type and severity."""
    times: dict[tuple[str, int], dict[str, list[float]]] = {}
    for _ in tqdm(range(rounds), unit="round"):
        for name in CORRUPTIONS:
            for severity in SEVERITIES:
                here = times.setdefault((name, severity), {who: [] for who in run})
                for who, candidate in run.items():
                    start = time.process_time()
                    made = candidate(name, severity)
                    here[who].append(1e3 * (time.process_time() - start) / len(made))
    return [
        {
            "type": name,
            "severity": severity,
            "ms": {who: round(statistics.median(values), 4) for who, values in here.items()},
        }
        for (name, severity), here in times.items()
    ]


def total(rows: list[dict[str, Any]], who: str, names: tuple[str, ...] = SEEN) -> float:
    """Milliseconds for one image under all of these types, each the mean over its severities."""
    chosen = [row["ms"][who] for row in rows if row["type"] in names]
    return sum(chosen) / len(SEVERITIES)


def main() -> None:
    """Checks, measures, prints the totals and writes the raw numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheel", type=Path, help="imagecorruptions-1.1.2-py3-none-any.whl")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="where the raw JSON goes")
    arguments = parser.parse_args()

    single_thread()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    images = photographs(CORRUPTED_BATCH, SIDE, SIDE)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        run = candidates(images, arguments.wheel, Path(folder))
        for peer in run.keys() & {IMAUG, WHEEL}:
            for name in CORRUPTIONS:
                for severity in SEVERITIES if name in PIXELWISE else SEVERITIES[2:3]:
                    check(run, peer, name, severity, images)
        rows = measure(run, arguments.rounds)
    totals = {who: total(rows, who) for who in run}
    for who, milliseconds in totals.items():
        print(f"{who:32} {milliseconds:8.2f} ms, {milliseconds / totals[DEFAULT]:6.1f} x")
    if arguments.out is not None:
        packages = {name: sys.modules[name].__version__ for name in ("cv2", "scipy", "skimage")}
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
            "rows": rows,
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
