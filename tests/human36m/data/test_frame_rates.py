"""What a frame rate can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cycledistill.integrations.human36m.data.timing import check_rate
from cycledistill.integrations.human36m.errors import LiftingDataError


@pytest.mark.parametrize("rate", [0, -25, float("nan"), float("inf"), 10**400, True, "25", None])
def test_what_is_no_rate(rate: Any) -> None:
    with pytest.raises(LiftingDataError, match="frames a second, a number above 0 and at most 1000, is expected"):
        check_rate(rate)


@pytest.mark.parametrize("rate", [25, 29.97, np.float32(50), np.int64(1000)])
def test_what_is_one(rate: Any) -> None:
    check_rate(rate)
