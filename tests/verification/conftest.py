"""``verify`` without the compiler, which takes most of its time, for the tests that are not about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from cycledistill import Verification
from tests.verification.results import verified_eagerly


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Verification]:
    def run(model: nn.Module, inputs: Any = None) -> Verification:
        return verified_eagerly(monkeypatch, model, inputs)

    return run
