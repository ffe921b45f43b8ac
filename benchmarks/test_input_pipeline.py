"""The training pairs' way from a file to the network, beside Pillow, OpenCV and torchvision.

One thread; the processor's time, counted per image. A batch holds each of the 15 corruptions at
each of the 5 severities once, for all candidates alike. A table for each network has the pair's way
by stage, the training step last, each with its pairs a second and its share of the whole.
"""

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import imagecorruptions
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import decode_jpeg
from torchvision.transforms import v2

from benchmarks import corruptions, step_cost
from benchmarks.problems import PHOTOGRAPH, PHOTOGRAPHS, SIDE, STAGED_STEPS, StepProblem
from benchmarks.suite import case, per_image
from reference_training.corruptions import SEEN, SEVERITIES, corrupt
from reference_training.data.photograph_pairs import Clock, JsonLines, PhotographPairs, World
from reference_training.data.second_images import Corruptions, flipped
from reference_training.data.views import MEAN, STD, Views, decode, resized

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ROUNDS = 5
TITLE = f"of {PHOTOGRAPH[0]}×{PHOTOGRAPH[1]}, per image"
PAIR = f"training pair of {SIDE}×{SIDE} from JPEGs {TITLE}"
BILINEAR = v2.InterpolationMode.BILINEAR
KINDS = [(name, severity) for name in SEEN for severity in SEVERITIES]


@cache
def photographs() -> np.ndarray:
    """uint8 (N, H, W, 3)."""
    return corruptions.photographs(PHOTOGRAPHS, *PHOTOGRAPH)


@cache
def files() -> list[bytes]:
    """The photographs as JPEGs."""
    made = []
    for photograph in photographs():
        content = io.BytesIO()
        Image.fromarray(photograph).save(content, "JPEG", quality=90)
        made.append(content.getvalue())
    return made


class InMemory:
    """The files, as `reference_training.data` asks for photographs."""

    classes = ("photograph",)
    labels = torch.zeros(PHOTOGRAPHS, dtype=torch.int64)

    def name(self, sample: int) -> str:
        return str(sample)

    def read(self, sample: int) -> bytes:
        return files()[sample]


@pytest.fixture(autouse=True, scope="module")
def _single_thread():
    threads = torch.get_num_threads(), cv2.getNumThreads()
    corruptions.single_thread()
    yield
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


def by_pillow(content: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(content)).convert("RGB"))


def by_opencv(content: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(content, np.uint8), 1), cv2.COLOR_BGR2RGB)


def by_torchvision(content: bytes) -> np.ndarray:
    buffer = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return decode_jpeg(buffer).permute(1, 2, 0).numpy()


DECODERS: dict[str, Callable[[bytes], np.ndarray]] = {
    "ulfd": lambda content: decode(content).numpy(),
    "Pillow": by_pillow,
    "OpenCV": by_opencv,
    "torchvision": by_torchvision,
}


@pytest.mark.parametrize(
    "decoder",
    [
        case(decoder, group=f"JPEG {TITLE}", row=row, by_default=True, timer=per_image(PHOTOGRAPHS))
        for row, decoder in DECODERS.items()
    ],
)
def test_decoding(benchmark, decoder):
    for content in files()[:5]:
        # Decoders round the colours' transform and enlarge the chroma in their own ways.
        away = np.abs(decoder(content).astype(int) - by_pillow(content))
        assert away.mean() < 1
    benchmark.pedantic(
        lambda: [decoder(content) for content in files()], rounds=ROUNDS, warmup_rounds=1
    )


def pillow_resized(images: np.ndarray) -> np.ndarray:
    size = (SIDE, SIDE)
    resize = Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(each).resize(size, resize)) for each in images])


def ours_resized(images: np.ndarray) -> np.ndarray:
    return resized([torch.from_numpy(each) for each in images], SIDE).permute(0, 2, 3, 1).numpy()


def torchvision_resized(images: np.ndarray) -> np.ndarray:
    batch = torch.from_numpy(images).permute(0, 3, 1, 2)
    found = v2.functional.resize(batch, [SIDE, SIDE], BILINEAR, antialias=True)
    return found.permute(0, 2, 3, 1).numpy()


RESIZERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ulfd": ours_resized,
    "Pillow": pillow_resized,
    "torchvision": torchvision_resized,
}


@pytest.mark.parametrize(
    "resizer",
    [
        case(
            resizer,
            group=f"resizing to {SIDE}×{SIDE} {TITLE}",
            row=row,
            by_default=True,
            timer=per_image(PHOTOGRAPHS),
        )
        for row, resizer in RESIZERS.items()
    ],
)
def test_resizing(benchmark, resizer):
    images = photographs()
    assert np.abs(resizer(images[:5]).astype(int) - pillow_resized(images[:5])).max() <= 1
    benchmark.pedantic(resizer, (images,), rounds=ROUNDS, warmup_rounds=1)


def training_pairs(folder: Path) -> PhotographPairs:
    """The pairs, in this process."""
    device = torch.device("cpu")
    return PhotographPairs(
        InMemory(),
        batch_size=PHOTOGRAPHS,
        seed=0,
        second="corruption",
        views=Views(SIDE, SIDE, Corruptions(sampling="cycle")),
        channels_last=False,
        workers=0,
        most_unreadable=0,
        unreadable=JsonLines(folder / "unreadable.jsonl"),
        world=World(0, 1, device),
        clock=Clock(device),
    )


def ours(folder: Path) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """`PhotographPairs` in this process."""
    pairs = training_pairs(folder)
    order = np.argsort(pairs.describe(0)["samples"])

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        (batch,) = pairs.batches(0, 1)
        return batch.clean[order], batch.degraded[order]

    return run


def one_by_one(folder: Path) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """What one would write with Pillow, torchvision and the public package of corruptions."""
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        clean, degraded = [], []
        for content, (name, severity) in zip(files(), KINDS, strict=True):
            image = Image.open(io.BytesIO(content)).convert("RGB")
            small = np.array(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
            clean.append(transform(small))
            degraded.append(transform(np.array(imagecorruptions.corrupt(small, severity, name))))
        return torch.stack(clean), torch.stack(degraded)

    return run


PIPELINES = {"ulfd": ours, "Pillow, torchvision, imagecorruptions-imaug": one_by_one}


@pytest.mark.parametrize(
    "make",
    [
        case(make, group=PAIR, row=row, by_default=True, timer=per_image(PHOTOGRAPHS))
        for row, make in PIPELINES.items()
    ],
)
def test_training_pairs(benchmark, make, tmp_path):
    run = make(tmp_path)
    check(*run())
    benchmark.pedantic(run, rounds=ROUNDS)


def check(clean: torch.Tensor, degraded: torch.Tensor) -> None:
    """The clean image is Pillow's within a grey level, flipped or not; the other is degraded."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    levels = torch.from_numpy(
        pillow_resized(np.stack([by_pillow(content) for content in files()]))
    ).permute(0, 3, 1, 2)
    found = (clean * std + mean) * 255
    away = torch.minimum(
        *((found - each).abs().amax((1, 2, 3)) for each in (levels, levels.flip(-1)))
    )
    assert away.max() < 1.01, f"{int((away >= 1.01).sum())} images are others than Pillow's"
    assert degraded.shape == clean.shape
    assert not (degraded == clean).flatten(1).all(1).any()


@cache
def squares() -> torch.Tensor:
    """The photographs, resized: uint8 (N, 3, S, S)."""
    return resized([decode(content) for content in files()], SIDE)


def reading(folder: Path) -> Callable[[], list[bytes]]:
    """From files which the system has in its memory: the processor's part of reading."""
    paths = [folder / f"{number}.jpeg" for number in range(PHOTOGRAPHS)]
    for path, content in zip(paths, files(), strict=True):
        path.write_bytes(content)
    return lambda: [path.read_bytes() for path in paths]


def decoding(folder: Path) -> Callable[[], list[torch.Tensor]]:
    return lambda: [decode(content) for content in files()]


def resizing(folder: Path) -> Callable[[], torch.Tensor]:
    images = [decode(content) for content in files()]
    return lambda: resized(images, SIDE)


def corrupting(folder: Path) -> Callable[[], torch.Tensor]:
    names, severities = zip(*KINDS, strict=True)
    return lambda: corrupt(squares(), names, severities)


def normalising(folder: Path) -> Callable[[], list[torch.Tensor]]:
    """Both images of a pair, flipped or not."""
    pairs, flip = training_pairs(folder), torch.arange(PHOTOGRAPHS) % 2 == 0
    return lambda: [pairs.normalised(flipped(images, flip)) for images in (squares(), squares())]


Stage = Callable[[Path], Callable[[], object]]
STAGES: dict[str, Stage] = {
    "read": reading,
    "decode": decoding,
    "resize": resizing,
    "corrupt": corrupting,
    "flip and normalise": normalising,
}


def stages(problem: StepProblem) -> dict[str, tuple[Stage, int]]:
    """What makes each stage, the training step last; and the pairs of one call."""

    def step(folder: Path) -> Callable[[], None]:
        return step_cost.training(*step_cost.prepared(problem, "+ default UEM, a σ for each image"))

    found = {row: (make, PHOTOGRAPHS) for row, make in STAGES.items()}
    return found | {"step": (step, problem.pairs)}


@pytest.mark.parametrize(
    "make",
    [
        case(
            make,
            group=f"{PAIR}, by stage, {problem.network}",
            row=row,
            by_default=problem == STAGED_STEPS[0],
            timer=per_image(pairs),
        )
        for problem in STAGED_STEPS
        for row, (make, pairs) in stages(problem).items()
    ],
)
def test_stages(benchmark, make, tmp_path):
    benchmark.extra_info["stage_of"] = "pairs"
    benchmark.pedantic(make(tmp_path), rounds=ROUNDS, warmup_rounds=1)
