"""The optimiser that a recipe's section ``optim`` names."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def create_optimizer(module: nn.Module, section: Any) -> torch.optim.Optimizer:
    """Adam, AdamW, or Adam with AMSGrad, over the parameters of ``module`` that are trained."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if section.name == "adamw":
        return torch.optim.AdamW(parameters, lr=section.lr, weight_decay=section.weight_decay)
    return torch.optim.Adam(
        parameters, lr=section.lr, weight_decay=section.weight_decay, amsgrad=section.name == "amsgrad"
    )
