"""The corruptions beside the public package's: processor time of one image on one core.

Ours works on a batch of 32, the package on one image after another; the clock counts per image.
"""

import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks import corruptions
from benchmarks.corruptions import DEFAULT, IMAUG, SAME, WHEEL
from benchmarks.problems import CORRUPTED_BATCH as BATCH
from benchmarks.problems import CORRUPTION_SEVERITY_BY_DEFAULT, PEER_IMAGES, SIDE
from benchmarks.suite import case, per_image
from reference_training.corruptions import CORRUPTIONS, SEVERITIES

IMAGES = {DEFAULT: BATCH, SAME: BATCH, IMAUG: PEER_IMAGES, WHEEL: PEER_IMAGES}
ROUNDS = 5


@pytest.fixture(scope="module")
def candidates(request) -> Iterator[tuple[dict[str, corruptions.Candidate], np.ndarray]]:
    """What is compared, on one thread; and the clean images."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    corruptions.single_thread()
    images = corruptions.photographs(BATCH, SIDE, SIDE)
    with tempfile.TemporaryDirectory() as folder:
        wheel = request.config.getoption("--wheel")
        yield corruptions.candidates(images, wheel, Path(folder)), images
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


def check(
    run: dict[str, corruptions.Candidate], who: str, name: str, severity: int, images
) -> None:
    """Raises AssertionError unless the candidate makes what it should."""
    corruptions.check(run, IMAUG if who in (DEFAULT, SAME) else who, name, severity, images)
    if who == DEFAULT and name not in corruptions.TWO_DEFINITIONS:
        np.testing.assert_array_equal(run[DEFAULT](name, severity), run[SAME](name, severity))


@pytest.fixture(scope="module")
def remembered(candidates) -> dict[str, corruptions.Candidate]:
    """The candidates, whose newest result is kept: the checks of a table share it."""
    run, _ = candidates
    return {who: lru_cache(maxsize=1)(candidate) for who, candidate in run.items()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "severity", "who"),
    [
        case(
            name,
            severity,
            who,
            group=f"{name} {severity}, per image of {SIDE}×{SIDE}",
            row=who,
            by_default=severity == CORRUPTION_SEVERITY_BY_DEFAULT,
            timer=per_image(IMAGES[who]),
        )
        for name in CORRUPTIONS
        for severity in SEVERITIES
        for who in IMAGES
    ],
)
def test_corruptions(benchmark, candidates, remembered, name, severity, who):
    run, images = candidates
    if who not in run:
        pytest.skip("no --wheel given: imagecorruptions-1.1.2-py3-none-any.whl")
    check(remembered, who, name, severity, images)
    benchmark.pedantic(run[who], (name, severity), rounds=ROUNDS, warmup_rounds=1)
