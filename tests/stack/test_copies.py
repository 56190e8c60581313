"""Trials of a model leave no trace outside: every kind of hook of PyTorch, on a module, a tensor, or all modules."""

from __future__ import annotations

import contextlib
import copy
import functools
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as all_modules

pytest.importorskip("timm")

from cycledistill import CycleOutput, wrap_cyclic, wrap_hourglass, wrap_pruning
from cycledistill.cost import cost
from cycledistill.cost.report import count_exits
from cycledistill.errors import StackError
from cycledistill.inputs import guess_call
from cycledistill.plugin.torch_private import hook_tables
from cycledistill.prune.checks import check_block
from cycledistill.stack import choose_stack, find_stacks
from cycledistill.stack.copies import bare_copy, meta_copy, plain_copy
from tests.oracle import assert_same_gradients, gradients
from tests.prune.oracle import images, vit


class Witness:
    """Counts what it is told; of it there is one, and a copy of it is a fault as well."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        self.seen += 1

    def __deepcopy__(self, memo: Any) -> Witness:
        self.seen += 1
        return self


MODULE_HOOKS: dict[str, Callable[[nn.Module, Witness], Any]] = {
    "register_forward_pre_hook": lambda m, w: m.register_forward_pre_hook(w),
    "register_forward_pre_hook with_kwargs": lambda m, w: m.register_forward_pre_hook(w, with_kwargs=True),
    "register_forward_hook": lambda m, w: m.register_forward_hook(w),
    "register_forward_hook with_kwargs": lambda m, w: m.register_forward_hook(w, with_kwargs=True),
    "register_forward_hook always_call": lambda m, w: m.register_forward_hook(w, always_call=True),
    "register_full_backward_hook": lambda m, w: m.register_full_backward_hook(w),
    "register_full_backward_pre_hook": lambda m, w: m.register_full_backward_pre_hook(w),
    "register_backward_hook": lambda m, w: m.register_backward_hook(w),
    "register_state_dict_pre_hook": lambda m, w: m.register_state_dict_pre_hook(w),
    "register_state_dict_post_hook": lambda m, w: m.register_state_dict_post_hook(w),
    "_register_state_dict_hook": lambda m, w: m._register_state_dict_hook(w),
    "register_load_state_dict_pre_hook": lambda m, w: m.register_load_state_dict_pre_hook(w),
    "_register_load_state_dict_pre_hook": lambda m, w: m._register_load_state_dict_pre_hook(w),
    "register_load_state_dict_post_hook": lambda m, w: m.register_load_state_dict_post_hook(w),
}
TENSOR_HOOKS: dict[str, Callable[[nn.Parameter, Witness], Any]] = {
    "register_hook": lambda p, w: p.register_hook(w),
    "register_post_accumulate_grad_hook": lambda p, w: p.register_post_accumulate_grad_hook(w),
}
GLOBAL_HOOKS = [name for name in vars(all_modules) if re.fullmatch(r"register_module_\w+_hook", name)]


IMAGE = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
ALONE = "register_backward_hook"
"""The kind that no other kind of backward hook may stand beside, on one module or on all."""


def _export_guess(model: nn.Module) -> None:
    guess_call(model, meta_copy(model))


def _check_one_block(model: nn.Module) -> None:
    given = ((torch.zeros(2, 17, 24, device="meta"),), {})
    check_block(choose_stack(model, "blocks"), 1, model.blocks[1], slice(0, 1), given)


TRIALS: dict[str, Callable[[nn.Module], Any]] = {
    "wrap_cyclic": wrap_cyclic,
    "wrap_pruning": lambda model: wrap_pruning(model, layers=(1,)),
    "wrap_hourglass": lambda model: wrap_hourglass(model, blocks="blocks", layer=1, keep=3, recover=False, frames=16),
    "cost": lambda model: cost(model, cycles=1),
    "cost of a wrapped model": lambda model: count_exits(wrap_cyclic(model), ((IMAGE,), {}), 1),
    "find_stacks": find_stacks,
    "a guess of inputs": _export_guess,
    "one block of pruning": _check_one_block,
}
each_trial = pytest.mark.parametrize("trial", TRIALS.values(), ids=TRIALS)


def add_hooks(model: nn.Module, kinds: set[str], witness: Witness) -> None:
    for module in list(model.modules()):
        for kind in kinds:
            with contextlib.suppress(RuntimeError):  # torch takes one function as one of two kinds at most
                MODULE_HOOKS[kind](module, witness)
                continue
            MODULE_HOOKS[kind](module, functools.partial(Witness.__call__, witness))


@pytest.fixture
def witness() -> Witness:
    return Witness()


@pytest.fixture
def on_all_modules(witness: Witness) -> Iterator[Witness]:
    """Every kind of hook on all modules, but for the one that excludes another."""
    handles = [getattr(all_modules, name)(witness) for name in GLOBAL_HOOKS if name != "register_module_backward_hook"]
    yield witness
    for handle in handles:
        handle.remove()


def test_the_tables_above_name_every_kind_of_hook() -> None:
    known = {name.split()[0] for name in MODULE_HOOKS}
    assert {name for name in dir(nn.Module) if name.strip("_").startswith("register") and "hook" in name} == known
    assert {name for name in dir(Tensor) if name.startswith("register") and "hook" in name} == set(TENSOR_HOOKS)
    model = nn.Linear(2, 2)
    add_hooks(model, set(MODULE_HOOKS) - {ALONE}, Witness())
    assert all(hook_tables(model)), "every table of a module is filled by one of them"


@each_trial
@pytest.mark.parametrize("kinds", [set(MODULE_HOOKS) - {ALONE}, {ALONE}], ids=["all but one", ALONE])
def test_no_hook_of_a_module_sees_a_trial(trial: Any, kinds: set[str], witness: Witness) -> None:
    model = vit(depth=2).train()
    add_hooks(model, kinds, witness)
    held = [[list(table) for table in hook_tables(module)] for module in model.modules()]
    trial(model)
    assert witness.seen == 0
    assert [[list(table) for table in hook_tables(module)] for module in model.modules()] == held


@pytest.mark.slow
def test_no_hook_sees_a_copy_that_is_timed(on_all_modules: Witness) -> None:
    model = vit(depth=2).train()
    add_hooks(model, set(MODULE_HOOKS) - {ALONE}, on_all_modules)
    on_all_modules.seen = 0
    cost(model, cycles=1, repeats=1)
    assert on_all_modules.seen == 0


@each_trial
def test_no_hook_of_a_tensor_sees_a_trial(trial: Any, witness: Witness) -> None:
    model = vit(depth=2).train()
    for parameter in model.parameters():
        for add in TENSOR_HOOKS.values():
            add(parameter, witness)
    trial(model)
    assert witness.seen == 0
    model.eval()(images()).sum().backward()
    assert witness.seen > 0, "they are still there"


@each_trial
def test_no_hook_on_all_modules_sees_a_trial(trial: Any, on_all_modules: Witness) -> None:
    model = vit(depth=2).train()
    on_all_modules.seen = 0  # making a model registers its parts
    trial(model)
    assert on_all_modules.seen == 0
    copy.deepcopy(model).eval()(images())
    assert on_all_modules.seen > 0, "they are still there"


@each_trial
def test_no_hook_on_saved_tensors_sees_a_trial(trial: Any) -> None:
    packed = []
    model = vit(depth=2).train()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: packed.append(x) or x, lambda x: x):
        trial(model)
    assert packed == []


@each_trial
def test_a_trial_draws_nothing_from_the_random_states(trial: Any) -> None:
    model = vit(depth=2, drop_path_rate=0.5).train()

    class Restless(type(model.norm)):
        def forward(self, x: Tensor) -> Tensor:
            random.random(), np.random.rand(), torch.rand(1)
            return super().forward(x)

    model.norm.__class__ = Restless

    def states() -> Any:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    trial(model)
    assert states() == before


@pytest.mark.parametrize("kind", ["register_full_backward_hook", "register_full_backward_pre_hook"])
@pytest.mark.parametrize("which", [0, 2, 3])
def test_a_full_backward_hook_on_a_block_takes_nothing_from_the_stack(kind: str, which: int, witness: Witness) -> None:
    """Such a hook gives the block other tensors than its neighbour made; the blocks are a chain all the same."""
    plain = vit().train()
    hooked = copy.deepcopy(plain)
    MODULE_HOOKS[kind](hooked.blocks[which], witness)
    x = images()
    got, expected = (wrap_cyclic(model)(x) for model in (hooked, plain))
    assert hooked.cyclic.stack.path == "blocks" and isinstance(got, CycleOutput)
    sum(output.sum() for output in got.outputs).backward()
    sum(output.sum() for output in expected.outputs).backward()
    assert_same_gradients(gradients(hooked), gradients(plain), rtol=1e-12)
    assert witness.seen == 2, "once a cycle"


def test_a_full_backward_hook_on_all_modules_takes_nothing_from_the_stack(on_all_modules: Witness) -> None:
    assert choose_stack(vit()).path == "blocks"


def test_classes_that_copy_themselves_carry_no_hook_either(witness: Witness) -> None:
    class OwnCopy(nn.Linear):
        def __deepcopy__(self, memo: Any) -> OwnCopy:
            made = OwnCopy(2, 2)
            vars(made).update(vars(self))
            return made

    model = nn.Sequential(OwnCopy(2, 2))
    model[0].register_forward_hook(witness)
    plain_copy(model)(torch.zeros(1, 2))
    assert witness.seen == 0
    model(torch.zeros(1, 2))
    assert witness.seen == 1


def _closure(block: nn.Module) -> Callable[..., Any]:
    forward = block.forward
    return lambda *args: forward(*args)


def _default(block: nn.Module) -> Callable[..., Any]:
    return lambda *args, block=block: type(block).forward(block, *args)


def _twice(block: nn.Module) -> Callable[..., Any]:
    once = _closure(block)
    return lambda *args: once(*args)


def _partial(block: nn.Module) -> Callable[..., Any]:
    once = functools.partial(_default(block))
    return lambda *args: once(*args)


@pytest.mark.parametrize("patched", [_closure, _default, _twice, _partial])
def test_a_forward_that_holds_the_original_is_not_copied(patched: Any) -> None:
    """Python copies no function: the copy's block would run the original, its hooks and its BatchNorm."""
    model = vit().train()
    seen: list[Any] = []
    model.blocks[1].norm1.register_forward_hook(lambda *_: seen.append(1))
    model.blocks[1].forward = patched(model.blocks[1])
    with pytest.raises(RuntimeError, match="the forward of a Block was replaced on the object.*a copy would run them"):
        plain_copy(model)
    assert bare_copy(model) is None
    out = wrap_cyclic(model, distill=None)
    assert seen == [] and out.cyclic.stack.shape is None
    assert len(model(images())) == 2 and len(seen) == 2


def test_a_method_of_its_own_in_place_of_a_forward_is_copied() -> None:
    model = vit()
    model.blocks[1].forward = model.blocks[1].forward
    assert bare_copy(model) is not None


def test_cost_says_that_a_copy_has_no_hooks() -> None:
    """As in MiDaS, whose forward reads what hooks on its blocks collected."""
    taps: dict[str, Tensor] = {}

    class Tapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = vit()
            self.net.blocks[1].register_forward_hook(lambda module, args, output: taps.update(tap=output))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).sum() + taps["tap"].sum()

    with pytest.raises(ValueError, match=r"copy of this Tapped without its hooks does not run \(KeyError.*let the f"):
        cost(Tapped(), images(1))
    assert taps == {}
    out = wrap_cyclic(Tapped().train(), distill=None)(images())
    assert len(out) == 2


def test_a_refusal_in_a_trial_puts_all_hooks_back(on_all_modules: Witness) -> None:
    with pytest.raises(StackError, match="outside the stack"):
        wrap_pruning(vit(), layers=(9,))
    on_all_modules.seen = 0
    nn.Linear(1, 1)(torch.zeros(1, 1))
    assert on_all_modules.seen > 0
