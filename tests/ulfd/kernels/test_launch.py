"""What the real launch would compile is what the ahead-of-time report compiled."""

import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton", reason="Triton is needed: pip install 'ulfd[triton]'")

from triton.runtime.jit import JITFunction  # noqa: E402

from ulfd.broadcasting import plan  # noqa: E402
from ulfd.kernels import ahead_of_time, triton_configs, triton_fused  # noqa: E402
from ulfd.options import LossOptions  # noqa: E402
from ulfd_torch import triton  # noqa: E402

if not hasattr(JITFunction, "_do_compile"):
    pytest.skip("Triton 3.3 compiles within the launch", allow_module_level=True)

OPTIONS = LossOptions(weight=0.1)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Compiled = dict[str, tuple[dict[str, str], dict[Any, Any], dict[Any, Any]]]


class NoDriver:
    """Says that there is an H100, and launches nothing."""

    def get_current_target(self) -> Any:
        return ahead_of_time.TARGETS["sm_90"]

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Records (signature, constants, attributes) of every kernel at the door of the compiler."""
    seen: Compiled = {}

    def record(
        self: Any, key: Any, signature: Any, device: Any, constants: Any, *rest: Any
    ) -> None:
        attributes = {place: hints for place, hints in rest[1].items() if hints}
        seen[self.fn.__name__] = (dict(signature), dict(constants), attributes)

    caller = sys.modules[JITFunction.__module__]  # `triton.runtime.jit` is a function too
    monkeypatch.setattr(caller, "driver", SimpleNamespace(active=NoDriver()))
    monkeypatch.setattr(JITFunction, "_do_compile", record)
    monkeypatch.setattr(triton, "_architecture", lambda device: "sm_90")
    kernels = (*triton_fused.KERNELS.values(), triton_fused.finish)
    for kernel in kernels:
        kernel.device_caches.clear()
    yield seen
    for kernel in kernels:
        kernel.device_caches.clear()


def features(shape: tuple[int, ...], dtype: Any, layout: str, offset: int = 0) -> Any:
    """Memory that nobody touches."""
    order = (0, 2, 3, 1) if layout == "NHWC" else (0, 1, 2, 3)
    size = 1
    for length in shape:
        size *= length
    memory = torch.empty(size + offset, dtype=dtype)
    strides, stride = [0] * 4, 1
    for axis in reversed(order):
        strides[axis], stride = stride, stride * shape[axis]
    return memory.as_strided(shape, strides, offset)


def one_pass(sigma: str, dtype: str, layout: str, batch: int = 256, offset: int = 0) -> None:
    """`value_and_grad` without the teacher's gradient, to the door of the compiler."""
    shape = (batch, *ahead_of_time.SHAPE[1:])
    narrow = tuple(batch if size == 256 else size for size in ahead_of_time.SIGMAS[sigma])
    triton.compute(
        features(shape, DTYPES[dtype], layout, offset),
        features(shape, DTYPES[dtype], layout),
        features(narrow, DTYPES[dtype], layout),
        torch.tensor(0.37),
        OPTIONS,
        value=True,
        needs=(True, False, True),
    )


PROBLEMS = [
    (sigma, dtype, layout)
    for sigma in ahead_of_time.SIGMAS
    for dtype in DTYPES
    for layout in ("NCHW", "NHWC")
]


@pytest.mark.parametrize(("sigma", "dtype", "layout"), PROBLEMS)
def test_the_launch_specialises_as_the_report(
    compiled: Compiled, sigma: str, dtype: str, layout: str
) -> None:
    one_pass(sigma, dtype, layout)
    runs = plan(
        ahead_of_time.SHAPE,
        ahead_of_time.SIGMAS[sigma],
        ahead_of_time.NHWC if layout == "NHWC" else None,
    )
    itemsize = ahead_of_time.ITEMSIZES[dtype]
    config = triton_configs.config("sm_90", itemsize)
    launch = triton_configs.launch(256 * 2048 * 49, runs, itemsize, config)
    source = ahead_of_time.one_pass(launch, dtype)
    signature, constants, attributes = compiled[launch.kernel]
    assert signature == source.signature
    assert constants == source.constants
    assert attributes == source.attrs
    assert signature["length"] == "i64"
    assert signature["scale_bits"] == "i32"


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("sigma", ["spatial", "sample", "channel", "full"])
def test_another_batch_size_is_no_other_kernel(compiled: Compiled, sigma: str, layout: str) -> None:
    one_pass(sigma, "fp32", layout)
    first = dict(compiled)
    for batch in (255, 250, 37):
        one_pass(sigma, "fp32", layout, batch)
        assert compiled == first


def test_a_misaligned_view_is_known_to_be_misaligned(compiled: Compiled) -> None:
    one_pass("full", "fp32", "NCHW", batch=2, offset=1)
    _, _, attributes = compiled["over_rows"]
    names = triton_fused.over_rows.arg_names
    aligned = {names[place[0]] for place in attributes}
    assert "student" not in aligned
    assert {"teacher", "log_variance", "by_student", "by_sigma"} <= aligned


def test_no_integer_overflows_in_the_launch() -> None:
    """Offsets inside a tile fit 32 bits, and a program's base is 64 bits wide, at any size."""
    for runs in (
        (triton_configs.Run(3, True), triton_configs.Run(2**33, False)),
        (triton_configs.Run(2**20, False), triton_configs.Run(2**20, True)),
        (
            triton_configs.Run(4, True),
            triton_configs.Run(2**16, False),
            triton_configs.Run(2**17, True),
        ),
    ):
        size = 1
        for run in runs:
            size *= run.size
        launch = triton_configs.launch(size, runs, 4, triton_configs.config("sm_90", 4))
        assert launch.grid < 2**31
        assert all(launch.integers[name] < 2**31 for name in launch.integers if name != "length")
        constants = launch.constants
        row = constants.get("PERIOD", launch.integers["length"] if constants["HEIGHT"] > 1 else 0)
        assert constants["HEIGHT"] * row < 2**31


def test_tuned_configurations_come_from_a_file_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = triton_configs.Config(1024, 4, triton_configs.Columns(512, 4, 128, 64, 2))
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps({"sm_90": {4: dataclasses.asdict(config)}}))
    assert triton_configs.config("sm_90", 4) != config
    monkeypatch.setenv(triton_configs.TUNED_FILE, str(path))
    assert triton_configs.config("sm_90", 4) == config
    assert triton_configs.config("sm_90", 2) == triton_configs.CONFIGS["sm_90"][2]
    assert triton_configs.config("sm_80", 4) == triton_configs.DEFAULT[4]
