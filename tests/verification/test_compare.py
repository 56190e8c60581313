"""What counts as the same: numbers that are there, and are numbers."""

from __future__ import annotations

import pytest
import torch

from cycledistill.verification.oracle.compare import check_same
from cycledistill.verification.table import Failed, NotChecked


@pytest.mark.parametrize("exact", [False, True])
def test_nothing_and_nan_are_not_the_same(exact: bool) -> None:
    nothing, nan, one = torch.zeros(0, 3), torch.tensor([float("nan")]), torch.ones(1)
    with pytest.raises(NotChecked, match="returns no numbers"):
        check_same([nothing, 1], [nothing, 1], exact)
    with pytest.raises(NotChecked, match="not finite"):
        check_same(nan, nan, exact)
    with pytest.raises(Failed):
        check_same(nan, one, exact)
    assert check_same([nothing, one], [nothing, one], exact) == 0
