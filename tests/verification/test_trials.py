"""Trials act on nothing outside, for their copies carry no hooks; without that mend verify says so."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

pytest.importorskip("timm")

from cycledistill import verify, wrap_cyclic, wrap_hourglass, wrap_pruning
from cycledistill.verification.table import NotChecked
from tests.hourglass.models import FrameModel, build, poses
from tests.prune.oracle import images, vit
from tests.verification.mends import Check, Patch, both
from tests.verification.results import failed, row


@pytest.fixture
def no_compiler(monkeypatch: Patch) -> None:
    """Without the row that takes most of the time."""

    def leave(*_: Any) -> Any:
        raise NotChecked("not in this test", optional=True)

    monkeypatch.setattr("cycledistill.verification.claims.check_compiled", leave)


def let_copies_carry_hooks(monkeypatch: Patch) -> None:
    monkeypatch.setattr("cycledistill.stack.copies.hook_tables", lambda module: ())
    monkeypatch.setattr("cycledistill.stack.copies.clear_hooks", lambda module: None)


def let_copies_carry_backward_hooks(monkeypatch: Patch) -> None:
    def forward_alone(module: nn.Module) -> None:
        for name in ("_forward_hooks", "_forward_pre_hooks"):
            vars(module)[name] = type(vars(module)[name])()

    monkeypatch.setattr("cycledistill.stack.copies.hook_tables", lambda module: ())
    monkeypatch.setattr("cycledistill.stack.copies.clear_hooks", forward_alone)


def let_trials_run_hooks_on_all_modules(monkeypatch: Patch) -> None:
    monkeypatch.setattr("cycledistill.stack.copies.without_global_hooks", nullcontext)


WRAPPED: dict[str, tuple[Callable[[], Any], Callable[[], Tensor]]] = {
    "cyclic": (lambda: wrap_cyclic(vit(depth=2), distill=None), images),
    "pruning": (lambda: wrap_pruning(vit(depth=2), (1,), 0.6), images),
    "hourglass": (lambda: wrap_hourglass(build(FrameModel), layer=2, keep=5), poses),
}
"""The last declares no size: its trial runs what verify was given."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize(
    ("take_out", "words"),
    [
        (None, ""),
        (let_copies_carry_hooks, "wrapping runs the model's hooks"),
        (let_copies_carry_backward_hooks, "hooks on its modules make wrap_cyclic refuse this model"),
        (let_trials_run_hooks_on_all_modules, "first on all modules"),
    ],
    ids=["mended", "hooks", "backward hooks", "hooks on all modules"],
)
@pytest.mark.usefixtures("no_compiler")
def test_trials_run_no_hook(monkeypatch: Patch, kind: str, take_out: Any, words: str) -> None:
    make, given = WRAPPED[kind]
    model = make()
    if take_out is not None:
        take_out(monkeypatch)
    found = row(verify(model, given()), "wrapping runs no hook")
    if take_out is let_copies_carry_backward_hooks and kind != "cyclic":
        return  # a trial of a verb that looks at shapes alone
    assert found.result == ("ok" if take_out is None else "FAILED") and words in found.detail, found


@both
@pytest.mark.slow
@pytest.mark.parametrize("where", ["a block", "all modules"])
def test_a_running_maximum_sees_no_trial(check: Check, monkeypatch: Patch, mended: bool, where: str) -> None:
    if not mended:
        let_copies_carry_hooks(monkeypatch)
        let_trials_run_hooks_on_all_modules(monkeypatch)
    model, seen = vit(depth=2), {"maximum": torch.zeros((), dtype=torch.float64)}

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            seen["maximum"] = torch.maximum(seen["maximum"], output.detach().max())

    register = model.blocks[1].register_forward_hook if where == "a block" else register_module_forward_hook
    handle = register(keep)
    try:
        result = check(wrap_cyclic(model, distill=None), images())
    finally:
        handle.remove()
    claim = "hooks hold no tensor of a trial"
    assert (claim in failed(result)) is not mended, result
    assert result.ok is mended, result
    assert seen["maximum"].is_meta is not mended
    assert mended or "a hook on " + where.replace("a block", "blocks.1") in row(result, claim).detail
