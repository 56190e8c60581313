"""A multi-view model with its loss as one module: views and joints in, named loss terms out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill import CycleLoss
from cycledistill.integrations.coco.losses.heatmap import HeatmapLoss
from cycledistill.integrations.coco.losses.targets import heatmap_targets

from ..data.samples import Views
from ..evaluation.measure import call_model
from ..recipe import LossSection


class MultiViewTask(nn.Module):
    """What is trained, as one module, so that data-parallel training sees one forward.

    Args:
        model: A multi-view model, wrapped or not.
        loss: The scale of the task loss and the width of the targets.
    """

    def __init__(self, model: nn.Module, loss: LossSection) -> None:
        super().__init__()
        self.model = model
        self.scale, self.sigma = loss.scale, loss.sigma
        self.heatmap_loss = HeatmapLoss()
        self.criterion = CycleLoss(self._over_views)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Terms of the loss of a batch.

        Args:
            *inputs: The fields of one `Views` after the other, see :func:`flat`; the loss is their mean over moments.

        Returns:
            ``loss`` and its terms (``task`` or ``task_1``, ``task_2``, ...; ``token_...``), scalars with their weights
            applied.
        """
        groups = list(_grouped(inputs))
        moments = sum(views.pixels.shape[1] for views in groups)
        terms: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=inputs[0].device))
        for views in groups:
            target = self._targets(views)
            for name, term in self.criterion.parts(call_model(self.model, views), *target).items():
                terms[name] = terms[name] + term * (views.pixels.shape[1] / moments)
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def _targets(self, views: Views) -> tuple[Tensor, Tensor]:
        """Heatmaps (V * B, J, H, W) and weights (V * B, J)."""
        config: Any = self.model.config
        joints, labelled = views.joints.flatten(0, 1), views.labelled.flatten(0, 1)
        return heatmap_targets(joints, labelled, config.image_size, config.heatmap_size, self.sigma)

    def _over_views(self, predicted: Sequence[Tensor], target: Tensor, weight: Tensor) -> Tensor:
        """The sum over views of their losses, each a mean over its moments, as PPT trains."""
        loss: Tensor = self.heatmap_loss(torch.cat(list(predicted)), target, weight)
        return self.scale * len(predicted) * loss


def flat(batch: Sequence[Views], device: torch.device) -> tuple[Tensor, ...]:
    """A batch as the forward takes it, on ``device``."""
    return tuple(each.to(device, non_blocking=True) for views in batch for each in views)


def _grouped(inputs: Sequence[Tensor]) -> Iterator[Views]:
    fields = len(Views._fields)
    for start in range(0, len(inputs), fields):
        yield Views(*inputs[start : start + fields])
