"""A timm training task that trains every cycle: EMA, compile, DDP, clipping and plain checkpoints come from timm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from timm.task import ClassificationTask
from timm.utils.model import unwrap_model
from torch import nn

from cycledistill import CycleLoss, CycleOutput, Distill, wrap_cyclic
from cycledistill.plugin.install import handle_of


class CyclicTask(ClassificationTask):
    """``timm.task.ClassificationTask`` for a model that runs its blocks several times while training.

    Args:
        model: A timm classifier, plain (it is then wrapped in place) or wrapped already (the next three arguments
            then have no effect).
        criterion: Loss of one cycle's logits against the target; made from ``criterion_kwargs`` when absent.
        cycles: Cycles while training.
        distill: A preset's name, a ``Distill``, a callable, or nothing: see ``wrap_cyclic``.
        blocks: Path of the stack, or ``"auto"``.
        criterion_kwargs: For ``timm.loss.create_classification_loss``: ``smoothing``, ``soft_targets``, ...
        device: Device for the criterion's buffers.
        dtype: Their dtype.
        verbose: Log the criterion's name.

    Calling the task gives a dict: ``loss`` (scalar), ``output`` (cycle 1's logits, (B, classes): the deployed
    prediction), and every term of the loss under its own name (``task_1``, ``task_2``, ``token_patch``, ...; output
    distillation is ``output_loss``). In eval mode: ``loss``, ``output`` and ``task``.

    The weights in ``get_checkpoint_state()`` have the keys of the unwrapped model.

    Example:
        >>> task = CyclicTask(timm.create_model("deit_tiny_patch16_224"), cycles=2, distill="exits")
        >>> task.setup_ema(decay=0.99996)
        >>> result = task(images, labels)
        >>> result["loss"].backward()
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: nn.Module | Callable[..., torch.Tensor] | None = None,
        cycles: int = 2,
        distill: str | Distill | Callable[[CycleOutput], torch.Tensor] | None = "exits",
        blocks: str = "auto",
        criterion_kwargs: dict[str, Any] | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        verbose: bool = True,
    ):
        if handle_of(model, "cyclic") is None:
            wrap_cyclic(model, cycles, distill, blocks=blocks)
        super().__init__(model, criterion, criterion_kwargs, device=device, dtype=dtype, verbose=verbose)
        self.criterion = CycleLoss(self.criterion)

    @property
    def model(self) -> nn.Module:
        """The timm model, without DDP and compile."""
        return unwrap_model(self.trainable_module)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (B, C, H, W) and labels (B,) or soft targets (B, classes) to the dict described above."""
        output = self.trainable_module(input)
        terms = cast(CycleLoss, self.criterion).parts(output, target)
        parts = {"output_loss" if name == "output" else name: term for name, term in terms.items()}
        student = output[0] if isinstance(output, CycleOutput) else output
        first, *rest = parts.values()
        return {"loss": sum(rest, first), "output": student, **parts}
