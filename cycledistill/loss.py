"""The loss that trains every cycle of a wrapped model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from cycledistill.output import CycleOutput


class CycleLoss(nn.Module):
    """The loss of a wrapped model: the task loss of every cycle, weighted, plus the distillation terms.

    Args:
        task_loss: ``task_loss(output, *target) -> scalar``; each cycle's whole output is passed to it. ``None``: the
            outputs carry their own ``.loss`` (Hugging Face models given labels).

    A plain output (the same model in eval) goes straight to ``task_loss``, so one criterion serves both.

    Example:
        >>> criterion = CycleLoss(nn.CrossEntropyLoss())
        >>> criterion(model(images), labels).backward()
    """

    def __init__(self, task_loss: Callable[..., torch.Tensor] | None = None) -> None:
        super().__init__()
        if task_loss is not None and not callable(task_loss):
            raise TypeError(f"task_loss={task_loss!r}: a callable (output, *target) -> scalar, or None, is expected")
        self.task_loss = task_loss

    def forward(self, out: Any, *target: Any) -> torch.Tensor:
        """The training loss of a :class:`CycleOutput`, or the task loss of a plain output: a scalar."""
        terms = list(self.parts(out, *target).values())
        return sum(terms[1:], terms[0])

    def parts(self, out: Any, *target: Any) -> dict[str, torch.Tensor]:
        """The named terms that sum to the loss, for logging: ``task_1``, ``task_2``, ... and those of ``out.losses``.

        Cycles of task weight 0 have no term. A plain output has the one term ``task``.
        """
        if not isinstance(out, CycleOutput):
            return {"task": self._task(out, *target)}
        terms = {
            f"task_{cycle}": weight * self._task(output, *target)
            for cycle, (output, weight) in enumerate(zip(out.outputs, out.task_weights, strict=True), start=1)
            if weight != 0
        }
        return {**terms, **out.losses}

    def _task(self, output: Any, *target: Any) -> torch.Tensor:
        if self.task_loss is not None:
            return checked_scalar(self.task_loss(output, *target), "the task loss")
        loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
        if loss is None:
            raise ValueError(
                f"CycleLoss() without a task loss sums the outputs' own .loss, and this {type(output).__name__} has "
                "none: pass labels to the model, or give CycleLoss(task_loss)"
            )
        return loss


def checked_scalar(loss: Any, source: str) -> torch.Tensor:
    """The loss that ``source`` returned, refused where it is no scalar tensor."""
    if isinstance(loss, torch.Tensor) and loss.ndim == 0:
        return loss
    given = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else repr(loss)
    raise ValueError(f"{source} returned {given}: a scalar tensor is expected (reduction='mean' or 'sum')")
