"""The Triton path, with no GPU: lowered for CUDA, and its machine code read.

jax-triton needs a part of JAX's CUDA plugin for that (`make test` installs it: 8 MB, no driver).
"""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from jax import numpy as jnp

pytest.importorskip("triton", reason="Triton is needed: pip install 'ulfd[triton]'")
pytest.importorskip(
    "jax_cuda13_plugin", reason=f"pip install --no-deps jax-cuda13-plugin=={jax.__version__}"
)

from triton.backends.nvidia.compiler import get_ptxas

import ulfd_jax
from ulfd.kernels import ahead_of_time, jax_versions, machine_code, triton_configs
from ulfd_jax import targets, triton, triton_kernels

pytestmark = pytest.mark.skipif(
    jax_versions.unavailable() is not None, reason=str(jax_versions.unavailable())
)

NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def step(needs: tuple[int, ...], **options: Any) -> Any:
    def loss(student: Any, teacher: Any, sigma: Any, upstream: Any) -> Any:
        return upstream * ulfd_jax.ulfd_loss(student, teacher, sigma, **options)

    return jax.value_and_grad(loss, argnums=needs)


def one_pass(student: Any, teacher: Any, sigma: Any, upstream: Any) -> Any:
    return ulfd_jax.value_and_grad(
        student, teacher, sigma, upstream=upstream, teacher_gradient=False
    )


def lowered(function: Any, shape: Any, sigma: Any, dtype: str, architecture: str = "sm_90") -> Any:
    """The program for CUDA, lowered without a GPU."""
    kind = jnp.dtype(NAMES[dtype])
    features = jax.ShapeDtypeStruct(shape, kind)
    given = None if sigma is None else jax.ShapeDtypeStruct(sigma, kind)
    upstream = jax.ShapeDtypeStruct((), jnp.float32)
    with targets.compiling_for(architecture):
        traced = jax.jit(function).trace(features, features, given, upstream)
        return traced.lower(lowering_platforms=("cuda",))


@pytest.fixture
def dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What jax-triton compiles: the PTX of each kernel, all of one name joined."""
    library = triton._jax_triton().triton_lib
    kernels = (triton_kernels.over_rows, triton_kernels.over_columns, triton_kernels.finish)

    def read(*arguments: Any) -> dict[str, str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        # What was compiled is kept in one place by jax-triton 0.3, and with each kernel by 0.4.
        getattr(library, "_COMPILED_KERNEL_CACHE", {}).clear()
        for kernel in kernels:
            getattr(kernel, "_jT_kernel_cache", {}).clear()
        monkeypatch.setattr(library, "_JAX_TRITON_DUMP_DIR", str(folder))
        lowered(*arguments)
        found: dict[str, str] = {}
        for path in folder.rglob("*.ptx"):
            found[path.stem] = found.get(path.stem, "") + path.read_text()
        return found

    return read


def assembled(ptx: str, tmp_path: Path) -> tuple[str, dict[str, int]]:
    """Machine code of sm_90, and its registers, spills and stack."""
    source, binary = tmp_path / "kernel.ptx", tmp_path / "kernel.cubin"
    source.write_text(ptx)
    assembler = get_ptxas(90).path
    subprocess.run([assembler, "-arch=sm_90a", source, "-o", binary], check=True)
    return ahead_of_time._read(SimpleNamespace(asm={"cubin": binary.read_bytes()}))


# With constant lengths the compiler shortens the tail of a row, and the reader of machine code
# would take it for the interior; these rows of 4096 × 49 elements have no tail.
SHAPE = (256, 4096, 7, 7)
SIGMAS = {
    "full": SHAPE,
    "spatial": (256, 1, 7, 7),
    "sample": (256, 1, 1, 1),
    "channel": (1, 4096, 1, 1),
}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_machine_code_is_as_good_as_torchs(sigma, dtype, dump, tmp_path_factory):
    """What tests/ulfd/kernels/test_ahead_of_time.py demands of torch's kernels."""
    word = ahead_of_time.ITEMSIZES[dtype]
    kernels = dump(one_pass, SHAPE, SIGMAS[sigma], dtype)
    config = triton_configs.config("sm_90", word)
    launch, _ = triton_configs.for_features(SHAPE, SIGMAS[sigma], word, config)
    assert set(kernels) == {launch.kernel, "finish"}
    for ptx in kernels.values():
        assert ".f64" not in ptx
    code, resources = assembled(kernels[launch.kernel], tmp_path_factory.mktemp("code"))
    counts = machine_code.interior(code)
    per_element = 16 * 32 * launch.warps / launch.constants["HEIGHT"] / launch.constants["WIDTH"]
    reads, writes = (3, 2) if sigma == "full" else (2, 1)
    assert counts["load", 16] * per_element == reads * word, counts
    assert counts["store", 16] * per_element == writes * word, counts
    assert resources["spills"] == resources["stack"] == 0
    assert resources["registers"] <= 184
    assert finishing_is_clean(kernels["finish"], tmp_path_factory.mktemp("finish"))


def finishing_is_clean(ptx: str, folder: Path) -> bool:
    _, resources = assembled(ptx, folder)
    return resources["spills"] == resources["stack"] == 0


def test_the_backward_pass_writes_only_what_is_asked_for(dump):
    """One program per tile: its stores are the gradients by student, by teacher and by σ."""
    shape, stores = (8, 64, 8, 8), {}
    for needs in [(0,), (0, 1), (0, 1, 2)]:
        ptx = dump(step(needs), shape, shape, "fp32")["over_rows"]
        stores[needs] = ptx.count("st.global.v4")
    assert stores[0,] > 0
    assert stores[0, 1] == 2 * stores[0,]
    assert stores[0, 1, 2] == 3 * stores[0,]


@pytest.mark.parametrize("sigma", [None, (), (4, 8, 5, 5), (8, 1, 5), (4, 1, 1, 1), (1, 8, 1, 5)])
@pytest.mark.parametrize("architecture", ["sm_80", "sm_100", "sm_120"])
def test_lowers_for_every_architecture_and_shape(sigma, architecture):
    options = {"beta": 0.5, "clamp": (-3.0, 3.0), "weight": 0.1}
    needs = (0, 1) if sigma is None else (0, 1, 2)
    program = lowered(step(needs, **options), (4, 8, 5, 5), sigma, "fp16", architecture)
    text = program.as_text()
    assert text.count("custom_call @triton_kernel_call") >= 3  # the loss, its sum, the gradients
    loss, gradients = program.out_info
    assert (loss.shape, loss.dtype) == ((), jnp.float32)
    shapes = ((4, 8, 5, 5), (4, 8, 5, 5), sigma)
    for gradient, shape in zip(gradients, shapes, strict=False):
        assert (gradient.shape, gradient.dtype) == (shape, jnp.float16)


def test_no_gpu_no_kernel():
    given = [jnp.ones((4, 8))] * 3
    text = jax.jit(ulfd_jax.ulfd_loss).lower(*given).as_text()
    assert "triton_kernel_call" not in text
    with pytest.raises(ValueError, match=r"student is on cpu, not on a GPU \(cuda\)"):
        ulfd_jax.ulfd_loss(*given, implementation="triton")


def test_a_named_kernel_is_never_replaced():
    """Traced for a GPU, lowered for a CPU: an error, not another kernel."""
    with targets.compiling_for("sm_90"):
        traced = jax.jit(ulfd_jax.ulfd_loss, static_argnames="implementation").trace(
            jnp.ones((4, 8)), jnp.ones((4, 8)), implementation="triton"
        )
    with pytest.raises(NotImplementedError, match="cpu"):
        traced.lower(lowering_platforms=("cpu",))


def test_every_transformation_lowers():
    """vmap and the second derivative go through the composite form, where no kernel is left."""
    shape = (4, 8, 5, 5)
    each = jax.vmap(lambda s, t, g, u: step((0, 2))(s, t, g, u), in_axes=(0, 0, 0, None))
    assert "triton_kernel_call" not in lowered(each, shape, shape, "fp32").as_text()

    def penalty(s: Any, t: Any, g: Any, u: Any) -> Any:
        return jax.grad(lambda x: (jax.grad(ulfd_jax.ulfd_loss)(x, t, g) ** 2).sum() * u)(s)

    assert "triton_kernel_call" in lowered(penalty, shape, shape, "fp32").as_text()

    def scanned(s: Any, t: Any, g: Any, u: Any) -> Any:
        loss = jax.checkpoint(ulfd_jax.ulfd_loss)
        return jax.lax.scan(lambda sum_, x: (sum_ + loss(*x), None), u, (s, t, g))[0]

    text = lowered(jax.value_and_grad(scanned), shape, shape, "fp32").as_text()
    assert text.count("custom_call @triton_kernel_call") >= 3


def test_importing_jax_triton_leaves_the_environment_alone(monkeypatch):
    """It sets TRITON_CACHE_DIR to nothing, which breaks torch's kernels in the same process."""
    monkeypatch.setenv("TRITON_CACHE_DIR", "/somewhere")
    code = "import os; from ulfd_jax import triton; triton._jax_triton();"
    code += "print(os.environ['TRITON_CACHE_DIR'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "/somewhere"
