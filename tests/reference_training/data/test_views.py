"""What a network sees of an image after training."""

import numpy as np
from PIL import Image

from reference_training.data.views import CentralView


def test_squares_of_any_image():
    white = Image.new("RGB", (4, 2), "white")
    padded = CentralView(8, 8, pads=True)(white)
    assert padded[:, 3:5, 2:6].min() == 255
    assert int(padded.long().sum()) == 3 * 8 * 255
    assert CentralView(8, 8)(white).min() == 255  # enlarged
    assert CentralView(8, 8, pads=True)(Image.new("RGB", (9, 2), "white")).min() == 255
    levels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    same = CentralView(4, 4)(Image.fromarray(levels))
    assert np.array_equal(same.movedim(0, -1).numpy(), levels)
