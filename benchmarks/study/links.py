"""What a further cycle starts from, by hooks on the first block of the stack."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .plan import Link

_RANK = 4


class Adapter(nn.Module):
    """A low-rank map that is added to the tokens, nothing at first, as in LoRA (arXiv 2106.09685)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, _RANK, bias=False), nn.Linear(_RANK, width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (..., C)."""
        changed: Tensor = tokens + self.up(self.down(tokens))
        return changed


def link_cycles(model: nn.Module, first_block: nn.Module, link: Link, width: int) -> nn.Module | None:
    """Let further cycles start from something else than the tokens of the cycle before; cycle 1 is as it was.

    Returns:
        What is trained with the model and is not in it, so that it goes with the cycles.
    """
    if link == "plain":
        return None
    adapter = Adapter(width).to(next(model.parameters()).device) if link == "adapter" else None
    seen: dict[str, Tensor] = {}

    def begin(module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.clear()

    def enter(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        tokens: Tensor = args[0]
        if "input" not in seen:
            seen["input"] = tokens
            return None
        if adapter is not None:
            return adapter(tokens), *args[1:]
        return tokens + seen["input"] if link == "input" else tokens.detach(), *args[1:]

    model.register_forward_pre_hook(begin)
    first_block.register_forward_pre_hook(enter)
    return adapter


@torch.no_grad()
def average_weights(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move an average of a model's weights and buffers one step."""
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
