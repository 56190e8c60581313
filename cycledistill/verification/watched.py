"""Claims about hooks: how often they fire, and that they see real tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize

from cycledistill.cycle.wrap import wrap_cyclic
from cycledistill.errors import StackError
from cycledistill.hourglass.layout import GivenLayout
from cycledistill.hourglass.wrap import wrap_hourglass
from cycledistill.plugin.handle import HOURGLASS_STATE
from cycledistill.plugin.torch_private import global_hook_tables, hook_tables, tree_leaves
from cycledistill.prune.wrap import wrap_pruning
from cycledistill.stack.given import untold
from cycledistill.verification.oracle.calls import hooks
from cycledistill.verification.oracle.copies import shared_copy
from cycledistill.verification.oracle.plain import find_place
from cycledistill.verification.oracle.subject import Subject
from cycledistill.verification.table import Failed, NotChecked, Proof

_DEEP = 5

_Wrap = Callable[[nn.Module, Subject], None]
"""Wraps a copy as the subject is wrapped."""


def check_counts(subject: Subject) -> Proof:
    """In a training forward: once a cycle on blocks and behind them, once before them, and never on the meta device."""
    cyclic = subject.handle("cyclic")
    expected = _expected(subject, cyclic.stack.path, cyclic.cycles)
    fired: Counter[nn.Module] = Counter()
    meta: list[nn.Module] = []

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        fired[module] += 1
        if any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in tree_leaves((args, output))):
            meta.append(module)

    with hooks([module.register_forward_hook(hook) for module in expected]):
        subject.ask(True)
    names = {module: name for name, module in subject.model.named_modules()}
    wrong = [(names[module], fired[module], number) for module, number in expected.items() if fired[module] != number]
    if meta:
        raise Failed(f"a hook on {names[meta[0]]} sees tensors without data")
    if wrong:
        name, number, right = wrong[0]
        raise Failed(
            f"a hook on {name} fires {number} times, not {right}; {len(wrong)} of {len(expected)} modules differ"
        )
    return Proof(detail=f"{len(expected)} modules, {cyclic.cycles} cycles")


def check_left_behind(model: nn.Module) -> Proof:
    """No hook of the model or on all modules, and nothing it holds, was left with a tensor of the meta device."""
    tables = [(name or "the model", table) for name, each in model.named_modules() for table in hook_tables(each)]
    tables += [("all modules", table) for table in global_hook_tables()]
    for name, table in tables:
        for hook in table.values():
            if any(leaf.is_meta for leaf in _held(hook, _DEEP)):
                raise Failed(
                    f"a hook on {name} holds a tensor without data, of the meta device: it ran in a "
                    "trial. Give it its starting value again"
                )
    return Proof()


def check_trials(subject: Subject) -> Proof:
    """Wrapping a copy of the model again, with hooks on all of its modules, runs none of them, and is not refused."""
    fired: list[str] = []
    done = []
    for kind, wrap in _WRAPS.items():
        if subject.handle(kind) is None:
            continue
        on_all = register_module_forward_hook(_noting(fired, "all modules"))
        try:
            with untold():  # the user's own wrapping told of the inputs
                wrap(_hooked(_copy(subject), fired), subject)
        except StackError as error:
            if not fired:
                _refuse_as_it_is(subject, wrap)
                raise Failed(f"hooks on its modules make wrap_{kind} refuse this model: {error}") from None
        finally:
            on_all.remove()
        done.append(f"wrap_{kind}")
    if fired:
        raise Failed(f"wrapping runs the model's hooks, {len(fired)} times, first on {fired[0] or 'the model'}")
    return Proof(detail=", ".join(done))


def _copy(subject: Subject) -> nn.Module:
    """A copy that has no plug-in and no hook."""
    copied = shared_copy(subject.model)
    for table in (table for module in copied.modules() for table in hook_tables(module)):
        table.clear()
    return copied


def _hooked(model: nn.Module, fired: list[str]) -> nn.Module:
    for name, module in model.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):
            note = _noting(fired, name)
            module.register_forward_pre_hook(note)
            module.register_forward_hook(note)
            module.register_full_backward_hook(note)
    return model


def _refuse_as_it_is(subject: Subject, wrap: _Wrap) -> None:
    try:
        wrap(_copy(subject), subject)
    except StackError as error:
        raise NotChecked(f"a bare copy of the model cannot be wrapped: {error}", optional=True) from None


def _again_cyclic(copied: nn.Module, subject: Subject) -> None:
    own = subject.handle("cyclic")
    wrap_cyclic(copied, own.cycles, None, blocks=own.stack.path, inputs=subject.inputs)


def _again_pruning(copied: nn.Module, subject: Subject) -> None:
    own = subject.handle("pruning")
    wrap_pruning(copied, own.layers, own.keep, blocks=own.stack.path, query=own.query, inputs=subject.inputs)


def _again_hourglass(copied: nn.Module, subject: Subject) -> None:
    handle = subject.handle("hourglass")
    own = handle.settings
    block = find_place(subject.model, handle.stack.path).blocks[own.layers[0]]
    layout = vars(block)[HOURGLASS_STATE].layout
    wrap_hourglass(
        copied,
        blocks=handle.stack.path,
        layer=own.layers,
        keep=own.keep,
        select="uniform",
        recover=False,
        layout=(layout.forth, layout.back_again) if isinstance(layout, GivenLayout) else None,
        frames=own.frames,
        prefix=own.prefix,
        lengths=own.lengths,
        inputs=subject.inputs,
    )


_WRAPS: dict[str, _Wrap] = {
    "cyclic": _again_cyclic,
    "pruning": _again_pruning,
    "hourglass": _again_hourglass,
}


def _noting(fired: list[str], name: str) -> Callable[..., None]:
    return lambda *_: fired.append(name)


def _expected(subject: Subject, path: str, cycles: int) -> dict[nn.Module, int]:
    """How often a hook on each module must fire; modules that run several times in the plain model are left out."""
    blocks = find_place(subject.model, path).blocks
    pruning = subject.handle("pruning")
    scored = find_place(subject.model, pruning.stack.path).blocks if pruning is not None else ()
    inside = {module for block in (*blocks, *scored) for module in block.modules()}  # scores may call a norm of queries
    around = {module for module in subject.model.modules() if any(each is blocks[0] for each in module.modules())}
    order: list[nn.Module] = []
    others = [
        module
        for module in subject.model.modules()
        if module not in inside | around
        and not isinstance(module, torch.jit.ScriptModule)
        and not parametrize.is_parametrized(module)
    ]

    def hook(module: nn.Module, *_: Any) -> None:
        order.append(module)

    with hooks([module.register_forward_hook(hook) for module in (*others, *blocks)]):
        subject.tell(True)
    times = Counter(order)
    first, last = order.index(blocks[0]), len(order) - 1 - order[::-1].index(blocks[-1])
    expected = dict.fromkeys(blocks, cycles)
    for number, module in enumerate(order):
        if module not in inside and times[module] == 1 and not first < number < last:
            expected[module] = 1 if number < first else cycles
    return expected


def _held(value: Any, depth: int) -> Iterator[Tensor]:
    """Tensors that a hook holds: in its closure, its object, its defaults, or the globals it names."""
    if isinstance(value, Tensor):
        yield value
    elif depth:
        for each in _parts(value):
            yield from _held(each, depth - 1)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, FunctionType):
        named = [value.__globals__[name] for name in value.__code__.co_names if name in value.__globals__]
        kept = [each for each in named if isinstance(each, (Tensor, dict, list, set, tuple))]
        return [*_cells(value), *(value.__defaults__ or ()), *kept]
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if isinstance(value, (nn.Module, type, str)) or not hasattr(value, "__dict__"):
        return []
    return list(vars(value).values())


def _cells(function: FunctionType) -> list[Any]:
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # a name that was never bound
            continue
    return found
