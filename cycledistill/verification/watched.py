"""Claims about hooks: how often they fire, and that they see real tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cycledistill.cycle.wrap import wrap_cyclic
from cycledistill.errors import StackError
from cycledistill.hourglass.wrap import wrap_hourglass
from cycledistill.plugin.torch_private import hook_tables, tree_leaves
from cycledistill.prune.wrap import wrap_pruning
from cycledistill.verification.oracle.calls import hooks
from cycledistill.verification.oracle.copies import shared_copy
from cycledistill.verification.oracle.plain import find_place
from cycledistill.verification.oracle.subject import Subject
from cycledistill.verification.table import Failed, NotChecked, Proof

_DEEP = 5


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
    """No hook of the model, and nothing it holds, was left with a tensor of the meta device."""
    for name, module in model.named_modules():
        for hook in (hook for table in hook_tables(module) for hook in table.values()):
            if any(leaf.is_meta for leaf in _held(hook, _DEEP)):
                raise Failed(
                    f"a hook on {name or 'the model'} holds a tensor without data, of the meta device: it ran in a "
                    "trial. Give it its starting value again"
                )
    return Proof()


def check_trials(subject: Subject) -> Proof:
    """Wrapping a copy of the model again runs none of its hooks."""
    fired: list[str] = []
    done = []
    for kind, wrap in _WRAPS.items():
        handle = subject.handle(kind)
        if handle is None:
            continue
        copied = shared_copy(subject.model)
        for hooks_there in (each for module in copied.modules() for each in hook_tables(module)):
            hooks_there.clear()
        for name, module in copied.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                note = _noting(fired, name)
                module.register_forward_hook(note)
                module.register_forward_pre_hook(note)
        try:
            wrap(copied, handle)
        except StackError as error:
            if fired:
                break
            raise NotChecked(f"a bare copy of the model cannot be wrapped: {error}", optional=True) from None
        done.append(f"wrap_{kind}")
    if fired:
        raise Failed(f"wrapping runs the model's hooks, {len(fired)} times, first on {fired[0] or 'the model'}")
    return Proof(detail=", ".join(done))


def _again_cyclic(copied: nn.Module, handle: Any) -> None:
    wrap_cyclic(copied, handle.cycles, None, blocks=handle.stack.path)


def _again_pruning(copied: nn.Module, handle: Any) -> None:
    wrap_pruning(copied, handle.layers, handle.keep, blocks=handle.stack.path, query=handle.query)


def _again_hourglass(copied: nn.Module, handle: Any) -> None:
    own = handle.settings
    wrap_hourglass(copied, blocks=handle.stack.path, layer=own.layers, keep=own.keep, select="uniform", recover=False)


_WRAPS: dict[str, Callable[[nn.Module, Any], None]] = {
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
