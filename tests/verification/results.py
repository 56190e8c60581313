"""What tests of ``verify`` ask of a result."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from cycledistill import Verification, verify
from cycledistill.verification import claims, watched
from cycledistill.verification.table import NotChecked, Row


def row(result: Verification, claim: str) -> Row:
    """The one row whose claim holds these words."""
    (found,) = [each for each in result.rows if claim in each.claim]
    return found


def failed(result: Verification) -> set[str]:
    return {each.claim for each in result.failed}


def verified(monkeypatch: pytest.MonkeyPatch, model: nn.Module, inputs: Any = None) -> Verification:
    """Without the compiler, and without wrapping a copy again: both take long, and have tests of their own."""

    def leave(*_: Any) -> Any:
        raise NotChecked("not in this test", optional=True)

    with monkeypatch.context() as patch:
        patch.setattr(claims, "check_compiled", leave)
        patch.setattr(watched, "check_trials", leave)
        return verify(model, inputs)
