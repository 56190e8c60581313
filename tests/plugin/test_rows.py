"""Rows that stay of a state: the short way is the long one."""

from __future__ import annotations

import pytest
import torch

from cycledistill.plugin.rows import flat_rows, rows_that_stay, with_first


@pytest.mark.parametrize("first", [0, 1, 5])
def test_rows_that_stay(first: int) -> None:
    local = torch.rand(3, 11).topk(4, dim=1).indices
    assert torch.equal(rows_that_stay(local, first, 11 + first), flat_rows(with_first(local, first), 11 + first))
