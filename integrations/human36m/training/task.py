"""A lifting model with its loss as one module: keypoints and poses in, named loss terms out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cycledistill import CycleLoss
from cycledistill.plugin.install import handle_of
from cycledistill.recipes.run.accelerator import shared

from ..data.dataset import Batch
from ..errors import LiftingDataError
from ..recipe import LossSection
from .losses import LOSSES, Mask, MixSTELoss, SharedMask


class LiftTask(nn.Module):
    """What is trained, as one module, so that data-parallel training sees one forward.

    Args:
        model: A lifting model, wrapped or not.
        loss: Which loss, and whether repeated edge frames count.
    """

    def __init__(self, model: nn.Module, loss: LossSection) -> None:
        super().__init__()
        self.model = model
        self.masks = loss.border == "mask"
        self.criterion = CycleLoss(MixSTELoss() if loss.name == "mixste" else LOSSES[loss.name])

    def forward(self, inputs: Tensor, targets: Tensor, inside: Tensor) -> dict[str, Tensor]:
        """Terms of the loss of a batch.

        Args:
            inputs: (B, F, J, 2 or 3).
            targets: (B, F, J, 3), metres, root-relative.
            inside: (B, F), false at repeated edge frames.

        Returns:
            ``loss`` and its terms (``task`` or ``task_1``, ``task_2``, ...; ``token_...``), scalars with their weights
            applied.
        """
        out = self.model(inputs)
        if (out if isinstance(out, Tensor) else out[0]).shape[1] != targets.shape[1]:
            # only the kept frames have poses, and all of those are supervised
            targets, inside = self._hourglass.take(targets), self._hourglass.take(inside)
        terms = self.criterion.parts(out, targets, self._mask(inside))
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def _mask(self, inside: Tensor) -> Mask:
        if not self.masks:
            return None
        return SharedMask.of(inside) if self.training and shared() else inside

    @property
    def _hourglass(self) -> Any:
        handle = handle_of(self.model, "hourglass")
        if handle is None:
            raise LiftingDataError(
                "the model gives another number of poses than its input has frames, and has no hourglass that says "
                "which: only poses of all frames, or of those an hourglass kept, can be trained on"
            )
        return handle


def to_device(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Keypoints, poses and the mask of a batch, on ``device``."""
    inputs, targets, inside = batch["inputs"], batch["targets"], batch["inside"]
    return tuple(one.to(device, non_blocking=True) for one in (inputs, targets, inside))  # type: ignore[return-value]
