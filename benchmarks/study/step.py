"""One step of a run: the losses, the gradients, the optimizer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cycledistill import CycleLoss, CycleOutput
from cycledistill.recipes.errors import NotCapturableError
from cycledistill.recipes.run.graph.capture import Capture, CudaCapture
from cycledistill.recipes.run.graph.replay import GraphedStep
from cycledistill.recipes.run.step import EagerStep, Step

from .plan import Plan
from .tasks.task import Inputs

_logger = logging.getLogger(__name__)

Teaching = Callable[[CycleOutput, Tensor], Tensor]
_TEMPERATURE = 2.0


def make_step(
    model: nn.Module,
    beside: nn.Module,
    criterion: CycleLoss,
    optimizer: torch.optim.Optimizer,
    plan: Plan,
    device: torch.device,
    teach: Teaching | None = None,
) -> Step:
    """A training step, captured as a CUDA graph where there are any.

    Args:
        model: Wrapped.
        beside: What is trained with it.
        criterion: Of all outputs; it remembers, so it is the run's.
        optimizer: Of both.
        plan: For precision and clipping.
        device: Where it computes.
        teach: A further loss of what the model gave and of its input.
    """
    bf16 = plan.training.precision == "bf16"

    def losses(inputs: Inputs, logs: bool) -> dict[str, Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            out = model(inputs[0])
            terms = criterion.parts(out, *inputs[1:])
            if teach is not None:
                terms["taught"] = teach(out, inputs[0])
        rms = {f"rms_{n}": tokens.detach().float().square().mean().sqrt() for n, tokens in enumerate(out.tokens, 1)}
        return {"loss": torch.stack(list(terms.values())).sum(), **terms, **rms}

    def clip() -> None:
        nn.utils.clip_grad_norm_((*model.parameters(), *beside.parameters()), plan.training.clip)

    task = nn.ModuleList([model, criterion])
    eager = EagerStep(task, optimizer, losses, clip=clip if plan.training.clip else None)
    capture = capture_on(device)
    if capture is None:
        return eager
    try:
        return GraphedStep(eager, capture)
    except NotCapturableError as error:
        _logger.warning("the steps run eagerly: %s", error)
        return eager


def taught_by(average: nn.Module) -> Teaching:
    """The first cycle learns the outputs of an average of the weights (mean teachers, arXiv 1703.01780; by KL)."""

    def teach(out: CycleOutput, given: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = (average(given).float() / _TEMPERATURE).log_softmax(1)
        told = (out[0].float() / _TEMPERATURE).log_softmax(1)
        return F.kl_div(told, wanted, reduction="none", log_target=True).sum(1).mean() * _TEMPERATURE**2

    return teach


def optimizer_of(module: nn.Module, plan: Plan) -> torch.optim.AdamW:
    """AdamW, with weight decay on matrices alone."""
    matrices = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    on_gpu = next(module.parameters()).is_cuda
    return torch.optim.AdamW(
        groups, lr=plan.training.rate, weight_decay=plan.training.weight_decay, fused=True, capturable=on_gpu
    )


def capture_on(device: torch.device) -> Capture | None:
    """What makes graphs of a device's steps; a small model on a large GPU is bound by launches without them."""
    return CudaCapture(device) if device.type == "cuda" else None
