"""Says once that a distillation term is too small beside the task loss to train anything."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_logger = logging.getLogger(__name__)

INERT = 1e-6
"""Below this part of the task loss a term is said to do nothing: less than rounding changes in half precision."""
_FRACTION = 0.0025
"""`Distill.token_fraction`, which is not read from here: losses know no schemes."""
_LOOKS = 3
"""Steps whose values are read, which a GPU has to be waited for."""
_KEYS: ContextVar[str] = ContextVar("keys", default="")
"""What stands before the names of `Distill`'s fields where they are keys of a recipe."""


@contextmanager
def named_as_keys(prefix: str) -> Iterator[None]:
    """Name settings as who trains in here sets them: as keys of a recipe, ``"cyclic.distill."`` before their names."""
    token = _KEYS.set(prefix)
    try:
        yield
    finally:
        _KEYS.reset(token)


class InertTerms:
    """Looks at the first steps of one criterion, and tells of the terms that do nothing, once."""

    def __init__(self) -> None:
        self._looks = _LOOKS

    def look(self, task: torch.Tensor, terms: Mapping[str, torch.Tensor]) -> None:
        """Look at a step: the whole task loss, and the distillation terms with their weights. Only where `is_eager`."""
        tensors = [task, *terms.values()]
        if not (self._looks and terms) or any(type(each) is not torch.Tensor or each.is_meta for each in tensors):
            return
        self._looks -= 1
        whole, *values = torch.stack([each.detach().abs().to(task.device, torch.float32) for each in tensors]).tolist()
        # A term of exactly 0 has nothing to teach yet (an output layer that begins at 0); no weight would change that.
        small = {name: value / whole for name, value in zip(terms, values, strict=True) if 0 < value < INERT * whole}
        if small:
            self._looks = 0
            shown = ", ".join(f"{name} is {ratio:.1g} of the task loss" for name, ratio in small.items())
            _logger.warning("%s: too small to train anything. %s", shown, " ".join(_advice(small)))


def _advice(ratios: Mapping[str, float]) -> list[str]:
    """What to set, by the terms' parts of the task loss."""
    keys = _KEYS.get()
    tokens = sum(ratio for name, ratio in ratios.items() if name.startswith("token_"))
    advice = []
    if tokens:
        auto = f"{keys}token_weight=auto" if keys else 'Distill(token_weight="auto")'
        advice.append(
            f"Set {auto}, with which the token terms are {_FRACTION:g} of the task loss, or a "
            f"{keys}token_weight {_times(tokens, _FRACTION)}, or 0 to train without them."
        )
    if "output" in ratios:
        advice.append(f"Set {f'a {keys}' if keys else 'an '}output_weight {_times(ratios['output'])}, or 0.")
    if "distill" in ratios:
        advice.append(f"Let the distillation callable return a loss {_times(ratios['distill'])}, or set distill=None.")
    return advice


def _times(ratio: float, wanted: float = 0.1) -> str:
    return f"{wanted / ratio:.0e} times as large"
