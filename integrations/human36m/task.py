"""A lifting model with its loss as one module: keypoints and poses in, named loss terms out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cycledistill import CycleLoss

from .dataset import Batch
from .losses import LOSSES
from .recipe import LossSection


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
        self.criterion = CycleLoss(LOSSES[loss.name])

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
        frames = (out if isinstance(out, Tensor) else out[0]).shape[1]
        if frames != targets.shape[1]:  # only the kept frames have poses, and all of those are supervised
            index = self._kept(frames)
            targets = targets.gather(1, index[..., None, None].expand(-1, -1, *targets.shape[2:]))
            inside = inside.gather(1, index)
        terms = self.criterion.parts(out, targets, inside if self.masks else None)
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def _kept(self, frames: int) -> Tensor:
        handle: Any = getattr(self.model, "hourglass", None)
        index = None if handle is None else handle.index
        if not isinstance(index, Tensor) or index.shape[-1] != frames:
            raise ValueError(
                f"the model gave {frames} poses, which are neither one for each frame nor those of an hourglass's kept "
                "frames: a model made for single frames cannot be trained on sequences"
            )
        return index


def to_device(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Keypoints, poses and the mask of a batch, on ``device``."""
    inputs, targets, inside = batch["inputs"], batch["targets"], batch["inside"]
    return tuple(one.to(device, non_blocking=True) for one in (inputs, targets, inside))  # type: ignore[return-value]
