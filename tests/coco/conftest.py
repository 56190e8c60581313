"""The golden set's formulas for weights and inputs, as a fixture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.golden import fill as golden_fill

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session")
def fill() -> Any:
    return golden_fill
