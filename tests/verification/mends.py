"""What tests share that run with one of the library's own mends, and with it taken out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cycledistill import Verification
from tests import toys

Check = Callable[..., Verification]
Patch = pytest.MonkeyPatch
both = pytest.mark.parametrize("mended", [True, False], ids=["mended", "mend taken out"])


def tokens() -> Tensor:
    return torch.randn(3, 7, toys.FEATURES)


def adapt_by_peft(model: Any, **settings: Any) -> Any:
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(model, peft.LoraConfig(**settings)).double()
