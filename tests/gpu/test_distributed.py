"""DDP and FSDP2 over NCCL, in one process and, where there are two GPUs, in two: gradients are the shards' mean."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cycledistill import CycleLoss, Distill, wrap_cyclic
from tests.gpu.running import compiled, toy, toy_batch
from tests.oracle import assert_same_gradients, gradients
from tests.spawn import run

pytestmark = pytest.mark.gpu
Gradients = dict[str, Tensor]
SHARD = 4
criterion = CycleLoss(nn.CrossEntropyLoss())
DDP: dict[str, dict[str, Any]] = {
    "plain": {},
    "static graph": {"static_graph": True},
    "unused parameters": {"find_unused_parameters": True},
    "gradients in buckets": {"gradient_as_bucket_view": True},
}
FSDP2 = {"float32": torch.float32, "bfloat16": torch.bfloat16}
COMPILED = ("compiled outside", "compiled inside")


def model_on(device: torch.device) -> nn.Module:
    return wrap_cyclic(toy(depth=2).to(device), 2, Distill(token_weight=0.1))


def shard(rank: int, world: int, device: torch.device) -> tuple[Tensor, Tensor]:
    x, target = toy_batch(device, SHARD * world)
    return x[SHARD * rank :][:SHARD], target[SHARD * rank :][:SHARD]


def two_steps(call: Any, model: nn.Module, x: Tensor, target: Tensor) -> Gradients:
    """Gradients of the second step: buckets are made anew after the first."""
    for _ in range(2):
        model.zero_grad(set_to_none=True)
        call(x, target).backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: getattr(g, "full_tensor", lambda g=g: g)().detach().cpu() for name, g in found.items()}


def by_ddp(rank: int, world: int, device: torch.device, options: dict[str, Any]) -> Gradients:
    model = model_on(device)
    ddp = DistributedDataParallel(model, **options)
    return two_steps(lambda x, target: criterion(ddp(x), target), model, *shard(rank, world, device))


def by_fsdp(rank: int, world: int, device: torch.device, dtype: torch.dtype) -> Gradients:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    model, mesh = model_on(device), init_device_mesh(device.type, (world,))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return two_steps(lambda x, target: criterion(model(x), target), model, *shard(rank, world, device))


def by_compiled_ddp(rank: int, world: int, device: torch.device, where: str) -> Gradients:
    model = model_on(device)
    if where == "compiled inside":
        ddp: Any = DistributedDataParallel(compiled(model, device))
    else:  # the reducer breaks the graph
        ddp = compiled(DistributedDataParallel(model), device, fullgraph=False)
    return two_steps(lambda x, target: criterion(ddp(x), target), model, *shard(rank, world, device))


def everything(rank: int, world: int, kind: str) -> dict[str, Gradients]:
    """Every case in one set of processes: starting them costs more than the steps."""
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    found = {name: by_ddp(rank, world, device, options) for name, options in DDP.items()}
    found |= {name: by_fsdp(rank, world, device, dtype) for name, dtype in FSDP2.items()}
    return found | {name: by_compiled_ddp(rank, world, device, name) for name in COMPILED}


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two processes"])
def ranks(request: pytest.FixtureRequest, device: torch.device) -> list[dict[str, Gradients]]:
    if device.type == "cuda" and torch.cuda.device_count() < request.param:
        pytest.skip(f"needs {request.param} GPUs, one a process; there is {torch.cuda.device_count()}")
    backend = "nccl" if device.type == "cuda" else "gloo"
    return run(everything, device.type, world=request.param, backend=backend)


@pytest.mark.parametrize("case", [*DDP, *FSDP2, *COMPILED])
def test_gradients_are_the_mean_of_the_shards(
    case: str, ranks: list[dict[str, Gradients]], device: torch.device
) -> None:
    model, world = model_on(device), len(ranks)
    for rank in range(world):
        x, target = shard(rank, world, device)
        (criterion(model(x), target) / world).backward()
    want = {name: g.cpu() for name, g in gradients(model).items() if g is not None}
    for found in ranks:
        assert_same_gradients(found[case], want, rtol=0.1 if case == "bfloat16" else 1e-4)
