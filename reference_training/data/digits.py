"""scikit-learn's handwritten digits (8×8, from UCI, CC BY 4.0): the smoke set of the tests."""

from pathlib import Path

import torch
from torch.nn import functional

from reference_training.data.images import Dataset, fixed_order, grey_to_rgb

TRAIN = 1297  # the rest, 500 images, is the test set


def load_digits(data_root: Path | None = None) -> Dataset:
    """1,297 training and 500 test images, enlarged to 24×24 and padded to 32×32 RGB."""
    from sklearn import datasets  # slow to import, and only this dataset needs it

    digits = datasets.load_digits()
    # The file is ordered by writer in parts, so split a fixed permutation instead.
    order = fixed_order(len(digits.target))
    grey = torch.from_numpy(digits.images)[order, None].float() * (255 / 16)
    enlarged = functional.interpolate(grey, (24, 24), mode="bilinear", align_corners=False)
    images = grey_to_rgb(enlarged[:, 0].round().to(torch.uint8))
    labels = torch.from_numpy(digits.target)[order].long()
    return Dataset(
        name="digits",
        train_images=images[:TRAIN],
        train_labels=labels[:TRAIN],
        test_images=images[TRAIN:],
        test_labels=labels[TRAIN:],
        classes=10,
        flips=False,
        description="scikit-learn's digits, enlarged to 24x24 and padded to 32x32 RGB",
        licence="CC BY 4.0 (UCI Optical Recognition of Handwritten Digits)",
    )
