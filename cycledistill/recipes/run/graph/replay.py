"""A training step that is captured once, and replayed for every batch of its shape."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cycledistill.plugin.running import values_hidden
from cycledistill.recipes.errors import NotCapturableError
from cycledistill.recipes.reading.guard import first_line
from cycledistill.recipes.run.graph.baked import BakedNumbers
from cycledistill.recipes.run.graph.capture import Capture
from cycledistill.recipes.run.graph.optimizer import make_capturable
from cycledistill.recipes.run.graph.watch import watched
from cycledistill.recipes.run.step import EagerStep, Inputs, Terms

_logger = logging.getLogger(__name__)

MOST_GRAPHS = 8
"""Shapes and settings a run may go through; more change too often for graphs to be of use."""
_WARM_UPS = 3


class _Key(NamedTuple):
    """What a step's graphs are good for."""

    logs: bool
    shapes: tuple[Hashable, ...]
    numbers: tuple[Hashable, ...]


@dataclass(frozen=True)
class _Graphs:
    """One step: the batch it reads, its two halves, and the terms that the first one writes."""

    inputs: Inputs
    gradients: Callable[[], None]
    update: Callable[[], None]
    terms: Terms


class GraphedStep:
    """A step as two CUDA graphs: one up to the gradients, one for the update.

    Between the two the loss can be read: no number that is none reaches the weights. What changes from step to step is
    on the device: the batch, copied into the graph's own; the learning rate; the weight of the average; the generator's
    seed. Python's numbers are baked in, so for each setting of them (`BakedNumbers`), and each shape, there is a graph.

    Which steps are replayed depends on the batch and on the optimiser's state alone, so that a run that goes on from a
    checkpoint does just what the run would have done: eager are the very first step, which makes that state, and
    batches of another size. Warm-up and capture leave no trace.

    Where no graph can be had, the steps run eagerly, and a warning says why.

    Args:
        eager: The step. Its optimiser is made capturable.
        capture: Makes the graphs.
        batch_size: Only batches of so many samples are replayed; default, all.

    Raises:
        NotCapturableError: The optimiser cannot be captured.

    Example:
        >>> step = GraphedStep(EagerStep(model, optimizer, losses), CudaCapture(torch.device("cuda")))
        >>> for count, (images, labels) in enumerate(batches, start=1):
        ...     step.set_rate(1e-3)
        ...     terms = step.gradients((images, labels))
        ...     step.update(count)
    """

    def __init__(self, eager: EagerStep, capture: Capture, batch_size: int | None = None) -> None:
        self.eager, self.capture, self.batch_size = eager, capture, batch_size
        self.rate = make_capturable(eager.optimizer)
        self.averaging = torch.zeros_like(self.rate)
        self.reason = ""
        """Why no graph is used any more; empty while they are."""
        self._baked: BakedNumbers | None = None
        self._graphs: dict[_Key, _Graphs] = {}
        self._current: _Graphs | None = None

    def set_rate(self, rate: float) -> None:
        """See `Step`."""
        self.rate.fill_(rate)
        for group in self.eager.optimizer.param_groups:  # schedulers put numbers there
            group["lr"] = self.rate

    def gradients(self, inputs: Inputs, logs: bool = False) -> Terms:
        """See `Step`."""
        self._current = None if self._runs_eagerly(inputs) else self._graphs_for(inputs, logs)
        if self._current is None:
            return self.eager.gradients(inputs, logs)
        for own, given in zip(self._current.inputs, inputs, strict=True):
            own.copy_(given)
        self._current.gradients()
        return self._current.terms

    def update(self, count: int) -> None:
        """See `Step`."""
        if self._current is None:
            with _capturable_uncaptured():
                return self.eager.update(count)
        if self.eager.ema is not None:
            self.averaging.fill_(1 - self.eager.ema.get_decay(count))
        self._current.update()

    def _runs_eagerly(self, inputs: Inputs) -> bool:
        other_size = self.batch_size is not None and any(each.shape[:1] != (self.batch_size,) for each in inputs)
        return bool(self.reason) or other_size or not self.eager.optimizer.state

    def _graphs_for(self, inputs: Inputs, logs: bool) -> _Graphs | None:
        """The graphs of this shape and these settings; none where there can be none."""
        shapes = tuple((each.shape, each.dtype) for each in inputs)
        key = _Key(logs, shapes, self._baked.now() if self._baked else ())
        if key in self._graphs:
            return self._graphs[key]
        try:
            if len(self._graphs) == MOST_GRAPHS:
                changed = self._difference(next(reversed(self._graphs)), key)
                raise NotCapturableError(f"it would need more than {MOST_GRAPHS} graphs: there changes {changed}")
            graphs = self._captured(inputs, logs)
        except (NotCapturableError, torch.OutOfMemoryError) as error:
            self.reason = first_line(error)
            self._graphs.clear()
            _logger.warning("run.compile=graph: the steps run eagerly: %s", self.reason)
            return None
        if graphs is not None:
            assert self._baked is not None
            self._graphs[key._replace(numbers=self._baked.now())] = graphs  # what the warm-up began is among them
        return graphs

    def _difference(self, before: _Key, after: _Key) -> str:
        """In words, what another graph is needed for."""
        assert self._baked is not None
        if before.shapes != after.shapes:
            return "the shapes of its batches"
        return self._baked.difference(before.numbers, after.numbers) or "whether its measures are logged"

    def _captured(self, inputs: Inputs, logs: bool) -> _Graphs | None:
        """The graphs of a step on copies of these inputs; none while the optimiser's state is not yet complete."""
        own, state = tuple(each.clone() for each in inputs), self.eager.optimizer.state
        known, device = set(state), self.capture.device
        devices = [] if device.type == "cpu" else [device]
        with values_hidden(), torch.random.fork_rng(devices):
            with self._undone(), self.capture.aside():
                self._warm_up(own, logs)
            self.eager.optimizer.zero_grad(set_to_none=True)  # the graph's gradients lie in its own memory
            early = set(state) - known
            for parameter in early:  # begun in the warm-up: a graph would begin it in every step
                del state[parameter]
            if early:
                return None
            gradients, terms = self.capture.record(lambda: self.eager.gradients(own, logs))
            update, _ = self.capture.record(self._update_on_device)
        return _Graphs(own, gradients, update, terms)

    def _warm_up(self, own: Inputs, logs: bool) -> None:
        """Run the step as it will be captured, and look for what a graph could not hold."""
        known = self._baked or BakedNumbers(self.eager.task, self.eager.optimizer)
        begun = known.now()
        for number in range(_WARM_UPS):
            with watched(self.capture.device) if number == 0 else nullcontext():
                self.eager.gradients(own, logs)
                self._update_on_device()
            if number == 0:  # chosen after a step, which a run that goes on from a checkpoint has not done before
                self._baked = self._baked or BakedNumbers(self.eager.task, self.eager.optimizer)
                before = self._baked.now()
        assert self._baked is not None
        changed = known.difference(begun, known.now(), may_begin=True)
        changed = changed or self._baked.difference(before, self._baked.now())
        if changed:
            raise NotCapturableError(f"the step itself changes a number, which a graph would keep: {changed}")

    def _update_on_device(self) -> None:
        """The update, with all that changes from step to step in tensors."""
        with _capturable_uncaptured():
            self.eager.optimizer.step()
        with torch.no_grad():
            for average, value in self._averages():
                if average.is_floating_point():
                    average.lerp_(value.to(average.dtype), self.averaging.to(average.dtype))
                else:
                    average.copy_(value)

    def _averages(self) -> list[tuple[Tensor, Tensor]]:
        """Each tensor of the average, and the one it follows."""
        if self.eager.ema is None:
            return []
        both = (self.eager.ema.module.state_dict().values(), self.eager.model.state_dict().values())
        return list(zip(*both, strict=True))

    @contextmanager
    def _undone(self) -> Iterator[None]:
        """Put back, in place, all that a step changes."""
        task, slots = self.eager.task, self.eager.optimizer.state.values()
        tensors = [*task.parameters(), *task.buffers(), *(average for average, _ in self._averages())]
        tensors += [value for slot in slots for value in slot.values() if isinstance(value, Tensor)]
        before = [tensor.detach().clone() for tensor in tensors]
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in zip(tensors, before, strict=True):
                    tensor.copy_(value)


@contextmanager
def _capturable_uncaptured() -> Iterator[None]:
    """Keep an optimiser from warning that it is capturable and runs eagerly: in the first step, and to warm up."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This instance was constructed with capturable=True")
        yield
