"""Hooks of mmengine: a schedule of the distillation weight, and weights that others can read. Imports mmengine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from cycledistill.recipes.weights.files import write_weights

from .key_map import from_mmpose

DISTILL_FACTOR = "cycledistill_factor"
"""Where the factor stands in the runner's message hub."""


@HOOKS.register_module()
class DistillWeightHook(Hook):
    """Multiplies the distillation terms by a factor that moves along a line from ``start`` to ``stop``.

    The factor is ``start`` before ``begin`` and ``stop`` from ``end`` on. It follows from the iteration alone, so a
    resumed run goes on as if it had not stopped. It is in the message hub, where the head reads it, and is logged.

    Args:
        begin: First epoch, or iteration, in which the factor moves.
        end: First one in which it stands still again.
        start: Factor before.
        stop: Factor after.
        by_epoch: ``begin`` and ``end`` are epochs; the factor still moves at every iteration.

    Raises:
        ValueError: ``end`` before ``begin``, or a factor below 0.

    Example:
        >>> custom_hooks = [dict(type="DistillWeightHook", begin=0, end=10)]   # warm up over ten epochs
    """

    priority = "NORMAL"

    def __init__(
        self, begin: int = 0, end: int = 0, start: float = 0.0, stop: float = 1.0, by_epoch: bool = True
    ) -> None:
        if not 0 <= begin <= end:
            raise ValueError(f"begin={begin}, end={end}: 0 <= begin <= end is expected")
        if min(start, stop) < 0:
            raise ValueError(f"start={start}, stop={stop}: factors of at least 0 are expected")
        self.begin, self.end, self.start, self.stop, self.by_epoch = begin, end, start, stop, by_epoch

    def factor(self, iteration: int, per_epoch: int) -> float:
        """The factor in an iteration, counted from 0, with ``per_epoch`` iterations an epoch."""
        unit = per_epoch if self.by_epoch else 1
        begin, end = self.begin * unit, self.end * unit
        if iteration >= end:
            return self.stop
        passed = max(iteration - begin, 0) / (end - begin) if end > begin else 0.0
        return self.start + (self.stop - self.start) * passed

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Put this iteration's factor into the message hub."""
        per_epoch = len(runner.train_dataloader) if self.by_epoch else 1
        factor = self.factor(runner.iter, per_epoch)
        runner.message_hub.update_info(DISTILL_FACTOR, factor)
        runner.message_hub.update_scalar("train/distill_factor", factor)


@HOOKS.register_module()
class PlainWeightsHook(Hook):
    """Writes ``weights.safetensors`` into the work folder when training ends, under the names of the plain pose model.

    mmengine's own checkpoints hold pickled objects beside tensors; this file runs no code when read, and
    ``load_pose_weights`` of the COCO integration takes it as it is.
    """

    priority = "VERY_LOW"

    def after_train(self, runner: Any) -> None:
        """Write the file, from the first process."""
        if not is_main_process():
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        path = Path(runner.work_dir) / "weights.safetensors"
        write_weights(from_mmpose(model.state_dict()), path)
        runner.logger.info(f"weights of the plain pose model: {path}")
