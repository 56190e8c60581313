"""What the guide to several processes says of DDP, over several steps: two gloo processes against a loop by hand."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as DDP

from cycledistill import CycleLoss, Distill, wrap_cyclic
from tests import toys
from tests.cycle.test_distributed import SCHEME, shard
from tests.cycle.test_equality import task
from tests.oracle import assert_differ, assert_same, assert_same_gradients, gradients, statistics
from tests.spawn import run

CYCLES = (2, 1, 3)  # of each step
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "static graph": {"static_graph": True},
    "find unused": {"find_unused_parameters": True},
}


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def train(model: Any, ddp: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    optimizer = sgd(model)
    for cycles, (x, target) in zip(CYCLES, batches, strict=True):
        model.cyclic.cycles = cycles
        optimizer.zero_grad()
        CycleLoss(task)(ddp(x), target).backward()
        optimizer.step()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def changing_cycles(rank: int, world: int) -> dict[str, dict[str, Tensor]]:
    result = {}
    for name, options in OPTIONS.items():
        model = wrap_cyclic(toys.make(), 2, distill=SCHEME)
        result[name] = train(model, DDP(model, **options), [shard(rank, world)] * len(CYCLES))
    return result


def normed() -> Any:
    return wrap_cyclic(toys.make(toys.NormedViT), 3, distill="exits", blocks="blocks")


def batch_norm(rank: int, world: int) -> list[dict[str, Tensor]]:
    """Parameters and running statistics after three steps."""
    model = normed()
    x, target = shard(rank, world)
    ddp, optimizer = DDP(model), sgd(model)
    for _ in range(3):
        optimizer.zero_grad()
        CycleLoss(task)(ddp(x), target).backward()
        optimizer.step()
    return [{name: p.detach() for name, p in model.named_parameters()}, statistics(model)]


def accumulated(rank: int, world: int) -> dict[str, Tensor | None]:
    """One optimizer step over two parts of this rank's shard."""
    model = wrap_cyclic(toys.make(), 2, distill=SCHEME)
    ddp = DDP(model)
    x, target = shard(rank, world)
    with ddp.no_sync():
        (CycleLoss(task)(ddp(x[:2]), target[:2]) / 2).backward()
    before = model.head.weight.grad.clone()
    (CycleLoss(task)(ddp(x[2:]), target[2:]) / 2).backward()
    return {**gradients(model), "before syncing": before}


def random_student(rank: int, world: int) -> dict[str, Tensor | None]:
    model = wrap_cyclic(toys.make(), 4, distill=Distill.preset("elt"))
    ddp = DDP(model)
    torch.manual_seed(5)
    x, target = shard(rank, world)
    CycleLoss(task)(ddp(x), target).backward()
    return gradients(model)


def idle_head(rank: int, world: int) -> str:
    """Token terms alone leave the head without gradients; without being told to look for such, DDP stops."""
    ddp = DDP(wrap_cyclic(toys.make(), 2, distill=Distill(token_weight=1.0)))
    try:
        for _ in range(2):
            sum(ddp(shard(rank, world)[0]).losses.values()).backward()
    except RuntimeError as error:
        return str(error)
    return ""


def everything(rank: int, world: int) -> dict[str, Any]:
    each = (changing_cycles, batch_norm, accumulated, random_student, idle_head)
    return {function.__name__: function(rank, world) for function in each}


pytestmark = pytest.mark.slow  # all look at what the same two processes did


@pytest.fixture(scope="module")
def ranks() -> list[dict[str, Any]]:
    return run(everything)


@pytest.mark.parametrize("options", OPTIONS)
def test_weights_are_those_of_one_process_when_cycles_change_between_steps(
    options: str, ranks: list[dict[str, Any]]
) -> None:
    model = wrap_cyclic(toys.make(), 2, distill=SCHEME)
    shards = [shard(rank, 2) for rank in range(2)]
    joined = torch.cat([x for x, _ in shards]), torch.cat([target for _, target in shards])
    want = train(model, model, [joined] * len(CYCLES))
    first, second = (rank["changing_cycles"][options] for rank in ranks)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert_same(first, want, rtol=1e-12)
    assert_differ(first, {name: p.detach() for name, p in toys.make().named_parameters()})


def test_batch_norm_normalises_by_shard_and_keeps_the_first_rank_s_statistics(ranks: list[dict[str, Any]]) -> None:
    twins = [normed() for _ in range(2)]
    optimizers = [sgd(twin) for twin in twins]
    for _ in range(3):
        start = copy.deepcopy(statistics(twins[0]))  # DDP hands the first rank's buffers round before each forward
        for rank, twin in enumerate(twins):
            twin.load_state_dict(start, strict=False)
            twin.zero_grad()
            x, target = shard(rank, 2)
            CycleLoss(task)(twin(x), target).backward()
        for mine, other in zip(*(twin.parameters() for twin in twins), strict=True):
            mine.grad = (mine.grad + other.grad) / 2
            other.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for rank, twin in enumerate(twins):
        parameters, buffers = ranks[rank]["batch_norm"]
        assert_same(parameters, {name: p.detach() for name, p in twin.named_parameters()}, rtol=1e-10)
        assert_same(buffers, statistics(twin), rtol=1e-10)
        assert {int(count) for name, count in buffers.items() if "num_batches" in name} == {3}, "cycle 1 alone counts"
    means = [{k: v for k, v in rank["batch_norm"][1].items() if "mean" in k} for rank in ranks]
    assert_differ(means[0], means[1])


def test_accumulation_without_syncing_is_the_mean_over_all_parts(ranks: list[dict[str, Any]]) -> None:
    model = wrap_cyclic(toys.make(), 2, distill=SCHEME)
    parts = [(x[half], target[half]) for x, target in (shard(rank, 2) for rank in range(2))
             for half in (slice(0, 2), slice(2, 4))]  # fmt: skip
    for x, target in parts:
        (CycleLoss(task)(model(x), target) / len(parts)).backward()
    first, second = ({**rank["accumulated"]} for rank in ranks)
    assert not torch.equal(first.pop("before syncing"), second.pop("before syncing"))
    for got in (first, second):
        assert_same_gradients(got, gradients(model), rtol=1e-12)


def test_processes_of_one_seed_draw_one_student(ranks: list[dict[str, Any]]) -> None:
    model = wrap_cyclic(toys.make(), 4, distill=Distill.preset("elt"))
    for rank in range(2):
        torch.manual_seed(5)
        x, target = shard(rank, 2)
        (CycleLoss(task)(model(x), target) / 2).backward()
    for rank in ranks:
        assert_same_gradients(rank["random_student"], gradients(model), rtol=1e-12)


def test_ddp_names_what_to_do_when_only_tokens_count(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert "find_unused_parameters=True" in rank["idle_head"]
