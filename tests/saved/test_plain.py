"""Schemes as plain data, and back."""

from __future__ import annotations

import json

import pytest
import torch

from cycledistill import Distill
from cycledistill.distill import PRESETS, plain_scheme
from cycledistill.plugin.plain import code_in
from cycledistill.saved.scheme import read_scheme


@pytest.mark.parametrize("scheme", [
    None, *PRESETS.values(), Distill(), Distill(token_weight="auto", token_fraction=0.2),
    Distill(task_weights=(0.5, 1.0), token_weight={"prefix": 1.0}, normalize=True, detach=True, teacher="last"),
], ids=lambda each: str(plain_scheme(each)))  # fmt: skip
def test_a_scheme_comes_back_from_json(scheme: Distill | None) -> None:
    plain = json.loads(json.dumps(plain_scheme(scheme)))
    assert read_scheme(plain) == scheme and code_in(plain) is None


def test_code_stands_there_by_its_name_and_is_not_read() -> None:
    def mine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a.sum()

    assert plain_scheme(mine) == {"code": "mine"}
    plain = plain_scheme(Distill(token_weight=1.0, token_loss=mine))
    assert code_in(plain) == "mine"
    with pytest.raises(ValueError, match="token_loss="):
        read_scheme(plain)


@pytest.mark.parametrize("plain", ["unknown", {"tokens": 1}, [], 3, {"token_weight": -1.0}], ids=str)
def test_what_is_no_scheme_is_refused(plain: object) -> None:
    with pytest.raises(ValueError, match="distill=|token_weight"):
        read_scheme(plain)
