"""Residual log-likelihood estimation: a normalizing flow learns the shape of the errors of a coordinate regressor."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .heatmap import per_joint

_COUPLINGS = 6
_HIDDEN = 64
_EPS = 1e-9


class RealNVP(nn.Module):
    """A density of two-dimensional points: six affine couplings over a standard normal.

    Keys are those of the published checkpoints: ``s.{i}.{0,2,4}``, ``t.{i}.{0,2,4}``, ``loc``, ``cov``, ``mask``.

    Source: Dinh et al., "Density estimation using Real NVP" (ICLR 2017).
    """

    loc: Tensor
    cov: Tensor
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        # The prior is the standard normal; loc and cov stand in the published files and are not read.
        self.register_buffer("loc", torch.zeros(2))
        self.register_buffer("cov", torch.eye(2))
        self.register_buffer("mask", torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(_COUPLINGS // 2, 1))
        self.s = nn.ModuleList(_coupling(nn.Tanh()) for _ in range(_COUPLINGS))
        self.t = nn.ModuleList(_coupling() for _ in range(_COUPLINGS))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, gain=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Log density of points (N, 2): (N,)."""
        z, log_det = x, x.new_zeros(x.shape[0])
        for index in reversed(range(_COUPLINGS)):
            kept = self.mask[index]
            held = kept * z
            scale = self.s[index](held) * (1 - kept)
            shift = self.t[index](held) * (1 - kept)
            z = (1 - kept) * (z - shift) * torch.exp(-scale) + held
            log_det = log_det - scale.sum(dim=-1)
        return -0.5 * z.square().sum(dim=-1) - math.log(2 * math.pi) + log_det


class RLELoss(nn.Module):
    """Negative log-likelihood of joints under predicted means and deviations, with a learned error density.

    Per coordinate, with deviation s = sigmoid(logit) and error e = (mean - target) / s:
    ``log s - log_phi(e) + log 2s + |e|``: a Laplace density times the flow's correction (the "residual" form). Summed
    over joints and coordinates, divided by the batch size. The flow has 53,784 parameters, which train along with the
    model and are not needed to predict.

    Example:
        >>> criterion = CycleLoss(RLELoss())     # criterion.parameters() belong in the optimizer
        >>> loss = criterion(model(images), fractions, weight)

    Source: RLE (ICCV 2021, arXiv 2107.11291).
    """

    def __init__(self) -> None:
        super().__init__()
        self.flow_model = RealNVP()

    def forward(self, predicted: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            predicted: (B, K, 4): x, y in fractions of the image, and the logits of their deviations.
            target: (B, K, 2): x, y in fractions of the image.
            weight: (B, K), one weight a joint; default, 1 for all.

        Returns:
            A scalar.

        Raises:
            ValueError: Shapes that do not belong together.
        """
        if predicted.shape[-1] != 4 or target.shape != (*predicted.shape[:-1], 2):
            raise ValueError(
                f"predictions {tuple(predicted.shape)} and targets {tuple(target.shape)}: (B, K, 4), x, y and two "
                "logits of deviations, and (B, K, 2) are expected"
            )
        # A density of a quotient of small numbers: half precision would lose it.
        predicted, target = predicted.float(), target.float()
        mean, logits = predicted.split(2, dim=-1)
        error = (mean - target) / (logits.sigmoid() + _EPS)
        log_deviation = F.logsigmoid(logits)
        log_phi = self.flow_model(error.flatten(0, -2)).unflatten(0, error.shape[:-1])
        loss = 2 * log_deviation - log_phi[..., None] + math.log(2) + error.abs()
        if weight is not None:
            loss = loss * per_joint(weight, predicted)[..., None]
        return loss.sum() / predicted.shape[0]


def _coupling(*last: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(2, _HIDDEN),
        nn.LeakyReLU(0.01),
        nn.Linear(_HIDDEN, _HIDDEN),
        nn.LeakyReLU(0.01),
        nn.Linear(_HIDDEN, 2),
        *last,
    )
