"""One call of the model, and in its first pass one of a block or of a module before the stack: to be made again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from cycledistill.cycle.snapshot import ObjectSnapshot, Snapshot, objects_with_hidden_tensors, plain
from cycledistill.plugin.running import has_autocast, is_eager
from cycledistill.plugin.torch_private import AnyBatchNorm, tree_unflatten
from cycledistill.stack.links import Links


@dataclass(frozen=True, eq=False)  # compilers of older PyTorch versions fail on a generated __hash__
class ModelCall:
    """One call of a model's method, which may be made again."""

    method: Callable[..., Any]
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    whole: bool
    """Whether it is the forward of the wrapped model itself."""

    @property
    def part(self) -> str:
        """The name of the method, where it is another than that forward, and may run some of the blocks."""
        return "" if self.whole else self.method.__name__

    def __call__(self) -> Any:
        """Make the call."""
        return self.method(self.model, *self.args, **self.kwargs)


class Containers:
    """Lists and dicts among the arguments of a call, which may be changed there, and their content before."""

    def __init__(self, given: tuple[Any, ...]) -> None:
        self._before = [
            (i, each, Snapshot(plain(each))) for i, each in enumerate(given) if isinstance(each, (list, dict))
        ]

    def changed(self) -> list[tuple[int, Any]]:
        """Position and container, of those that hold something else since."""
        return [(i, each) for i, each, before in self._before if not before.holds(plain(each))]


@dataclass
class RecordedCall:
    """One block, and the arguments of its call in the first pass."""

    block: nn.Module
    given: Snapshot
    checkpointed: bool
    containers: Containers = field(default_factory=lambda: Containers(()))
    objects: list[ObjectSnapshot] = field(default_factory=list)
    """Objects that may hold tensors, and their content."""
    autocast: torch.dtype | bool | None = None
    """The precision the forward asked for around this block, where it is another than around the forward."""
    filled: int | None = None
    """Which argument the block changed and returned: a dict or a list that holds the state."""
    links: Links = field(default_factory=list)
    skips: list[tuple[int, int, int]] = field(default_factory=list)
    """Block, output leaf, input leaf: outputs of blocks further back that this one takes as well."""

    @property
    def leaves(self) -> list[Any]:
        """The leaves of the arguments."""
        return self.given.leaves

    def look_inside(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record what the block could change beside its tokens; nothing in compiled code."""
        if is_eager():
            self.containers = Containers((*args, *kwargs.values()))
            self.objects = [ObjectSnapshot(each) for each in objects_with_hidden_tensors(self.leaves)]

    def state_leaves(self) -> set[int]:
        """The numbers of the leaves that are other blocks' outputs."""
        return {taken for _, taken in self.links} | {taken for _, _, taken in self.skips}

    def arguments(self, state: list[Any], outputs: list[Snapshot]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The recorded arguments, with the state leaves taken from this cycle's outputs of the blocks before."""
        leaves = list(self.leaves)
        for made, taken in self.links:
            leaves[taken] = state[made]
        for block, made, taken in self.skips:
            leaves[taken] = outputs[block].leaves[made]
        args, kwargs = tree_unflatten(leaves, self.given.spec)
        return args, kwargs

    def run(self, frozen: FrozenStatistics, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the block, checkpointed and in the precision of its first call."""
        with _precision(self.leaves, self.autocast):
            if self.checkpointed:
                return checkpoint(partial(_run_frozen, self.block, frozen), *args, use_reentrant=False, **kwargs)
            return _run_frozen(self.block, frozen, *args, **kwargs)


class EarlyArguments:
    """What a module before the stack is given, as it was before the module ran."""

    def __init__(self, given: tuple[Any, ...]) -> None:
        self._containers = Containers(given)
        self._tensors = Snapshot([each for each in given if isinstance(each, torch.Tensor)])

    def changed(self) -> list[torch.Tensor]:
        """The tensors that were changed in place since; none in compiled code, which cannot tell."""
        return [self._tensors.leaves[number] for number in self._tensors.changed()]

    def filled(self) -> list[tuple[int, Snapshot]]:
        """Position and content of the lists and dicts that hold something else since."""
        return [(i, Snapshot(plain(each))) for i, each in self._containers.changed()]


@dataclass
class EarlyCall:
    """One call of a module before the stack in the first pass."""

    key: int
    """The number of the module."""
    output: Snapshot
    filled: list[tuple[int, Snapshot]]
    """Position and content of the lists and dicts among its arguments that it changed."""

    def answer(self, given: tuple[Any, ...]) -> Any:
        """What the module returned; the lists and dicts it is given now are changed as it changed them then."""
        for position, content in self.filled:
            fill(given[position], content.value())
        return self.output.value()


def fill(container: Any, content: Any) -> None:
    """Let a list or a dict hold ``content`` and nothing else."""
    container.clear()
    container.update(content) if isinstance(container, dict) else container.extend(content)


class FrozenStatistics:
    """Keeps the running statistics of BatchNorm still while extra cycles run: they belong to the first cycle."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.norms = [
            module
            for module in modules
            if isinstance(module, AnyBatchNorm) and module.training and module.track_running_stats
        ]

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Normalise by batch statistics inside the context, as in training, and leave the buffers alone."""
        for norm in self.norms:
            norm.track_running_stats = not norm.training
        try:
            yield
        finally:
            for norm in self.norms:
                norm.track_running_stats = True


def _run_frozen(block: nn.Module, frozen: FrozenStatistics, *args: Any, **kwargs: Any) -> Any:
    if not frozen.norms:
        return block(*args, **kwargs)
    with frozen.hold():
        return block(*args, **kwargs)


def autocast_of(leaves: list[Any]) -> torch.dtype | bool:
    """The type that autocast works in for the device of these tensors, or ``False``."""
    kind = _device_of(leaves)
    kind = kind if has_autocast(kind) else "cpu"
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else False


def _precision(leaves: list[Any], autocast: torch.dtype | bool | None) -> AbstractContextManager[Any]:
    if autocast is None:
        return nullcontext()
    if isinstance(autocast, torch.dtype):
        return torch.autocast(_device_of(leaves), dtype=autocast)
    return torch.autocast(_device_of(leaves), enabled=False)


def _device_of(leaves: list[Any]) -> str:
    return next((leaf.device.type for leaf in leaves if isinstance(leaf, torch.Tensor)), "cpu")
