"""A pose model with its loss as one module: images and joints in, named loss terms out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cycledistill import CycleLoss, CycleOutput, Distill
from cycledistill.output import UnscaledTerms

from ..data.dataset import Batch, prepare_images
from ..losses.heatmap import HeatmapLoss
from ..losses.rle import RLELoss
from ..losses.targets import heatmap_targets
from ..losses.token_reg import TokenRegLoss
from ..models.config import TokenPoseConfig
from ..models.tokenpose import TokenPose
from ..recipe import LossSection


class PoseTask(nn.Module):
    """What is trained: the model, and the loss of its head, which may have parameters of its own (RLE's flow).

    One module, so that data-parallel training averages the gradients of both and sees one forward.

    Args:
        model: A pose model, wrapped or not.
        loss: The scale of the task loss and the width of the targets.
    """

    def __init__(self, model: TokenPose, loss: LossSection) -> None:
        super().__init__()
        self.model = model
        self.scale, self.sigma = loss.scale, loss.sigma
        self.task_loss = _task_loss(model.config, loss.sigma)
        self.criterion = CycleLoss(self._scaled)

    def forward(self, images: Tensor, joints: Tensor, visible: Tensor, measures: bool = False) -> dict[str, Tensor]:
        """Terms of the loss of a batch.

        Args:
            images: (B, 3, H, W), normalised.
            joints: (B, K, 2), in input pixels.
            visible: (B, K), above 0 where labelled.
            measures: Also return what :meth:`_measured` says; for a row of the log, now and then.

        Returns:
            ``loss``, its terms (``task`` or ``task_1``, ``task_2``, ...; ``token_keypoint``, ``token_visual``), each a
            scalar with its weight applied, and, where asked for, measures without gradient.
        """
        target = self.targets(joints, visible)
        out = self.model(images)
        terms = self.criterion.parts(out, *target)
        result = {"loss": torch.stack(list(terms.values())).sum(), **terms}
        if measures and isinstance(out, CycleOutput):
            with torch.no_grad():
                result |= self._measured(out, terms)
        return result

    def targets(self, joints: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Heatmaps, or fractions of the image, and weights (B, K), as the model's head needs them."""
        config = self.model.config
        if config.head == "heatmap":
            return heatmap_targets(joints, visible, config.image_size, config.heatmap_size, self.sigma)
        height, width = config.image_size
        x, y = joints[..., 0], joints[..., 1]
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        weights = ((visible > 0) & inside).to(joints.dtype)
        return torch.stack([x / width, y / height], dim=-1) * weights[..., None], weights

    def _scaled(self, predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        loss: Tensor = self.task_loss(predicted, target, weight)
        return loss if self.scale == 1 else self.scale * loss

    def _measured(self, out: CycleOutput, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Root mean square of each cycle's tokens, and each cycle's token loss over its task loss."""
        measured = {}
        for cycle, tokens in enumerate(out.tokens, start=1):
            assert isinstance(tokens, Tensor)
            measured[f"token_rms_{cycle}"] = tokens.float().square().mean().sqrt()
        distill = self.model.cyclic.distill  # type: ignore[union-attr]
        if not isinstance(distill, Distill) or distill.student == "random":
            return measured
        scale = _scale(out, terms)
        for cycle in range(1, len(out)):
            teacher = cycle if distill.teacher == "next" else len(out) - 1
            outputs, states = ((values[cycle - 1], values[teacher]) for values in (out.outputs, out.tokens))
            losses = distill.losses(outputs, states, self.model.token_groups)
            found = losses.tokens if isinstance(losses, UnscaledTerms) else losses
            tokens_loss = [value for name, value in found.items() if name.startswith("token_")]
            if tokens_loss and f"task_{cycle}" in terms:
                measured[f"token_task_ratio_{cycle}"] = scale * torch.stack(tokens_loss).sum() / terms[f"task_{cycle}"]
        return measured


def _scale(out: CycleOutput, terms: dict[str, Tensor]) -> Tensor | float:
    """What ``CycleLoss`` multiplied the token terms by."""
    if not isinstance(out.losses, UnscaledTerms):
        return 1.0
    name, raw = next(iter(out.losses.tokens.items()))
    return torch.where(raw == 0, 0.0, terms[name] / raw)


def to_device(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised images, joints and visibility of a batch, on ``device``; the pixels travel as bytes."""
    joints, visible = batch["joints"], batch["visible"]
    images = prepare_images(batch["image"].to(device, non_blocking=True))
    return images, joints.to(device, non_blocking=True), visible.to(device, non_blocking=True)


def _task_loss(config: TokenPoseConfig, sigma: float) -> nn.Module:
    if config.head == "heatmap":
        return HeatmapLoss()
    return RLELoss() if config.head == "rle" else TokenRegLoss(config.heatmap_size, sigma)
