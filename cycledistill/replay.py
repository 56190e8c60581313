"""Note one forward of a model, run its blocks again, and replay the rest of the model around other tokens.

The first pass is the model's own forward, untouched. Blocks note what they were given, modules before the stack note
what they returned. Further cycles run the noted blocks on their own output. The tail (norm, head, loss) of a further
cycle is the model's own forward again, with the early modules answering from their notes and each block answering with
its output of that cycle. No block's and no model's forward is written a second time here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

from cycledistill.chain import StackError, check_fit, default_links, links_into
from cycledistill.probe import Links, links_between

NOTE, LOOP, BYPASS = "note", "loop", "bypass"


class StackReached(BaseException):
    """Ends the first pass at the last block when only a later cycle's output is wanted; never leaves this package."""


@dataclass
class NotedCall:
    """One block, and the arguments of its call in the first pass."""

    block: nn.Module
    leaves: list[Any]
    spec: pytree.TreeSpec
    checkpointed: bool
    links: Links = field(default_factory=list)
    skips: list[tuple[int, int, int]] = field(default_factory=list)
    """Block, output leaf, input leaf: outputs of blocks further back that this one takes as well."""

    def arguments(self, state: list[Any], outputs: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The noted arguments with the state leaves taken from this cycle's outputs of the blocks before."""
        leaves = list(self.leaves)
        for made, taken in self.links:
            leaves[taken] = state[made]
        for block, made, taken in self.skips:
            leaves[taken] = pytree.tree_leaves(outputs[block])[made]
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return args, kwargs

    def rebuilt(self) -> Any:
        """The noted arguments as they were."""
        return pytree.tree_unflatten(self.leaves, self.spec)


class Run:
    """What is known during one forward of a wrapped model. It lives as long as that forward."""

    def __init__(self, path: str, depth: int, stop_at_last: bool) -> None:
        self.path = path
        self.depth = depth
        self.stop_at_last = stop_at_last
        self.phase = NOTE
        self.entered = 0
        self.calls: list[NotedCall] = []
        self.outputs: list[Any] = []
        self.early: list[tuple[int, Any, tuple[int, ...]]] = []
        self.early_answered = 0
        self.made: tuple[int, ...] = ()
        self.inside_early = False
        self.grad_enabled = torch.is_grad_enabled()
        self.saving_hooks = _saving_hooks()

    def note(self, block: nn.Module, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note that block ``index`` is about to run with these arguments in the first pass."""
        self._enter(index)
        if self.grad_enabled and not torch.is_grad_enabled():
            raise StackError(
                f'blocks="{self.path}": block {index} runs without gradients inside a forward that has them, as in '
                "reentrant activation checkpointing, which would give wrong gradients silently. Use non-reentrant "
                "checkpointing: torch.utils.checkpoint.checkpoint(..., use_reentrant=False), or for timm "
                "timm.layers.set_reentrant_ckpt(False)"
            )
        leaves, spec = pytree.tree_flatten((args, kwargs))
        call = NotedCall(block, leaves, spec, _saving_hooks() is not self.saving_hooks)
        if index > 0:
            known = [*self.calls[-1].leaves, *pytree.tree_leaves(self.outputs[:-1])]
            call.links = links_into(self.path, index, known, pytree.tree_leaves(self.outputs[-1]), leaves)
            linked = {taken for _, taken in call.links}
            for source, output in enumerate(self.outputs[:-1]):
                further = links_between(pytree.tree_leaves(output), leaves)
                call.skips += [(source, made, taken) for made, taken in further if taken not in linked]
        else:
            self._check_early()
        self.calls.append(call)
        if self.stop_at_last and index == self.depth - 1:
            raise StackReached

    def note_output(self, output: Any) -> None:
        """Note what the block noted last returned."""
        self.outputs.append(output)
        self.made = versions(output)

    def answer_block(self, index: int) -> Any:
        """What block ``index`` returns while the tail of a further cycle is replayed."""
        self._enter(index)
        return self.outputs[index]

    def note_early(self, key: int, output: Any) -> None:
        """Note the output of a module that ran before the stack."""
        self.early.append((key, output, versions(output)))

    def answer_early(self, key: int) -> Any:
        """The noted output of a module before the stack, in the order of the first pass."""
        known = self.early[self.early_answered] if self.early_answered < len(self.early) else None
        if known is None or known[0] != key:
            raise StackError(
                "the model's forward took another way before the stack when it was replayed than the first time: "
                "its control flow depends on something that changed (a random choice, a counter). Make that choice "
                "inside a module, or outside the model"
            )
        self.early_answered += 1
        return known[1]

    def refresh_early(self, changed: list[torch.Tensor]) -> None:
        """Note that an early module changed outputs of others in place; it answers in replays, so nothing repeats."""
        for place, (key, output, _) in enumerate(self.early):
            if any(leaf is tensor for leaf in pytree.tree_leaves(output) for tensor in changed):
                self.early[place] = (key, output, versions(output))

    def _check_early(self) -> None:
        if any(_changed(output, noted) for _, output, noted in self.early):
            raise StackError(
                "the model's forward changes the output of a module before the stack in place (x += ...), and would "
                "do so again for every cycle. Write it out of place: x = x + ..."
            )

    def check_state(self) -> None:
        """Refuse a tail that changed the tokens the next cycle, and the token loss, start from."""
        if _changed(self.outputs[-1], self.made):
            raise StackError(
                f'blocks="{self.path}": the model changes the stack\'s output in place after the last block, so later '
                "cycles would start from something else. Write it out of place: x = x + ..., F.relu(x)"
            )

    def is_before_stack(self) -> bool:
        """Whether no block was entered yet in this pass, outside any early module."""
        return self.entered == 0 and not self.inside_early and self.phase != LOOP

    def first_pass_done(self) -> None:
        """Check that every block ran, link the stack's end to its beginning, and check that it fits.

        In a first pass that stopped at the last block the fit is checked after that block's first run.
        """
        if self.entered != self.depth:
            raise StackError(
                f'blocks="{self.path}": the forward entered {self.entered} of {self.depth} blocks; the model was '
                "edited after wrapping, or skips blocks. Call unwrap_cyclic(model) and wrap it again as it is now"
            )
        first = self.calls[0]
        if self.depth > 1:
            first.links = self._links_to_first()
        if self.outputs and len(self.outputs) == self.depth:
            self._check_fit()

    def _links_to_first(self) -> Links:
        """The links into block 1 as those into block 0, which may name or order its arguments otherwise."""
        first, second = self.calls[:2]
        if first.spec == second.spec:
            return second.links
        places = [path for path, _ in pytree.tree_leaves_with_path(first.rebuilt())]
        paths = [path for path, _ in pytree.tree_leaves_with_path(second.rebuilt())]
        if not all(paths[taken] in places for _, taken in second.links):
            raise StackError(
                f'blocks="{self.path}": block 0 takes its arguments in another form than block 1, so the stack\'s '
                "output cannot be told apart among them; call all blocks alike (the same positions and keywords)"
            )
        return [(made, places.index(paths[taken])) for made, taken in second.links]

    def _check_fit(self) -> None:
        first, made = self.calls[0], pytree.tree_leaves(self.outputs[-1])
        if self.depth == 1:
            first.links = default_links(made, first.leaves, self.path)
        if max(i for i, _ in first.links) >= len(made) or max(j for _, j in first.links) >= len(first.leaves):
            raise StackError(
                f'blocks="{self.path}": the last block returns another structure than the others, or the first takes '
                "another; name a run of blocks with one signature"
            )
        drops_tokens = all(getattr(call.block, "drops_tokens", False) for call in self.calls)
        check_fit(self.path, first.leaves, made, first.links, drops_tokens)

    def finish_first_cycle(self) -> None:
        """Run the last block of cycle 1 after a first pass that stopped in front of it."""
        last = self.calls[-1]
        args, kwargs = pytree.tree_unflatten(last.leaves, last.spec)
        self.phase = LOOP
        self.outputs.append(last.block(*args, **kwargs))
        self.made = versions(self.outputs[-1])
        self._check_fit()

    def cycle(self, frozen: FrozenStatistics) -> None:
        """Run every block once more, the first on the output of the last."""
        self.check_state()
        self.phase = LOOP
        output = self.outputs[-1]
        outputs: list[Any] = []
        for call in self.calls:
            args, kwargs = call.arguments(pytree.tree_leaves(output), outputs)
            if call.checkpointed:
                output = checkpoint(partial(_run_frozen, call.block, frozen), *args, use_reentrant=False, **kwargs)
            else:
                output = _run_frozen(call.block, frozen, *args, **kwargs)
            outputs.append(output)
        self.outputs, self.made = outputs, versions(output)

    def replay(self, forward: Callable[[], Any], frozen: FrozenStatistics) -> Any:
        """The model's own forward around the tokens of the current cycle."""
        self.phase, self.entered, self.early_answered = BYPASS, 0, 0
        with frozen.hold():
            output = forward()
        if self.entered != self.depth:
            raise StackError(
                f'blocks="{self.path}": the replayed forward entered {self.entered} of {self.depth} blocks; the model '
                "skips blocks at random. Switch that off, or use the model's own stochastic depth inside the blocks"
            )
        return output

    def state(self) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """The stack's output in the current cycle: the tensors that the next cycle starts from."""
        made = pytree.tree_leaves(self.outputs[-1])
        indices = sorted({i for i, _ in self.calls[0].links})
        state = tuple(made[i] for i in indices)
        return state[0] if len(state) == 1 else state

    def entry(self) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """The state that cycle 1 started from; it holds more tokens than the stack's output where some are dropped."""
        first = self.calls[0]
        state = tuple(first.leaves[j] for j in sorted({j for _, j in first.links}))
        return state[0] if len(state) == 1 else state

    def _enter(self, index: int) -> None:
        if index != self.entered:
            raise StackError(
                f'blocks="{self.path}": block {index} was entered where block {self.entered} was due. Every block must '
                "run exactly once, in order: switch off layers that are skipped at random (LayerDrop), and do not "
                "cycle blocks that are shared. If the model was edited after wrapping, call unwrap_cyclic(model) and "
                "wrap it again"
            )
        self.entered += 1


class FrozenStatistics:
    """Keeps the running statistics of BatchNorm still while extra cycles run: they belong to the first cycle."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.norms = [module for module in modules if isinstance(module, _BatchNorm) and module.track_running_stats]

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


def _saving_hooks() -> Any:
    """The innermost saved-tensor hooks: another pair inside a block's call than outside means checkpointing."""
    if torch.compiler.is_compiling() or torch._C._is_tracing():
        return None
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks[0] if hooks is not None else None


def _changed(output: Any, noted: tuple[int, ...]) -> bool:
    # Nothing was noted where the module ran in compiled code; after a graph break the check may yet run.
    now = versions(output)
    return bool(noted and now) and noted != now


def versions(output: Any) -> tuple[int, ...]:
    """How often each tensor in ``output`` was changed in place; nothing under a compiler, which cannot tell."""
    if torch.compiler.is_compiling():
        return ()
    tensors = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]
    return tuple(tensor._version for tensor in tensors if not tensor.is_inference())
