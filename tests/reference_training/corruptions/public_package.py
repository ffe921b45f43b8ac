"""The public package `imagecorruptions`, with this project's parameters and random numbers put in.

The package has one table of severities and draws from NumPy's and numba's global generators.
`peer` runs one of its functions with a row of any table and with draws that are given, so that its
result and this project's can be compared pixel by pixel.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
from PIL import Image

imagecorruptions = pytest.importorskip(
    "imagecorruptions.corruptions",
    exc_type=ImportError,
    reason="needs imagecorruptions-imaug, which `pip install '.[test]'` brings",
)
numba = pytest.importorskip("numba")


def published(name: str) -> list:
    """The five entries of the list `c` in the source of the package's function."""
    return eval(compile(ast.Expression(_table(name)[1].value), name, "eval"), {"np": np})


def _table(name: str) -> tuple[ast.Module, ast.Subscript]:
    function = getattr(imagecorruptions, name)
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    variable = "alpha" if name == "elastic_transform" else "c"
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == variable:
            assert isinstance(node.value, ast.Subscript)
            return tree, node.value
    raise AssertionError(f"{name} has no table")


def with_row(name: str, row: object) -> Callable[..., np.ndarray]:
    """The package's function, whose every severity is `row`."""
    tree, subscript = _table(name)
    subscript.value = ast.parse(f"[{'_row,' * 5}]", mode="eval").body
    ast.fix_missing_locations(tree)
    namespace = vars(imagecorruptions) | {"_row": row}
    exec(compile(tree, name, "exec"), namespace)
    return namespace[name]


def peer(name: str, row: object, image: np.ndarray, **options: object) -> np.ndarray:
    """What the package makes of an image, (H, W, 3) uint8, before its final truncation."""
    return np.asarray(with_row(name, row)(Image.fromarray(image), **options), dtype=np.float64)


@contextmanager
def given(**draws: list[np.ndarray]) -> Iterator[None]:
    """NumPy's global functions of these names return these values, one after the other."""
    with mock.patch.multiple(
        np.random, **{name: mock.Mock(side_effect=values) for name, values in draws.items()}
    ):
        yield


class Given(np.random.Generator):
    """A generator whose `random` returns given arrays, for scikit-image."""

    def __new__(cls, values: list[np.ndarray]) -> "Given":
        return super().__new__(cls, np.random.PCG64())

    def __init__(self, values: list[np.ndarray]) -> None:
        super().__init__(np.random.PCG64())
        self._values = iter(values)

    def random(self, *args: object, **options: object) -> np.ndarray:
        return next(self._values)


@numba.njit
def scan(image, offsets, d):
    """The package's loop of exchanges over an (H, W, 3) image, with given (H, W, 2) offsets."""
    for h in range(image.shape[0] - d, d, -1):
        for w in range(image.shape[1] - d, d, -1):
            y, x = h + offsets[h, w, 0], w + offsets[h, w, 1]
            image[h, w], image[y, x] = image[y, x], image[h, w]
    return image
