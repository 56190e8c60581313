"""Sound models are proved, each by an oracle that fits it, and are left as they were."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import nn

from cycledistill import StackError, Verification, unwrap_cyclic, verify, wrap_cyclic, wrap_hourglass, wrap_pruning
from tests import toys
from tests.hourglass.models import FrameModel, JointModel, TupleModel, build, poses
from tests.oracle import snapshot
from tests.prune.oracle import images, vit
from tests.verification.results import row

Check = Callable[..., Verification]
LISTED, BY_HAND = "its blocks listed N times", "its blocks called by hand"


def tokens() -> torch.Tensor:
    return torch.randn(3, 7, toys.FEATURES)


def cycled(model: nn.Module, cycles: int = 2, blocks: str = "blocks") -> nn.Module:
    return wrap_cyclic(model, cycles, None, blocks=blocks)


@pytest.mark.parametrize(
    ("model", "oracle"),
    [
        (toys.ToyViT, LISTED),
        (toys.TwoStateViT, LISTED),
        (toys.DictViT, LISTED),
        (toys.PairViT, LISTED),
        (toys.TapViT, BY_HAND),  # reads every block: with more of them its head does not fit
    ],
)
def test_each_kind_of_model_has_its_oracle(check: Check, model: type[nn.Module], oracle: str) -> None:
    result = check(cycled(model(), 3), tokens())
    assert result.ok, result
    found = {each.oracle for each in result.rows if "exit" in each.claim or each.claim.startswith("training")}
    assert found == {oracle}


def test_a_plain_model_is_proved_on_a_copy(check: Check) -> None:
    model = toys.ToyViT()
    before = snapshot(model)
    result = check(model, tokens())
    assert result.ok, result
    assert snapshot(model) == before
    assert "Cyclic(blocks x3, cycles=2, exit=1)" in str(result)


def test_a_part_of_a_stack_and_a_single_module(check: Check) -> None:
    assert check(cycled(toys.ToyViT(5), 3, "blocks[1:4]"), tokens()).ok
    model = nn.Sequential(nn.Linear(toys.FEATURES, toys.DIM), toys.Block(), nn.Linear(toys.DIM, 3))
    whole = cycled(nn.Sequential(model), 2, "0.1")
    result = check(whole, tokens())
    assert result.ok and row(result, "exit 2").oracle == BY_HAND, result


def test_dropout_is_off_meanwhile(check: Check) -> None:
    assert check(cycled(toys.ToyViT(drop=0.3)), tokens()).ok


@pytest.mark.slow
@pytest.mark.parametrize("keep", [0.6, 1.0])
def test_pruned_models(check: Check, keep: float) -> None:
    result = check(wrap_pruning(vit(depth=3), (1, 2), keep), images())
    assert result.ok, result
    result = check(wrap_cyclic(wrap_pruning(vit(depth=3), (1, 2), keep), 3), images())
    assert result.ok, result
    assert ("pruning keeps the most attended" in str(result)) == (keep < 1)


@pytest.mark.parametrize("kind", [FrameModel, JointModel, TupleModel])
@pytest.mark.parametrize("recover", [True, "local", "linear", "nearest", False])
def test_hourglasses(check: Check, kind: type[nn.Module], recover: Any) -> None:
    result = check(wrap_hourglass(build(kind), layer=2, keep=5, recover=recover), poses())
    assert result.ok, result
    assert row(result, "counts frames").detail == "5 of 12 frames kept"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FrameModel, JointModel, TupleModel])
def test_hourglasses_with_cycles(check: Check, kind: type[nn.Module]) -> None:
    model = wrap_cyclic(wrap_hourglass(build(kind), layer=(1, 3), keep=(8, 5), recover="linear"), 2)
    result = check(model, poses())
    assert result.ok, result


@pytest.mark.slow
def test_batch_norm_in_the_blocks_and_a_guessed_input(check: Check) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("xcit_nano_12_p16_224", img_size=32, depth=2, num_classes=4)
    result = check(cycled(model))
    assert result.ok and row(result, "BatchNorm").result == "ok", result
    unwrap_cyclic(model)
    result = check(wrap_cyclic(model, batch_norm="update"))
    assert result.ok and row(result, "BatchNorm").result == "not checked", result


@pytest.mark.slow
@pytest.mark.parametrize("given", ["plain", "compiled"])
def test_the_compiled_model_agrees(given: str) -> None:
    model = cycled(toys.ToyViT(2))
    result = verify(torch.compile(model, backend="eager") if given == "compiled" else model, tokens())
    assert result.ok and row(result, "compiled").result == "ok", result


@pytest.mark.slow
def test_the_model_is_left_as_it_was(check: Check) -> None:
    model: Any = wrap_cyclic(wrap_pruning(vit(depth=3), (1, 2), 0.6), 3)
    model.train()
    model.blocks[1].eval()
    model.cyclic.exit = 2
    model.seen = []
    model.blocks[0].register_forward_hook(lambda *_: None)
    images_ = images()
    model(images_).outputs[0].sum().backward()
    gradients = {name: each.grad for name, each in model.named_parameters()}
    before, state = snapshot(model), {name: each.clone() for name, each in model.state_dict().items()}
    modes, index = [each.training for each in model.modules()], model.pruning.index
    draws = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].copy()
    assert check(model, images_).ok
    assert snapshot(model) == before
    assert all(torch.equal(state[name], each) for name, each in model.state_dict().items())
    assert all(each.grad is gradients[name] for name, each in model.named_parameters())
    assert [each.training for each in model.modules()] == modes
    assert model.pruning.index is index and model.pruning.keep == 0.6
    assert (model.cyclic.exit, model.cyclic.cycles) == (2, 3)
    assert torch.equal(torch.get_rng_state(), draws[0]) and random.getstate() == draws[1]
    assert (numpy.random.get_state()[1] == draws[2]).all()


def test_what_is_no_candidate_is_refused() -> None:
    with pytest.raises(StackError, match="verify takes a torch.nn.Module, and was given a int"):
        verify(3)  # type: ignore[arg-type]
    with pytest.raises(StackError, match=r"is on the meta device, without weights: build it on a device"):
        verify(toys.ToyViT().to("meta"), tokens())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        scripted = torch.jit.script(toys.ScriptableViT())
    with pytest.raises(StackError, match=r"is scripted or traced: verify the Python model behind it"):
        verify(scripted, tokens())
    with pytest.raises(StackError, match=r"this is a DataParallel: verify the model inside, verify\(model.module\)"):
        verify(nn.DataParallel(toys.ToyViT()), tokens())
    with pytest.raises(ValueError, match=r"no inputs were given, and ToyViT declares no size that runs; tried: none"):
        verify(cycled(toys.ToyViT()))
    with pytest.raises(StackError, match="has no stack"):
        verify(nn.Sequential(nn.Linear(3, 3)), torch.randn(2, 3))


class TwoTowers(nn.Module):
    """Runs one tower or the other, as the call asks."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = toys.ToyViT(), toys.ToyViT()

    def forward(self, x: torch.Tensor, second: bool = False) -> torch.Tensor:
        return self.two(x) if second else self.one(x)


@pytest.mark.slow
def test_a_tower_that_these_inputs_do_not_reach_is_not_proved(check: Check) -> None:
    model = cycled(TwoTowers(), 2, "two.blocks")
    result = check(model, tokens())
    assert not result.ok
    assert "no block of the stack runs with these inputs" in row(result, "exit 2").detail
    assert check(model, {"x": tokens(), "second": True}).ok


def test_a_wrapped_model_inside_another_is_found(check: Check) -> None:
    model = TwoTowers()
    cycled(model.one)
    result = check(model, tokens())
    assert result.ok and row(result, "exit 2").claim == "one: eval at exit 2", result


class Idle(toys.Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu()


def test_a_cycle_that_changes_nothing_proves_nothing(check: Check) -> None:
    result = check(cycled(toys.ToyViT(block=Idle)), tokens())
    assert not result.ok
    assert "cycle 2 changes nothing in this model's output" in row(result, "exit 2").detail


class Random(toys.ToyViT):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + torch.rand(1, generator=self.draws)


def test_a_model_that_answers_at_random_is_not_judged(check: Check) -> None:
    model = Random()
    model.draws = torch.Generator()
    result = check(cycled(model), tokens())
    assert not result.ok and not result.failed
    assert "the plain model itself gives two answers" in row(result, "eval at one cycle").detail
