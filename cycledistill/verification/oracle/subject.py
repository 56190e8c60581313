"""The wrapped model that is asked, what it is called with, and its plain self."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from cycledistill.errors import StackError
from cycledistill.inputs import Inputs
from cycledistill.plugin.handle import handle_of
from cycledistill.stack.given import argument_names
from cycledistill.verification.oracle.compare import is_same
from cycledistill.verification.oracle.plain import plain
from cycledistill.verification.oracle.state import same_buffers, seed
from cycledistill.verification.table import Failed

Then = Callable[[Any], Any]


@dataclass
class Subject:
    """One wrapped module, and one call of it."""

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: nn.Module | None = None
    """The plain model that a user gave, where ``model`` is a copy of it that was wrapped."""
    modes: dict[nn.Module, bool] = field(default_factory=dict)
    """In training: which module is, as the user left them, or all."""

    def __post_init__(self) -> None:
        modules = list(self.model.modules())
        self.modes = {each: each.training or not self.model.training for each in modules}

    def handle(self, kind: str) -> Any:
        """The handle of this kind of plug-in, or ``None``."""
        return handle_of(self.model, kind)

    @property
    def inputs(self) -> Inputs:
        """What it is called with, in the form in which the verbs take it."""
        if not self.kwargs:
            return self.args
        return {**dict(zip(argument_names(self.model), self.args, strict=False)), **self.kwargs}

    def ask(self, train: bool = False, then: Then | None = None, model: Callable[..., Any] | None = None) -> Any:
        """What the wrapped model returns; with ``then``, what this makes of it, where gradients are recorded.

        Raises:
            Failed: It refuses, or falls over.
        """
        try:
            return self.run(train, then, model)
        except StackError as error:
            raise Failed(f"the wrapped model refuses: {error}") from error
        except Exception as error:
            raise Failed(f"the wrapped model raises {type(error).__name__}: {error}") from error

    def tell(self, train: bool = False, then: Then | None = None) -> Any:
        """What the plain model returns."""
        with plain(self.model), without_checkpointing(self.model):
            return self.run(train, then)

    def run(self, train: bool = False, then: Then | None = None, model: Callable[..., Any] | None = None) -> Any:
        """One forward, as the model now is, of the same random numbers each time; its buffers stay."""
        for module, mode in self.modes.items():
            module.training = mode and train
        seed()
        with self.recording(then is not None):
            output = (self.model if model is None else model)(*self.args, **self.kwargs)
            return output if then is None else then(output)

    @contextmanager
    def recording(self, gradients: bool) -> Iterator[None]:
        """Inside the context buffers move as they like, and gradients are recorded or not."""
        with same_buffers(self.model), torch.set_grad_enabled(gradients):
            yield

    def repeats_itself(self, train: bool) -> bool:
        """Whether the plain model gives one answer, to the bit, when it is asked twice."""
        return is_same(self.tell(train), self.tell(train))

    @contextmanager
    def at_exit(self, number: int) -> Iterator[None]:
        """Inside the context the wrapped model answers after this cycle."""
        cyclic = self.handle("cyclic")
        before, cyclic.exit = cyclic.exit, number
        try:
            yield
        finally:
            cyclic.exit = before

    @contextmanager
    def keeping(self, share: float) -> Iterator[None]:
        """Inside the context the pruning, if there is one, keeps this share of the tokens."""
        pruning = self.handle("pruning")
        before = pruning.keep if pruning is not None else share
        try:
            if pruning is not None:
                pruning.keep = share
            yield
        finally:
            if pruning is not None:
                pruning.keep = before


def calm(model: nn.Module) -> None:
    """Switch off dropout, drop path and layer drop, wherever modules hold their rates: runs can then be compared."""
    for module in model.modules():
        dropout = "drop" in type(module).__name__.lower()
        for name, value in list(vars(module).items()):
            rate = isinstance(value, float) and 0 < value <= 1
            if rate and ("drop" in name.lower() or (dropout and name in ("p", "prob", "rate"))):
                vars(module)[name] = 0.0


@contextmanager
def without_checkpointing(model: nn.Module) -> Iterator[None]:
    """Inside the context modules that say by a flag whether they checkpoint do not: the truth needs no second run."""
    flags = [
        (vars(module), name)
        for module in model.modules()
        for name, value in vars(module).items()
        if value is True and "checkpointing" in name
    ]
    for attributes, name in flags:
        attributes[name] = False
    try:
        yield
    finally:
        for attributes, name in flags:
            attributes[name] = True


def unsettle(model: nn.Module) -> None:
    """Move weights that are all equal, so that scales of zero or one hide nothing behind them."""
    generator = torch.Generator().manual_seed(4)
    for weight in model.parameters():
        if weight.is_floating_point() and weight.numel() > 1 and not weight.is_inference():
            if bool((weight.detach() == weight.detach().flatten()[0]).all()):
                weight.data.add_(torch.empty(weight.shape).uniform_(-0.05, 0.05, generator=generator).to(weight))
