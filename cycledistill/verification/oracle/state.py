"""Leave a model as it was: weights, buffers, gradients, modes, hooks, attributes, plug-ins, random numbers."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_DEPTH = 4  # handle -> recorder -> recording -> what it holds


@contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """Whatever is done to ``model`` inside the context is undone at its end, also after an exception.

    Not undone is what the model's own hooks did to objects outside it.
    """
    modules = list(model.modules())
    classes = [(module, type(module)) for module in modules]
    objects = [(each, dict(vars(each))) for each in [*modules, *_own_objects(modules)]]
    containers = [(value, _content(value)) for _, held in objects for value in held.values() if _is_filled(value)]
    tensors = [(each, each.detach().clone(), each.grad) for each in _tensors(model)]
    try:
        with same_randomness():
            yield
    finally:
        for module, kind in classes:
            module.__class__ = kind
        for each, held in objects:
            vars(each).clear()
            vars(each).update(held)
        for value, content in containers:
            _refill(value, content)
        for tensor, before, gradient in tensors:
            if not torch.equal(tensor.detach(), before):  # versions do not tell: what moved them went past the counter
                tensor.data.copy_(before)
            if tensor.grad is not gradient:
                tensor.grad = gradient


@contextmanager
def same_randomness() -> Iterator[None]:
    """Random numbers that are drawn inside the context are not missing after it."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    numpy = sys.modules.get("numpy")
    before = torch.get_rng_state(), random.getstate(), numpy.random.get_state() if numpy is not None else None
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        random.setstate(before[1])
        if numpy is not None:
            numpy.random.set_state(before[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


def seed() -> None:
    """Begin all random numbers anew, so that two runs draw the same."""
    torch.manual_seed(0)
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)


@contextmanager
def same_buffers(model: nn.Module) -> Iterator[None]:
    """Buffers that move inside the context are put back; a backward through it still runs after it."""
    before = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.data.copy_(value)  # past the version counter: a backward of BatchNorm looks at it


def _tensors(model: nn.Module) -> list[Tensor]:
    return [each for each in (*model.parameters(), *model.buffers()) if not each.is_inference()]


def _is_filled(value: Any) -> bool:
    return isinstance(value, (dict, list, set))


def _content(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else list(value)


def _refill(value: Any, content: Any) -> None:
    now = [*value.items()] if isinstance(value, dict) else [*value]
    then = [*content.items()] if isinstance(content, dict) else content
    pairs = zip(now, then, strict=False)
    if len(now) == len(then) and all(a is b or (isinstance(a, tuple) and _same(a, b)) for a, b in pairs):
        return
    value.clear()
    if isinstance(value, list):
        value.extend(content)
    else:
        value.update(content)


def _same(a: Any, b: Any) -> bool:
    return len(a) == len(b) and all(one is other for one, other in zip(a, b, strict=True))


def _own_objects(modules: list[nn.Module]) -> list[Any]:
    """The plug-ins' handles and states, and what these hold of their kind."""
    found: dict[int, Any] = {}
    waiting = [value for module in modules for value in vars(module).values()]
    for _ in range(_DEPTH):
        new = [each for each in waiting if _is_own(each) and id(each) not in found]
        found.update((id(each), each) for each in new)
        waiting = [value for each in new for value in vars(each).values()]
    return list(found.values())


def _is_own(value: Any) -> bool:
    own = type(value).__module__.startswith("cycledistill.") and not isinstance(value, nn.Module)
    return own and hasattr(value, "__dict__") and not isinstance(value, type)
