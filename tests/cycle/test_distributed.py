"""Two gloo processes: gradients are the mean over the shards of the batch, however the model is distributed."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.checkpoint import checkpoint

from cycledistill import CycleLoss, CycleOutput, Distill, StackError, unwrap_cyclic, wrap_cyclic
from tests import toys
from tests.cycle.test_equality import task
from tests.oracle import assert_same, assert_same_gradients, gradients
from tests.spawn import run

SCHEME = Distill(token_weight=0.1, output_weight=0.1)
Gradients = dict[str, Tensor | None]


class Checkpointed(toys.ToyViT):
    def forward_features(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return self.norm(x)


class Idle(toys.ToyViT):
    """Holds a parameter that its forward does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1))


CLASSES = {"toy": toys.ToyViT, "checkpointed": Checkpointed, "idle": Idle, "pair": toys.PairViT}


def shard(rank: int, world: int) -> tuple[Tensor, Tensor]:
    x, target = toys.batch(size=4 * world)
    return x[4 * rank : 4 * rank + 4], target[4 * rank : 4 * rank + 4]


def mean_of_shards(model: nn.Module, world: int = 2) -> Gradients:
    """The gradients one process gets for each shard, averaged: what DDP promises."""
    each = []
    for rank in range(world):
        twin = copy.deepcopy(model)
        x, target = shard(rank, world)
        CycleLoss(task)(twin(x), target).backward()
        each.append(gradients(twin))
    return {name: None if g is None else sum(other[name] for other in each) / world for name, g in each[0].items()}


def ddp_step(rank: int, world: int, name: str, options: dict[str, Any], order: str, cycles: int, scheme: Any) -> Any:
    model = toys.make(CLASSES[name])
    if order == "wrap first":
        wrap_cyclic(model, cycles, distill=scheme)
    ddp = DDP(model, **options)
    if order == "wrap after":
        wrap_cyclic(model, cycles, distill=scheme)
    steps = []
    for _ in range(2):
        ddp.zero_grad()
        x, target = shard(rank, world)
        out = ddp(x)
        assert isinstance(out, CycleOutput) and len(out) == cycles
        CycleLoss(task)(out, target).backward()
        steps.append(gradients(model))
    return steps


DDP_CASES = {
    "plain": ("toy", {}, "wrap first", 2),
    "plain, wrapped after": ("toy", {}, "wrap after", 2),
    "three cycles, static graph": ("toy", {"static_graph": True}, "wrap first", 3),
    "find unused": ("idle", {"find_unused_parameters": True}, "wrap first", 2),
    "find unused, nothing idle": ("toy", {"find_unused_parameters": True}, "wrap first", 3),
    "tuple outputs": ("pair", {"find_unused_parameters": True}, "wrap first", 2),
    "checkpointed": ("checkpointed", {"find_unused_parameters": True}, "wrap first", 2),
    "checkpointed, static graph": ("checkpointed", {"static_graph": True}, "wrap first", 2),
}


UNUSED = {"idle": {"mask_token"}, "checkpointed": {"cls_token"}}  # by the model's own forward


def all_ddp_steps(rank: int, world: int) -> dict[str, Any]:
    """Every case in one pair of processes: starting them costs more than the steps."""
    return {case: ddp_step(rank, world, *values, SCHEME) for case, values in DDP_CASES.items()}


@pytest.fixture(scope="module")
def ddp_steps() -> list[dict[str, Any]]:
    return run(all_ddp_steps)


@pytest.mark.slow
@pytest.mark.parametrize("case", DDP_CASES)
def test_ddp_gradients_are_the_mean_of_the_shards(case: str, ddp_steps: list[dict[str, Any]]) -> None:
    name, _, _, cycles = DDP_CASES[case]
    want = mean_of_shards(wrap_cyclic(toys.make(CLASSES[name]), cycles, distill=SCHEME))
    for steps in (rank[case] for rank in ddp_steps):
        for got in steps:
            unused = {n: want[n] for n in UNUSED.get(name, ())}
            assert all(g is None for g in unused.values())
            assert_same_gradients({**got, **unused}, want, rtol=1e-12)


def unused_head(rank: int, world: int) -> None:
    """Only tokens count, so the head has no gradient: DDP told to find unused parameters goes on."""
    model = wrap_cyclic(toys.make(), 2, distill=Distill(token_weight=1.0))
    ddp = DDP(model, find_unused_parameters=True)
    for _ in range(2):
        out = ddp(shard(rank, world)[0])
        sum(out.losses.values()).backward()
        assert model.blocks[0].norm1.weight.grad is not None


def wrapping_the_ddp_object(rank: int, world: int) -> None:
    ddp = DDP(toys.make())
    with pytest.raises(StackError, match="DistributedDataParallel") as caught:
        wrap_cyclic(ddp, 2)
    assert ".module" in str(caught.value) or "first" in str(caught.value)
    wrap_cyclic(ddp.module, 2)
    assert len(ddp(shard(rank, world)[0])) == 2
    unwrap_cyclic(ddp.module)
    assert isinstance(ddp(shard(rank, world)[0]), Tensor)


def compiled_ddp(rank: int, world: int, order: str) -> Gradients:
    model = wrap_cyclic(toys.make(depth=2), 2, distill=SCHEME)
    if order == "compile inside":
        ddp: Any = DDP(torch.compile(model, backend="aot_eager", fullgraph=True))
    else:
        ddp = torch.compile(DDP(model), backend="eager")
    x, target = shard(rank, world)
    CycleLoss(task)(ddp(x), target).backward()
    return gradients(model)


def both_orders(rank: int, world: int) -> list[Gradients]:
    return [compiled_ddp(rank, world, order) for order in ("compile inside", "compile outside")]


@pytest.mark.slow
def test_ddp_and_compile() -> None:
    want = mean_of_shards(wrap_cyclic(toys.make(depth=2), 2, distill=SCHEME))
    for got in [each for rank in run(both_orders) for each in rank]:
        assert_same_gradients(got, want, rtol=1e-12)


def fsdp_step(rank: int, world: int, order: str, granularity: str, cycles: int) -> dict[str, Any]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (world,))
    model = toys.make().float()
    keys = list(model.state_dict())
    if order == "wrap, shard":
        wrap_cyclic(model, cycles, distill=SCHEME)
    if granularity == "blocks":
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    if order == "shard, wrap":
        wrap_cyclic(model, cycles, distill=SCHEME)
    assert list(model.state_dict()) == keys
    x, target = shard(rank, world)
    outputs = []
    for _ in range(2):
        model.zero_grad()
        out = model(x.float())
        assert isinstance(out, CycleOutput)
        CycleLoss(task)(out, target).backward()
        outputs = [y.detach() for y in out.outputs]
    full = {n: p.grad.full_tensor() for n, p in model.named_parameters() if p.grad is not None}
    model.eval().cyclic.exit = 2
    with torch.no_grad():
        late = model(x.float())
    refused = ""
    if order == "wrap, shard":
        try:
            unwrap_cyclic(model)
        except StackError as error:
            refused = str(error)
    return {"gradients": full, "outputs": outputs, "late": late, "refused": refused}


FSDP_CASES = [
    ("wrap, shard", "blocks", 2),
    ("shard, wrap", "blocks", 2),
    ("wrap, shard", "model", 3),
    ("shard, wrap", "model", 2),
]


def all_fsdp_steps(rank: int, world: int) -> dict[Any, Any]:
    return {case: fsdp_step(rank, world, *case) for case in FSDP_CASES}


@pytest.fixture(scope="module")
def fsdp_steps() -> list[dict[Any, Any]]:
    return run(all_fsdp_steps)


@pytest.mark.slow
@pytest.mark.parametrize("case", FSDP_CASES, ids=str)
def test_fsdp2_equals_the_model_in_one_process(case: tuple[str, str, int], fsdp_steps: list[dict[Any, Any]]) -> None:
    order, _, cycles = case
    model = wrap_cyclic(toys.make().float(), cycles, distill=SCHEME)
    each = []
    for rank in range(2):
        twin = copy.deepcopy(model)
        x, target = shard(rank, 2)
        out = twin(x.float())
        CycleLoss(task)(out, target).backward()
        each.append((gradients(twin), [y.detach() for y in out.outputs]))
    want = {n: (g + each[1][0][n]) / 2 for n, g in each[0][0].items()}
    for rank, result in enumerate(steps[case] for steps in fsdp_steps):
        assert_same_gradients(result["gradients"], want, rtol=1e-5)
        assert_same(result["outputs"], each[rank][1], rtol=1e-5)
        assert_same(result["late"], each[rank][1][1], rtol=1e-5)
        if order == "wrap, shard":
            assert "FSDP" in result["refused"], "unwrapping under FSDP2's own class swap must be refused"


def changing_schedule(rank: int, world: int) -> list[float]:
    """Cycles and weights change between steps, the same on each rank, under find_unused_parameters."""
    model = wrap_cyclic(toys.make(), 2, distill=SCHEME)
    ddp = DDP(model, find_unused_parameters=True)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
    for step, cycles in enumerate((2, 1, 3)):
        model.cyclic.cycles = cycles
        model.cyclic.distill = dataclasses.replace(SCHEME, token_weight=0.1 * step)
        optimizer.zero_grad()
        x, target = shard(rank, world)
        CycleLoss(task)(ddp(x), target).backward()
        optimizer.step()
    return [float(p.detach().double().sum()) for p in model.parameters()]


def several(rank: int, world: int) -> list[float]:
    unused_head(rank, world)
    wrapping_the_ddp_object(rank, world)
    return changing_schedule(rank, world)


@pytest.mark.slow
def test_unused_head_refused_ddp_object_and_changing_schedule() -> None:
    """Each function above asserts what it says; the schedule must leave the ranks equal."""
    first, second = run(several)
    assert first == second


class WithLoss(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.criterion = model, CycleLoss(task)

    def forward(self, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        return self.criterion.parts(self.model(x), target)


def token_shares(rank: int, world: int, inside: bool, unused: bool) -> list[Any]:
    """Mean of the task loss and token term of three steps, and a gradient."""
    model = wrap_cyclic(toys.make(depth=2), 2, distill=Distill(token_weight="auto", token_fraction=0.1))
    whole = WithLoss(model)
    ddp = DDP(whole if inside else model, find_unused_parameters=unused)
    found: list[Any] = []
    for step in range(3):
        x, target = shard(rank, world)
        x = x * (1 + step)
        parts = ddp(x, target) if inside else whole.criterion.parts(ddp(x), target)
        found.append([float(each.detach()) for each in (whole.criterion.task_mean, parts["token_all"])])
    sum(parts.values()).backward()
    return [found, model.head.weight.grad]


@pytest.mark.slow
@pytest.mark.parametrize(("inside", "unused"), [(True, False), (False, True)])
def test_each_process_has_its_own_mean_of_the_task_loss_unless_ddp_hands_out_the_first_ones(
    inside: bool, unused: bool
) -> None:
    """By hand: the mean before a step is the first process's, or its own; then the step's task loss is taken in."""
    results = run(token_shares, inside, unused)
    twin = wrap_cyclic(toys.make(depth=2), 2, distill=None)
    means = [0.0, 0.0]
    for step in range(3):
        before = [means[0]] * 2 if inside else [*means]
        for rank in range(2):
            x, target = shard(rank, 2)
            loss = float(CycleLoss(task)(twin(x * (1 + step)), target).detach())
            means[rank] = before[rank] + (loss - before[rank]) / (step + 1)
        for (found, _), mean in zip(results, means, strict=True):
            assert found[step] == pytest.approx([mean, 0.1 * mean], rel=1e-5)
    assert means[0] != pytest.approx(means[1], rel=1e-3)
    assert torch.equal(results[0][1], results[1][1])


def failing(rank: int, world: int) -> None:
    if rank == 1:
        raise ValueError("only here")


@pytest.mark.slow
def test_the_harness_raises_a_rank_s_own_error() -> None:
    with pytest.raises(AssertionError, match=r"(?s)rank 1:.*ValueError: only here"):
        run(failing)
