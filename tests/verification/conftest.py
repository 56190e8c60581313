"""``verify`` without what takes most of its time, for the tests that are not about that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from cycledistill import Verification
from tests.verification.results import verified


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Verification]:
    def run(model: nn.Module, inputs: Any = None) -> Verification:
        return verified(monkeypatch, model, inputs)

    return run
