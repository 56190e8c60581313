"""That a call fails and leaves a model as it was."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from cycledistill import StackError, wrap_hourglass
from cycledistill.plugin.handle import HOURGLASS_STATE


def assert_refused(model: nn.Module, match: str, **settings: Any) -> None:
    """The call fails, and leaves no class, attribute or mark behind."""
    classes, attributes = [type(m) for m in model.modules()], set(vars(model))
    keys = list(model.state_dict())
    with pytest.raises(StackError, match=match):
        wrap_hourglass(model, **{"layer": 2, "keep": 5, **settings})
    assert [type(m) for m in model.modules()] == classes
    assert set(vars(model)) == attributes
    assert not any(HOURGLASS_STATE in vars(m) for m in model.modules())
    assert list(model.state_dict()) == keys
