"""Stop before a loss that is no number reaches the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from cycledistill.recipes.errors import NonFiniteLossError


def finite_terms(terms: Mapping[str, Tensor], where: str, last: object, advice: str) -> dict[str, float]:
    """The terms as numbers, ``"loss"`` among them; one transfer from the device.

    Args:
        terms: Scalars by name; ``"loss"`` is what was to be minimised.
        where: The step, for the message.
        last: The last checkpoint, for the message.
        advice: What usually helps.

    Raises:
        NonFiniteLossError: The loss is nan or infinite; step and guilty terms are named.
    """
    numbers = torch.stack([term.detach().float() for term in terms.values()]).tolist()
    losses = dict(zip(terms, numbers, strict=True))
    if math.isfinite(losses["loss"]):
        return losses
    guilty = [name for name, value in losses.items() if not math.isfinite(value) and name != "loss"]
    raise NonFiniteLossError(
        f"the loss is {losses['loss']} at {where}; not finite: {', '.join(guilty) or 'only their sum'}; all terms: "
        f"{losses}. The weights were not updated by this step; the last checkpoint is {last}. {advice}"
    )
