"""The operators below DistributedDataParallel and FSDP2, run by Triton's interpreter.

Not collected by itself: `test_fused.py` runs it in a process with TRITON_INTERPRET=1.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from ulfd_torch import UEM, SelfDistillation, ULFDLoss

LABELS = torch.tensor([0, 1, 2, 0])


@pytest.fixture(autouse=True)
def _group(tmp_path: Path) -> Iterator[None]:
    store = f"file://{tmp_path / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def step(implementation: str) -> SelfDistillation:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 3))
    loss = ULFDLoss(weight=0.1, implementation=implementation)
    return SelfDistillation(model, layer="1", uem=UEM.official(6, width=4, blocks=1), loss=loss)


def images() -> tuple[torch.Tensor, torch.Tensor]:
    clean, degraded = torch.rand(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return clean, degraded


def gradients(module: nn.Module, run: Any) -> list[torch.Tensor]:
    run(*images(), LABELS).total.backward()
    found = [parameter.grad for parameter in module.parameters()]
    return [grad.full_tensor() if isinstance(grad, DTensor) else grad for grad in found]


def test_distributed_data_parallel() -> None:
    plain, wrapped = step("composite"), step("triton")
    parallel = nn.parallel.DistributedDataParallel(wrapped)
    for ours, theirs in zip(gradients(wrapped, parallel), gradients(plain, plain), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fully_sharded(dtype: torch.dtype) -> None:
    mesh = distributed.init_device_mesh("cpu", (1,))
    found = []
    for implementation in ("triton", "composite"):
        module = step(implementation)
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        fully_shard(module, mesh=mesh, mp_policy=policy)
        found.append(gradients(module, module))
    # The interpreter truncates to bfloat16 where hardware rounds: one unit in the last place.
    tolerance = {"rtol": 2**-6, "atol": 1e-3} if dtype == torch.bfloat16 else {}
    assert sum(theirs.abs().max() > 0 for theirs in found[1]) > 8  # dead units aside
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)
