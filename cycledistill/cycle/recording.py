"""Note one forward of a model, run its blocks again, and replay the rest of the model around other tokens.

The first pass is the model's own forward, untouched. Blocks note what they were given, modules before the stack note
what they returned. Further cycles run the noted blocks on their own output. The tail (norm, head, loss) of a further
cycle is the model's own forward again, with the early modules answering from their notes and each block answering with
its output of that cycle. No block's and no model's forward is written a second time here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from cycledistill.cycle.call import FrozenStatistics, RecordedCall, autocast_of
from cycledistill.cycle.snapshot import Snapshot, is_eager, objects_with_hidden_tensors, plain, same_value
from cycledistill.errors import StackError
from cycledistill.plugin.torch_private import saving_hooks, tree_flatten, tree_leaves_with_path
from cycledistill.stack.links import (
    Links,
    check_arguments,
    check_fit,
    default_links,
    links_between,
    links_into,
    returned,
)

NOTE, LOOP, BYPASS = "note", "loop", "bypass"


class StackReached(BaseException):
    """Ends the first pass at the last block when only a later cycle's output is wanted; never leaves this package."""


class Recording:
    """What is known during one forward of a wrapped model. It lives as long as that forward."""

    def __init__(self, path: str, depth: int, inputs: Any, stop_at_last: bool, compare: bool = False) -> None:
        self.path = path
        self.depth = depth
        self.stop_at_last = stop_at_last
        self.phase = NOTE
        self.entered = 0
        self.calls: list[RecordedCall] = []
        self.outputs: list[Snapshot] = []
        self.early: list[tuple[int, Snapshot, list[tuple[int, Snapshot]]]] = []
        self.early_answered = 0
        self.inputs = Snapshot(inputs)
        self.autocast = autocast_of(self.inputs.leaves)
        self.compare = compare
        self.inside_early = False
        self.grad_enabled = torch.is_grad_enabled()
        self.saving_hooks = saving_hooks()

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
        call = RecordedCall(block, Snapshot((args, kwargs)), saving_hooks() is not self.saving_hooks)
        precision = autocast_of(call.leaves)
        call.autocast = precision if precision != self.autocast else None
        if is_eager():
            call.watch(args, kwargs)
        if index > 0:
            self.check_state()
            call.links = links_into(self.path, index, self.outputs[-1].leaves, call.leaves)
            linked = {taken for _, taken in call.links}
            if self.compare:
                done = zip(self.calls, self.outputs, strict=True)
                made = [leaf for each, output in done for leaf in returned(each.leaves, output.leaves)]
                check_arguments(self.path, index, made, call.leaves, call.links)
            for source, output in enumerate(self.outputs[:-1]):
                further = links_between(output.leaves, call.leaves)
                call.skips += [(source, made, taken) for made, taken in further if taken not in linked]
            self._check_skips(index, call)
        else:
            self._check_before()
        self.calls.append(call)
        if self.stop_at_last and index == self.depth - 1:
            raise StackReached

    def _check_skips(self, index: int, call: RecordedCall) -> None:
        """An output of a block further back may stand where earlier blocks were given nothing, as in a U-Net.

        Where they were given a tensor, the forward hands on a second state that no block returns.
        """
        if not call.skips:
            return
        paths = [path for path, _ in tree_leaves_with_path(call.given.value())]
        skipped = {paths[taken] for _, _, taken in call.skips}
        for earlier in self.calls:
            known = earlier.state_places()
            for place, (path, leaf) in enumerate(tree_leaves_with_path(earlier.given.value())):
                if path in skipped and isinstance(leaf, torch.Tensor) and place not in known:
                    raise StackError(
                        f'blocks="{self.path}": block {index} takes the output of a block further back where earlier '
                        "blocks take another tensor: the forward hands on a state that blocks do not return, and "
                        "further cycles would begin with the first one. Return it from the blocks"
                    )

    def record_output(self, output: Any) -> None:
        """Note what the block noted last returned, and refuse one that did more than return something."""
        self.outputs.append(Snapshot(output))
        call, index = self.calls[-1], len(self.calls) - 1
        for container, before in call.containers:
            if before.holds(plain(container)):
                continue
            call.fills = call.places[id(container)]
            if output is not container:
                raise StackError(
                    f'blocks="{self.path}": block {index} changes a {type(container).__name__} that it is given and '
                    "does not return, so what later cycles put there would be lost. Return it, or collect outside the "
                    "blocks"
                )
        for each in call.objects:
            if each.changed():
                raise StackError(
                    f'blocks="{self.path}": block {index} changes the {type(each.owner).__name__} it is given, as a '
                    "cache of keys and values is, and later cycles would find there what this one left. Switch it off: "
                    "model.config.use_cache = False, or use_cache=False in the call"
                )

    def answer_block(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What block ``index`` returns while the tail of a further cycle is replayed."""
        self._enter(index)
        if self.compare:
            self._check_arguments(index, args, kwargs)
        fills, answer = self.calls[index].fills, self.outputs[index].value()
        if fills is None:
            return answer
        container = (*args, *kwargs.values())[fills]  # the model may go on with this one, not with what is returned
        _fill(container, answer)
        return container

    def _check_arguments(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The forward, replayed with later tokens, must give a block what was noted, but for them."""
        call = self.calls[index]
        leaves, spec = tree_flatten((args, kwargs))
        state = call.state_places()
        same = spec == call.given.spec and all(
            place in state or same_value(noted, leaf)
            for place, (noted, leaf) in enumerate(zip(call.leaves, leaves, strict=True))
        )
        now = objects_with_hidden_tensors(leaves)
        same = (
            same
            and len(now) == len(call.objects)
            and all(noted.like(each) for noted, each in zip(call.objects, now, strict=True))
        )
        if not same:
            raise StackError(
                f'blocks="{self.path}": block {index} takes something beside its tokens that changes when they do '
                "(it is computed from earlier blocks), or that is drawn at random in the model's own forward. Cycles "
                "run the blocks alone and would keep what cycle 1 had. Compute it inside the block"
            )

    def record_early(self, key: int, output: Any, fills: list[tuple[int, Snapshot]]) -> None:
        """Note what a module that ran before the stack returned, and put into lists and dicts it was given."""
        self.early.append((key, Snapshot(output), fills))

    def answer_early(self, key: int, given: tuple[Any, ...]) -> Any:
        """The noted output of a module before the stack, in the order of the first pass."""
        known = self.early[self.early_answered] if self.early_answered < len(self.early) else None
        if known is None or known[0] != key:
            raise StackError(
                "the model's forward took another way before the stack when it was replayed than the first time: "
                "its control flow depends on something that changed (a random choice, a counter). Make that choice "
                "inside a module, or outside the model"
            )
        self.early_answered += 1
        for place, content in known[2]:
            _fill(given[place], content.value())
        return known[1].value()

    def refresh(self, changed: list[torch.Tensor]) -> None:
        """Note that an early module changed tensors in place; it answers in replays, so that is not done again."""
        for place, (key, noted, fills) in enumerate(self.early):
            if any(leaf is tensor for leaf in noted.leaves for tensor in changed):
                self.early[place] = (key, Snapshot(noted.value()), fills)
        self.inputs = Snapshot(self.inputs.value())

    def _check_before(self) -> None:
        """Refuse a forward that changed in place what a replay starts from."""
        what = "its own input" if self.inputs.changed() else "the output of a module before the stack"
        if self.inputs.changed() or any(noted.changed() for _, noted, _ in self.early):
            raise StackError(
                f"the model's forward changes {what} in place (x += ...), and would do so again for every cycle. Write "
                "it out of place: x = x + ..."
            )

    def check_state(self) -> None:
        """Refuse a forward that changed the tokens a block, the next cycle or the token loss starts from."""
        if self.outputs[-1].changed():
            last = len(self.outputs) - 1
            where = "the stack's output" if last == self.depth - 1 else f"the output of block {last}"
            raise StackError(
                f'blocks="{self.path}": the model changes {where} in place, so cycles would start from something else. '
                "Write it out of place: x = x + ..., F.relu(x)"
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
        self._check_before()
        first = self.calls[0]
        if self.depth > 1:
            first.links = self._links_to_first()
        if self.outputs and len(self.outputs) == self.depth:
            self._check_fit()

    def _links_to_first(self) -> Links:
        """The links into block 1 as those into block 0, which may name or order its arguments otherwise."""
        first, second = self.calls[:2]
        if first.given.spec == second.given.spec:
            return second.links
        places = [path for path, _ in tree_leaves_with_path(first.given.value())]
        paths = [path for path, _ in tree_leaves_with_path(second.given.value())]
        if not all(paths[taken] in places for _, taken in second.links):
            raise StackError(
                f'blocks="{self.path}": block 0 takes its arguments in another form than block 1, so the stack\'s '
                "output cannot be told apart among them; call all blocks alike (the same positions and keywords)"
            )
        return [(made, places.index(paths[taken])) for made, taken in second.links]

    def _check_fit(self) -> None:
        first, made = self.calls[0], self.outputs[-1].leaves
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
        """Recording the last block of cycle 1 after a first pass that stopped in front of it."""
        last = self.calls[-1]
        args, kwargs = last.given.value()
        if is_eager():
            last.watch(args, kwargs)
        self.phase = LOOP
        self.record_output(last.run(FrozenStatistics(()), args, kwargs))
        self._check_fit()

    def cycle(self, frozen: FrozenStatistics) -> None:
        """Recording every block once more, the first on the output of the last."""
        self.check_state()
        for index, call in enumerate(self.calls):
            state = call.state_places()
            if any(call.given.changed_at(place) for place in range(len(call.leaves)) if place not in state):
                raise StackError(
                    f'blocks="{self.path}": something that block {index} takes beside its tokens was changed in place '
                    "after the block was called. Write that out of place: x = x + ..."
                )
        self.phase = LOOP
        output = self.outputs[-1]
        outputs: list[Snapshot] = []
        for call in self.calls:
            args, kwargs = call.arguments(output.leaves, outputs)
            output = Snapshot(call.run(frozen, args, kwargs))
            outputs.append(output)
        self.outputs = outputs

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
        made = self.outputs[-1].leaves
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


def _fill(container: Any, content: Any) -> None:
    container.clear()
    container.update(content) if isinstance(container, dict) else container.extend(content)
