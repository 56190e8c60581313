"""One training step: the gradients of a batch's loss, and the update by them once the loss is known to be a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

Inputs = tuple[Tensor, ...]
"""A batch as the forward takes it, on the device."""


class Terms(NamedTuple):
    """The named terms of a step's loss, among them ``loss``; as many values on the device."""

    names: tuple[str, ...]
    values: Tensor

    def numbers(self) -> dict[str, float]:
        """The terms as numbers; one transfer from the device, which it waits for."""
        return dict(zip(self.names, self.values.tolist(), strict=True))


class Step(Protocol):
    """What the loop does with a batch."""

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the steps to come."""

    def gradients(self, inputs: Inputs, logs: bool = False) -> Terms:
        """Forward, backward and clipping; no weight is changed. The terms are good until the next call."""

    def update(self, count: int) -> None:
        """The optimiser's step by these gradients, and the average's; ``count``: steps done, this one included."""


class EagerStep:
    """A step that runs as it is written.

    Args:
        task: What is trained: all parameters and buffers that a step may change, and all modules whose numbers are set
            from outside, a criterion's among them. Numbers elsewhere stay in a graph (`GraphedStep`) as they were.
        optimizer: Over the parameters of ``task``.
        losses: The forward: inputs, and whether measures for the log are wanted, to ``loss`` and its terms.
        backward: What is done with the loss.
        clip: Limits the gradients.
        ema: A moving average of ``model``'s weights, as timm's ``ModelEmaV3``.
        model: The part of ``task`` that is averaged; default: all.

    Example:
        >>> step = EagerStep(model, optimizer, lambda inputs, logs: {"loss": model(inputs[0]).mean()})
        >>> step.gradients((images,)).numbers()
        >>> step.update(1)
    """

    def __init__(
        self,
        task: nn.Module,
        optimizer: Any,
        losses: Callable[[Inputs, bool], dict[str, Tensor]],
        *,
        backward: Callable[[Tensor], None] = Tensor.backward,
        clip: Callable[[], None] | None = None,
        ema: Any = None,
        model: nn.Module | None = None,
    ) -> None:
        self.task, self.optimizer, self.losses = task, optimizer, losses
        self.backward, self.clip, self.ema = backward, clip, ema
        self.model = task if model is None else model

    def set_rate(self, rate: float) -> None:
        """See `Step`."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def gradients(self, inputs: Inputs, logs: bool = False) -> Terms:
        """See `Step`."""
        terms = self.losses(inputs, logs)
        values = torch.stack([term.detach().float() for term in terms.values()])
        self.optimizer.zero_grad(set_to_none=True)
        self.backward(terms["loss"])
        if self.clip is not None:
            self.clip()
        return Terms(tuple(terms), values)

    def update(self, count: int) -> None:
        """See `Step`."""
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.model, step=count)
