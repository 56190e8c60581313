"""What verify must find: faults made by hand on wrapped models; `mends` takes those mends out that are the library's.

Most of these models are refused by the library itself today. A refusal is a failed row too: the model does not do what
it was wrapped for. Where a guard is taken out, the model runs and is wrong, and its numbers tell.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cycledistill import Verification, verify, wrap_cyclic, wrap_hourglass, wrap_pruning
from cycledistill.cycle import call as cycle_call
from cycledistill.cycle.handle import Cyclic
from cycledistill.cycle.recording import Recording
from cycledistill.prune import parts as prune_parts
from cycledistill.verification import watched
from cycledistill.verification.table import NotChecked
from tests import toys
from tests.hourglass.models import FrameModel, build, poses
from tests.prune.oracle import images, vit
from tests.verification.results import failed, row

Check = Callable[..., Verification]


def tokens() -> Tensor:
    return torch.randn(3, 7, toys.FEATURES)


def cycled(model: nn.Module, cycles: int = 2, blocks: str = "blocks") -> Any:
    return wrap_cyclic(model, cycles, None, blocks=blocks)


# Blocks that are not those that were wrapped.


@pytest.mark.parametrize("edit", ["fewer", "others"])
def test_a_model_that_was_edited(check: Check, monkeypatch: pytest.MonkeyPatch, edit: str) -> None:
    monkeypatch.setattr(Cyclic, "check_unedited", lambda *_: None)
    model = cycled(toys.ToyViT(4))
    model.blocks = model.blocks[:3] if edit == "fewer" else nn.ModuleList(toys.Block() for _ in range(4))
    assert "blocks are those that were wrapped" in failed(check(model, tokens()))


def test_a_part_of_a_wrapped_model_has_no_handle(check: Check) -> None:
    model = nn.Sequential(toys.ToyViT())
    cycled(model, 2, "0.blocks")
    assert check(model, tokens()).ok
    result = check(model[0], tokens())  # as PEFT's unload() hands it out
    assert not result.ok and "it trains one cycle alone" in row(result, "handle").detail


# Cycles that are not the blocks again.


def test_a_cycle_that_is_left_out(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cycledistill.cycle.replay.Replay.run_cycle", lambda *_: None)
    found = failed(check(cycled(toys.ToyViT()), tokens()))
    assert {"eval at exit 2", "eval at exit 3", "training, outputs", "training, gradients"} <= found


def test_a_tail_that_is_detached(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    original = cycle_call.RecordedCall.run

    def detached(self: Any, *args: Any, **kwargs: Any) -> Any:
        return torch.utils._pytree.tree_map_only(Tensor, Tensor.detach, original(self, *args, **kwargs))

    monkeypatch.setattr(cycle_call.RecordedCall, "run", detached)
    assert failed(check(cycled(toys.ToyViT()), tokens())) == {"training, gradients"}


class Between(toys.ToyViT):
    """Adds a position in front of each block, where the library's chain of objects would break."""

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for number, block in enumerate(self.blocks):
            x = block(x) if number == 0 else block(x.add_(0.5))
        return self.norm(x)


def test_something_between_the_blocks(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cycledistill.cycle.guards.versions", lambda leaves: (), raising=False)
    monkeypatch.setattr("cycledistill.cycle.snapshot.versions", lambda leaves: (), raising=False)
    result = check(cycled(Between()), tokens())
    assert not result.ok


def test_statistics_of_later_cycles(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    model = cycled(toys.NormedViT())
    assert check(model, tokens()).ok
    monkeypatch.setattr(cycle_call.FrozenStatistics, "hold", lambda self: torch.enable_grad())
    assert failed(check(model, tokens())) == {"BatchNorm statistics of cycle 1"}


def test_another_eval(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    model = cycled(toys.ToyViT())
    monkeypatch.setattr(type(model), "forward", lambda self, x: toys.ToyViT.forward(self, x) * (1 + 1e-6))
    assert "eval at one cycle, to the bit" in failed(check(model, tokens()))


# What trains nothing.


class Reentrant(toys.ToyViT):
    """Checkpoints its blocks in the way that loses gradients where nothing before them asks for any."""

    def forward_features(self, x: Tensor) -> Tensor:
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), self.embed(x)], dim=1)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=True) if self.training else block(x)
        return self.norm(x)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
def test_blocks_that_get_no_gradients(check: Check) -> None:
    model = Reentrant()
    model.embed.requires_grad_(False)
    model.cls_token.requires_grad_(False)
    result = check(cycled(model), tokens())
    found = row(result, "what matters gets gradients")
    assert found.result == "FAILED"
    assert "refuses" in found.detail or "36 of 40 tensors that ask for gradients get none, as blocks.0" in found.detail


def test_weights_without_gradients_that_do_not_matter(check: Check) -> None:
    model = toys.ToyViT()
    model.unused = nn.Parameter(torch.randn(3))
    result = check(cycled(model), tokens())
    number = len(list(model.parameters()))
    assert result.ok and f"{number - 1} of {number} tensors get gradients, the others are unused" in str(result)


# Hooks.


class Maximum:
    """Keeps a running maximum, as quantisation's observers do."""

    def __init__(self) -> None:
        self.value = torch.zeros((), device="meta")

    def __call__(self, *_: Any) -> None:
        """See nothing more."""


@pytest.mark.parametrize("kind", ["object", "method", "closure", "partial", "default", "global"])
def test_a_hook_that_was_left_with_a_tensor_of_a_trial(check: Check, kind: str) -> None:
    held, model = Maximum(), cycled(toys.ToyViT())
    seen = [held.value]
    globals()["LEFT"] = {"a": held.value}
    hook: Any = {
        "object": lambda: held,
        "method": lambda: held.__call__,
        "closure": lambda: lambda *_: seen and None,
        "partial": lambda: functools.partial(lambda kept, *_: None, seen),
        "default": lambda: lambda module, args, output, kept=seen: None,
        "global": lambda: lambda *_: LEFT and None,  # type: ignore[name-defined]  # noqa: F821
    }[kind]()
    kinds = {"object": model.blocks[1].register_forward_pre_hook, "method": model.blocks[1].register_full_backward_hook}
    kinds.get(kind, model.blocks[1].register_forward_hook)(hook)
    result = check(model, tokens())
    assert failed(result) == {"hooks hold no tensor of a trial"}
    assert "a hook on blocks.1 holds a tensor without data" in str(result)


def test_a_trial_that_runs_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrap_with_a_trial(copied: Any, handle: Any) -> None:
        with torch.no_grad():
            copied(tokens())

    monkeypatch.setitem(watched._WRAPS, "cyclic", wrap_with_a_trial)
    monkeypatch.setattr("cycledistill.verification.claims.check_compiled", _leave)
    found = row(verify(cycled(toys.ToyViT()), tokens()), "wrapping runs no hook")
    assert found.result == "FAILED" and "wrapping runs the model's hooks" in found.detail


@pytest.mark.slow
def test_verify_shows_the_users_hooks_real_tensors_alone(check: Check) -> None:
    model, seen = vit(depth=2), []
    model.blocks[0].register_forward_hook(lambda module, args, output: seen.append(output))
    model.blocks[0].register_full_backward_hook(lambda module, given, got: None)
    assert check(model, images()).ok
    assert seen and not any(each.is_meta for each in seen)


def test_hooks_that_fire_too_often(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recording, "is_before_stack", lambda self: False)
    monkeypatch.setattr("cycledistill.cycle.replay.Replay.is_before_stack", lambda self: False)
    result = check(cycled(toys.ToyViT()), tokens())
    assert "a hook on embed fires 2 times, not 1" in row(result, "hooks fire").detail


# Pruning.


def test_scores_without_what_stands_around_qkv(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    original = prune_parts._choose

    def blind(state: Any, call: Any) -> Tensor:
        call.qkv = call.qkv.flip(-1)
        return original(state, call)

    monkeypatch.setattr(prune_parts, "_choose", blind)
    result = check(wrap_pruning(vit(depth=3), (1, 2), 0.6), images())
    assert failed(result) == {"pruning keeps the most attended", "pruned, eval at one cycle"}
    assert "3 of 3 samples keep other tokens than their attention says" in str(result)


# The hourglass.


def test_frames_that_are_not_those_it_names(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    from cycledistill.hourglass import frames

    monkeypatch.setattr(frames, "take_frames", lambda grid, local: grid[:, : local.shape[1]])
    result = check(wrap_hourglass(build(FrameModel), layer=2, keep=5, recover="linear"), poses())
    assert failed(result) == {"the hourglass counts frames", "hourglass, eval at one cycle"}


def _leave(*_: Any) -> Any:
    raise NotChecked("not in this test", optional=True)
