"""Pruning and cycles on one model: cycle 1 prunes, later cycles run whole on the kept tokens."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("timm")

from timm.layers import set_reentrant_ckpt

from cycledistill import CycleLoss, CycleOutput, StackError, unwrap_cyclic, unwrap_pruning, wrap_cyclic, wrap_pruning
from cycledistill.cost.report import cost
from tests.prune.oracle import drop_after_whole_layers, embed, finish, images, vit

ORDERS = ("prune, cycle", "cycle, prune")


def wrap(model: nn.Module, order: str, cycles: int = 3, keep: float = 0.5) -> Any:
    for step in order.split(", "):
        if step == "prune":
            wrap_pruning(model, (1, 2), keep)
        else:
            wrap_cyclic(model, cycles, "sdpose")
    return model


def by_hand(plain: Any, x: Tensor, cycles: int = 3, keep: float = 0.5) -> tuple[list[Tensor], list[Tensor]]:
    """Tokens and outputs of every cycle."""
    state, _ = drop_after_whole_layers(plain.blocks, embed(plain, x), (1, 2), keep, slice(0, 1), 1)
    tokens = [state]
    for _ in range(cycles - 1):
        for block in plain.blocks:
            state = block(state)
        tokens.append(state)
    return tokens, [finish(plain, each) for each in tokens]


def step(model: nn.Module, *outputs: CycleOutput) -> dict[str, Tensor]:
    model.zero_grad()
    target = torch.tensor([0, 1, 2])
    sum(CycleLoss(nn.CrossEntropyLoss())(output, target) for output in outputs).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("order", ORDERS)
def test_every_cycle_and_its_gradients(order: str) -> None:
    plain, x = vit().train(), images()
    model = wrap(copy.deepcopy(plain), order)
    out = model(x)
    tokens, outputs = by_hand(plain, x)
    assert [each.shape for each in out.tokens] == [(3, 5, 24)] * 3
    for got, want in zip((*out.tokens, *out.outputs), (*tokens, *outputs), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert set(out.losses) == {"token_prefix", "token_patch"}
    got = step(model, out)
    task = sum(nn.functional.cross_entropy(each, torch.tensor([0, 1, 2])) for each in outputs)
    pairs = list(pairwise(tokens))
    mse = nn.functional.mse_loss
    distillation = sum(mse(a[:, :1], b[:, :1]) + mse(a[:, 1:], b[:, 1:]) for a, b in pairs)
    plain.zero_grad()
    (task + 5e-6 * distillation).backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(got[name], parameter.grad, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("order", ORDERS)
def test_any_time_exits(order: str) -> None:
    plain, x = vit(), images()
    model = wrap(copy.deepcopy(plain), order).eval()
    _, outputs = by_hand(plain, x)
    for number, want in enumerate(outputs, start=1):
        model.cyclic.exit = number
        with torch.no_grad():
            torch.testing.assert_close(model(x), want, rtol=1e-12, atol=1e-12)
        assert model.pruning.index.shape == (3, 4)


@pytest.mark.parametrize("order", ORDERS)
def test_one_cycle_is_the_pruned_model_and_keep_one_the_cyclic_model(order: str) -> None:
    plain, x = vit().train(), images()
    model = wrap(copy.deepcopy(plain), order, cycles=1)
    assert torch.equal(model(x)[0], wrap_pruning(copy.deepcopy(plain), (1, 2), 0.5)(x))
    model.cyclic.cycles, model.pruning.keep = 2, 1.0
    want, got = wrap_cyclic(copy.deepcopy(plain), 2)(x), model(x)
    assert all(
        torch.equal(a, b) for a, b in zip((*got.outputs, *got.tokens), (*want.outputs, *want.tokens), strict=True)
    )
    assert model.pruning.index is None


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("first", ["pruning", "cyclic"])
def test_unwrapping_in_any_order(order: str, first: str) -> None:
    plain, x = vit(), images()
    model = wrap(copy.deepcopy(plain), order)
    keys = list(plain.state_dict())
    assert list(model.state_dict()) == keys
    if first == "pruning":
        unwrap_pruning(model)
        cyclic = wrap_cyclic(copy.deepcopy(plain), 3)
        assert torch.equal(model.train()(x)[2], cyclic.train()(x)[2])
        unwrap_cyclic(model)
    else:
        unwrap_cyclic(model)
        assert torch.equal(model.eval()(x), wrap_pruning(copy.deepcopy(plain), (1, 2), 0.5)(x))
        unwrap_pruning(model)
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    assert torch.equal(model.eval()(x), plain(x))


@pytest.mark.parametrize("order", ORDERS)
def test_checkpointing_is_exact_also_after_two_forwards(order: str) -> None:
    set_reentrant_ckpt(False)
    model, first, second = wrap(vit(), order).train(), images(), images()
    results = []
    for saves in (False, True):
        model.set_grad_checkpointing(saves)
        results.append(step(model, model(first), model(second)))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


@pytest.mark.parametrize("order", ORDERS)
def test_copies_keep_both(order: str) -> None:
    model, x = wrap(vit(), order).train(), images()
    want = model(x)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(x)[2], want[2])
        copied.pruning.keep, copied.cyclic.cycles = 1.0, 1
        assert copied(x).tokens[0].shape == (3, 17, 24)
    assert torch.equal(model(x)[2], want[2])


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.usefixtures("cuda_in_use")
def test_compiles_whole(order: str) -> None:
    model, x = wrap(vit(depth=3), order, cycles=2).train(), images()
    eager = copy.deepcopy(model)
    fast = torch.compile(model, backend="eager", fullgraph=True)
    got, want = step(model, fast(x)), step(eager, eager(x))
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-10, atol=1e-12, msg=name)
    assert torch.equal(model.pruning.index, eager.pruning.index)
    model.eval()
    eager.eval()
    model.cyclic.exit = eager.cyclic.exit = 2
    torch.testing.assert_close(fast(x), eager(x), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_costs_are_counted() -> None:
    model = wrap_pruning(vit(qk_norm=True), (1, 2), 0.5)
    report = cost(model, images(1), 2)
    width, entering, leaving = 24, (17, 17, 9, 5), (17, 9, 5, 5)  # tokens of each block's attention and MLP
    attention = sum(2 * n * n * width for n in entering)
    weights = sum(4 * n * width**2 + 8 * m * width**2 for n, m in zip(entering, leaving, strict=True))
    scores = (17 + 9) * width  # one query row in the two pruning blocks
    assert report.one_pass == (attention + weights + scores, attention + scores)
    again = 4 * (2 * 25 * width + 12 * 5 * width**2)
    assert report.exits[1].total - report.exits[0].total == again


def test_groups_are_those_of_the_whole_state_when_no_probe_could_tell() -> None:
    model = vit().train()
    model.patch_embed.img_size = None  # no input can be guessed from it
    del model.num_classes
    model = wrap(model, "prune, cycle", cycles=2)
    assert set(model(images()).losses) == {"token_prefix", "token_patch"}


def test_cycling_a_part_that_is_not_pruned_as_a_whole_is_refused() -> None:
    model = wrap_pruning(vit(), (1,), 0.5, blocks="blocks[1:4]").train()
    wrap_cyclic(model, 2, blocks="blocks")
    with pytest.raises(StackError, match="equal shapes"):
        model(images())
