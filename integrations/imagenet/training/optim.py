"""The optimiser, the learning rate and drop path over the run, as functions of the step alone."""

from __future__ import annotations

from typing import Any

from timm.layers.drop import DropPath
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from timm.scheduler.scheduler_factory import create_scheduler_v2
from torch import nn
from torch.optim import Optimizer

from ..recipe import Recipe


def create_optimizer(model: nn.Module, recipe: Recipe, images_per_step: int) -> Optimizer:
    """DeiT's AdamW: no weight decay on biases, norms and what the model exempts (positions, class token).

    Args:
        model: The model, wrapped or not: its parameter groups are the same.
        recipe: The recipe.
        images_per_step: Batch size times processes; the rate is ``optim.lr * images_per_step / 512``.
    """
    optim = recipe.optim
    kwargs: dict[str, Any] = {"eps": optim.eps, "betas": tuple(optim.betas)} if "adam" in optim.name else {}
    return create_optimizer_v2(
        model,
        opt=optim.name,
        lr=optim.lr * images_per_step / 512,
        weight_decay=optim.weight_decay,
        **kwargs,
    )


class Schedule:
    """Sets the learning rate and drop path for a step; asks for the step and keeps no state.

    Args:
        optimizer: Its groups' ``lr`` is set.
        model: Its ``DropPath`` modules' ``drop_prob`` is set where the recipe limits drop path to the first epochs.
        recipe: The recipe.
        steps_per_epoch: Optimiser steps of an epoch.

    Source: cosine with warm-up as DeiT (arXiv 2012.12877); early stochastic depth, Liu et al. (arXiv 2303.01500),
    section 4: drop path only at the start of training helps models that underfit.
    """

    def __init__(self, optimizer: Optimizer, model: nn.Module, recipe: Recipe, steps_per_epoch: int):
        schedule = recipe.schedule
        self.steps_per_epoch, self.per_step = steps_per_epoch, schedule.per_step
        self.drop_steps = schedule.drop_path_epochs and schedule.drop_path_epochs * steps_per_epoch
        self.linear = schedule.drop_path_shape == "linear"
        self.drop_paths = [(m, m.drop_prob) for m in model.modules() if isinstance(m, DropPath)]
        self.optimizer = optimizer
        self.scheduler, _ = create_scheduler_v2(
            optimizer,
            sched="cosine",
            num_epochs=schedule.epochs,
            warmup_epochs=schedule.warmup_epochs,
            warmup_lr=schedule.warmup_lr,
            min_lr=schedule.min_lr,
            step_on_epochs=not schedule.per_step,
            updates_per_epoch=steps_per_epoch,
        )

    def set(self, epoch: int, batch: int) -> float:
        """Prepare batch ``batch`` of ``epoch``; returns the learning rate of the first group."""
        step = epoch * self.steps_per_epoch + batch
        if self.per_step:
            self.scheduler.step_update(step)
        else:
            self.scheduler.step(epoch)
        if self.drop_steps:
            factor = max(0.0, 1 - step / self.drop_steps) if self.linear else float(step < self.drop_steps)
            for module, rate in self.drop_paths:
                module.drop_prob = rate * factor
        return float(self.optimizer.param_groups[0]["lr"])
