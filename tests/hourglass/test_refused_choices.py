"""Frames that cannot be kept: indices and selections that are refused, and what a model of kept frames is asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cycledistill import StackError, wrap_hourglass
from tests.hourglass.models import FRAMES, build, poses


@pytest.mark.parametrize(
    ("index", "match"),
    [
        ([1, 2], "one a prune point"),
        ("all", "one a prune point"),
        (torch.tensor([0, 1, 2, 3, 4]), "whole frame numbers"),
        (torch.rand(2, 5), "whole frame numbers"),
        (torch.tensor([[0, 1, 1, 2, 3]]), "none twice"),
        (torch.tensor([[4, 3, 2, 1, 0]]), "order of time"),
        (torch.tensor([[-1, 0, 1, 2, 3]]), "from 0"),
    ],
)
def test_an_index_that_is_none(index: Any, match: str) -> None:
    model = wrap_hourglass(build(), layer=2, keep=5)
    with pytest.raises(StackError, match=match):
        model.hourglass.index = index
    assert model(poses()).shape == (2, FRAMES, 9)


def test_an_index_that_does_not_fit_the_clips() -> None:
    model = wrap_hourglass(build(), layer=2, keep=5)
    for index, match in (
        (torch.tensor([[0, 1, 2, 3]]), "keeps 5 frames of 2"),
        (torch.arange(5).expand(3, -1), "keeps 5 frames of 2"),
        (torch.tensor([[0, 1, 2, 3, 12]]), "names frame 12, and the clip has 12 frames"),
    ):
        model.hourglass.index = index
        with pytest.raises(StackError, match=match):
            model(poses())
    twice = wrap_hourglass(build(), layer=[1, 3], keep=[3, 2])
    with pytest.raises(StackError, match="only frames that an earlier one kept"):
        twice.hourglass.index = (torch.tensor([[0, 2, 4]]), torch.tensor([[2, 3]]))


@pytest.mark.parametrize(
    ("choice", "match"),
    [
        (lambda tokens, keep: torch.arange(keep), "of shape"),
        (lambda tokens, keep: torch.rand(len(tokens), keep), "whole frame numbers"),
        (lambda tokens, keep: None, "select returned None"),
        (lambda tokens, keep: torch.zeros(len(tokens), keep, dtype=torch.long), "a frame twice"),
        (lambda tokens, keep: torch.arange(keep).expand(len(tokens), -1) + 9, "outside the 12"),
        (lambda tokens, keep: torch.arange(keep).expand(len(tokens), -1), "centre frame"),
    ],
)
def test_a_selection_that_returns_something_else(choice: Any, match: str) -> None:
    model = wrap_hourglass(build(), layer=2, keep=5, select=choice, recover=False)
    with pytest.raises(StackError, match=match):
        model(poses())


def test_a_model_of_kept_frames_that_is_asked_for_a_sequence() -> None:
    model = wrap_hourglass(build(), layer=2, keep=5, recover=False)
    with pytest.raises(StackError, match="run the model"):
        model.hourglass.take(torch.zeros(2, FRAMES, 3))
    with pytest.raises(StackError, match="run the model"):
        model.hourglass.centre_frame(torch.zeros(2, 5, 3))
    out = model(poses())
    with pytest.raises(StackError, match="asked for the whole sequence"):
        model.hourglass.sequence(out)
    with pytest.raises(StackError, match=r"a target of shape \(2, 5\)"):
        model.hourglass.take(torch.zeros(2, 5))
    whole = wrap_hourglass(build(), layer=2, keep=5)
    out = whole(poses())
    assert whole.hourglass.sequence(out) is out
    assert torch.equal(whole.hourglass.centre_frame(out), out[:, 5])
    free = wrap_hourglass(build(), layer=2, keep=5, recover=False, centre=False)
    with pytest.raises(StackError, match="no frame is always kept"):
        free.hourglass.centre_frame(free(poses()))


def test_an_index_without_the_centre_has_no_answer() -> None:
    model = wrap_hourglass(build(), layer=2, keep=5, recover=False)
    model.hourglass.index = torch.arange(5)[None]
    with pytest.raises(StackError, match="no frames were chosen yet"):
        model.hourglass.centre_frame(torch.zeros(2, 5, 3))
    out = model(poses())
    with pytest.raises(StackError, match="without the centre, 5"):
        model.hourglass.centre_frame(out)
    with pytest.raises(StackError, match=r"\(B, 12, \.\.\.\) is expected"):
        model.hourglass.take(torch.zeros(2, FRAMES + 1, 3))
