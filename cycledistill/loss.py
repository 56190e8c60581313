"""The loss that trains every cycle of a wrapped model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from cycledistill.inert import InertTerms
from cycledistill.output import CycleOutput, UnscaledTerms
from cycledistill.plugin.running import is_eager
from cycledistill.plugin.torch_private import is_transformed

MEMORY = 20
"""Steps that the running mean of the task loss is taken over, about: it is smooth, and follows a loss that falls."""
_LEAST = 1e-8
"""Token losses below it keep less than their share: where cycles are all but equal, rounding would be blown up."""


class CycleLoss(nn.Module):
    """The loss of a wrapped model: the task loss of every cycle, weighted, plus the distillation terms.

    Args:
        task_loss: ``task_loss(output, *target) -> scalar``; each cycle's whole output is passed to it. ``None``: the
            outputs carry their own ``.loss`` (Hugging Face models given labels).

    A plain output (the same model in eval) goes straight to ``task_loss``, so one criterion serves both.

    The criterion remembers: make it once, not in each step. For ``Distill(token_weight="auto")`` a buffer holds the
    running mean of the task loss, and the token terms of a step are multiplied, without gradient, by what makes them
    ``token_fraction`` of it together. Each output in training with gradients counts once, however often its loss or
    parts are asked for, but for losses that are no finite numbers. A state dict without the buffers is loaded as one of
    a new criterion. Every process has a mean of its own, unless the criterion is inside a model under DDP, which hands
    out the first one's.

    A distillation term under a millionth of the task loss is told of in the log, once, by what the first steps show.

    Example:
        >>> criterion = CycleLoss(nn.CrossEntropyLoss())
        >>> criterion(model(images), labels).backward()
    """

    def __init__(self, task_loss: Callable[..., torch.Tensor] | None = None) -> None:
        super().__init__()
        if task_loss is not None and not callable(task_loss):
            raise TypeError(f"task_loss={task_loss!r}: a callable (output, *target) -> scalar, or None, is expected")
        self.task_loss = task_loss
        self.register_buffer("task_mean", torch.zeros((), dtype=torch.float32))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self._inert = InertTerms()
        self.register_load_state_dict_pre_hook(_start_anew)

    def forward(self, out: Any, *target: Any) -> torch.Tensor:
        """The training loss of a :class:`CycleOutput`, or the task loss of a plain output: a scalar."""
        return _total(self.parts(out, *target))

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
        if not out.losses or not terms:
            return {**terms, **out.losses}
        task = _total(terms)
        scaled = self._scaled(task, out.losses) if isinstance(out.losses, UnscaledTerms) else out.losses
        if is_eager() and self._learns():
            self._inert.look(task, scaled)
        return {**terms, **scaled}

    def _learns(self) -> bool:
        return self.training and torch.is_grad_enabled() and not is_transformed()

    def _scaled(self, task: torch.Tensor, terms: UnscaledTerms) -> dict[str, torch.Tensor]:
        learns = self._learns() and id(self) not in terms.counted
        if learns:
            terms.counted += (id(self),)
        with torch.no_grad():
            tokens = _total(terms.tokens).abs().float()
            mean = self._mean(task.abs().to(tokens), learns)
            # By this step's tokens, not by a mean of theirs: they fall fast once they are trained, and a mean lags.
            scale = terms.fraction * mean / tokens.clamp(min=_LEAST)
        return {**{name: scale * term for name, term in terms.tokens.items()}, **terms.weighted}

    def _mean(self, task: torch.Tensor, learns: bool) -> torch.Tensor:
        """The running mean of the task loss with this step, float32 on its device; kept if the criterion ``learns``.

        Nothing here depends on a value: in a compiled or captured step it is the same work whatever the numbers are.
        """
        seen, before = (self.get_buffer(name).to(task.device) for name in ("seen", "task_mean"))
        before = before.float()
        counts = torch.isfinite(task) & ((seen == 0) | learns)  # with nothing before, an evaluation goes by its own
        rate = torch.where(counts, (1 / (seen + 1).float()).clamp(min=1 / MEMORY), 0.0)
        mean = before + rate * (torch.where(counts, task, before) - before)
        if learns:
            self._keep("task_mean", mean)
            self._keep("seen", seen + counts)
        return mean

    def _keep(self, name: str, value: torch.Tensor) -> None:
        """Write a buffer in place; one that was left on another device moves, once, to where the loss is."""
        buffer = self.get_buffer(name)
        if buffer.device == value.device:
            buffer.copy_(value)
        else:
            setattr(self, name, value.to(buffer.dtype))

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


def _start_anew(loss: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """State dicts of losses without a memory, as of a new one."""
    for name, buffer in loss.named_buffers(recurse=False):
        state.setdefault(prefix + name, torch.zeros_like(buffer))


def _total(terms: Mapping[str, torch.Tensor]) -> torch.Tensor:
    values = list(terms.values())
    return sum(values[1:], values[0])


def checked_scalar(loss: Any, source: str) -> torch.Tensor:
    """The loss that ``source`` returned, refused where it is no scalar tensor."""
    if isinstance(loss, torch.Tensor) and loss.ndim == 0:
        return loss
    given = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else repr(loss)
    raise ValueError(f"{source} returned {given}: a scalar tensor is expected (reduction='mean' or 'sum')")
