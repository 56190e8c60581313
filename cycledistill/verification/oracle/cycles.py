"""Two ways to know what N cycles must give, neither of which uses the library's cycles.

`Listed` is the plain model whose own container holds its blocks N times: the model's own forward runs them all. Some
models cannot be asked so, because they count their blocks, or read those of certain numbers: then listing idle blocks
before or after the real ones changes what they return. `ByHand` runs the blocks of one forward again in a loop of a few
lines, and then the model once more, in which each block is made to return what it did in the last round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from cycledistill.plugin.torch_private import children_of, tree_flatten, tree_unflatten
from cycledistill.verification.oracle.calls import BlockCall, Links, answering, links_of, listening, state_into
from cycledistill.verification.oracle.compare import is_same
from cycledistill.verification.oracle.plain import Place, find_place, plain
from cycledistill.verification.oracle.subject import Subject, Then, without_checkpointing
from cycledistill.verification.table import NotChecked


class Oracle(Protocol):
    """What a model must return after so many cycles."""

    @property
    def name(self) -> str:
        """How it knows, in words for a table."""

    def run(self, cycles: int, train: bool = False, then: Then | None = None) -> Any:
        """One forward of the plain model with its stack ``cycles`` times, as `Subject.run`."""


class Drops(Protocol):
    """What else is done to the plain model by hand: tokens or frames dropped in the first round.

    Hooks of ``inner`` act on what a block returns, before it counts as its result; those of ``outer`` on what it is
    given, before that counts as its arguments, and on results afterwards. ``again``: in the model's last run, where
    the blocks of the stack answer.
    """

    def inner(self, again: bool) -> AbstractContextManager[None]:
        """A context."""

    def outer(self, again: bool) -> AbstractContextManager[None]:
        """A context, entered last."""


def find_oracle(subject: Subject, path: str, drops: Drops | None = None) -> Oracle:
    """The blocks listed N times where the model can be asked so, else a loop by hand.

    Raises:
        NotChecked: Neither is possible.
        Failed: The blocks are no chain.
    """
    place = find_place(subject.model, path)
    by_hand = ByHand(subject, place, drops)
    calls: list[BlockCall] = []
    output = by_hand.record(calls)
    if not calls:
        raise NotChecked("no block of the stack runs with these inputs: give inputs that reach it")
    if drops is None and place.container is not None:
        listed = Listed(subject, place)
        if listed.is_understood(calls, output):
            return listed
    links_of(calls, place.blocks)
    if not is_same(by_hand.run(1), output):
        raise NotChecked("the model cannot be run by hand: with its own blocks' results it returns something else")
    return by_hand


@dataclass
class Listed:
    """The plain model, its blocks N times in their container."""

    subject: Subject
    place: Place
    name: str = "its blocks listed N times"

    def run(self, cycles: int, train: bool = False, then: Then | None = None) -> Any:
        """What the plain model returns with its blocks ``cycles`` times."""
        with self._holding(list(self.place.blocks) * cycles):
            return self.subject.tell(train, then)

    def is_understood(self, calls: Sequence[BlockCall], output: Any) -> bool:
        """Whether idle blocks before the real ones, or behind them, run once each and change nothing.

        And whether the model runs with each block twice, which one that collects states by hooks may not.
        """
        try:
            links = links_of(calls, self.place.blocks)
            idle = [_Idle(call, into) for call, into in zip(calls, links, strict=True)]
            for times, blocks in enumerate(([*idle, *self.place.blocks], [*self.place.blocks, *idle]), start=1):
                with self._holding(blocks):
                    if not is_same(self.subject.tell(), output) or any(each.runs != times for each in idle):
                        return False
            self.run(2)
        except Exception:  # whatever a model raises that finds other blocks than it was built with
            return False
        return True

    @contextmanager
    def _holding(self, blocks: Sequence[nn.Module]) -> Iterator[None]:
        assert self.place.container is not None
        children = children_of(self.place.container)
        own = dict(children)
        listed = list(own.values())
        listed[self.place.start : self.place.stop] = blocks
        try:
            children.clear()
            children.update((str(number), block) for number, block in enumerate(listed))
            yield
        finally:
            children.clear()
            children.update(own)


class _Idle(nn.Module):
    """Returns its tokens, in the form in which a block returns them, and does nothing to them."""

    def __init__(self, call: BlockCall, links: Links) -> None:
        super().__init__()
        self.call, self.links, self.runs = call, links, 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.runs += 1
        taken, _ = tree_flatten((args, kwargs))
        made = list(self.call.made)
        for i, j in self.links:
            made[i] = taken[j]
        return tree_unflatten(made, self.call.made_spec)


@dataclass
class ByHand:
    """The plain model, its blocks run again in a loop; ``drops`` happen in the first round alone."""

    subject: Subject
    place: Place
    drops: Drops | None = None
    name: str = "its blocks called by hand"

    def record(self, calls: list[BlockCall], train: bool = False, then: Then | None = None) -> Any:
        """One forward of the plain model, and the calls of its blocks."""
        with self._inner(False), listening(self.place.blocks, calls), self._outer(False):
            return self.subject.tell(train, then)

    def run(self, cycles: int, train: bool = False, then: Then | None = None) -> Any:
        """What the plain model returns when each block answers with what it gave in the last round."""
        calls: list[BlockCall] = []
        self.record(calls, train, then and (lambda output: output))
        links = links_of(calls, self.place.blocks)
        made = [call.made for call in calls]
        model = self.subject.model
        with plain(model), without_checkpointing(model), self.subject.recording(then is not None):
            for _ in range(cycles - 1):
                state = made[-1]
                for number, (call, into) in enumerate(zip(calls, links, strict=True)):
                    made[number] = state = call.again(state_into(into, state))
        answers = [tree_unflatten(leaves, call.made_spec) for call, leaves in zip(calls, made, strict=True)]
        with self._inner(True), answering(self.place.blocks, answers), self._outer(True):
            return self.subject.tell(train, then)

    def _inner(self, again: bool) -> AbstractContextManager[None]:
        return nullcontext() if self.drops is None else self.drops.inner(again)

    def _outer(self, again: bool) -> AbstractContextManager[None]:
        return nullcontext() if self.drops is None else self.drops.outer(again)
