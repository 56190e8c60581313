"""What a trial did not run is asked for, or looked at in the first forward; without that mend verify finds it."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

pytest.importorskip("timm")

from cycledistill import StackError, wrap_cyclic
from cycledistill.stack.links import links_between
from tests import toys
from tests.prune.oracle import vit
from tests.verification.mends import Check, Patch, both, tokens
from tests.verification.results import failed, row


class WordBlock(toys.Block):
    """A kind of its own: two runs of one kind are always told apart by name."""


class TwoTowers(nn.Module):
    """Pictures run one tower, and are what a trial guesses; words run the other."""

    img_size = 32

    def __init__(self) -> None:
        super().__init__()
        self.vision, self.text = vit(), toys.ToyViT(block=WordBlock).double()

    def forward(self, x: Tensor | None = None, words: Tensor | None = None) -> Tensor:
        return self.text(words) if x is None else self.vision(x)


def test_a_tower_is_not_taken_silently(check: Check, monkeypatch: Patch) -> None:
    given = {"words": tokens().double()}
    with pytest.raises(StackError, match="has 2 towers"):
        wrap_cyclic(TwoTowers())
    meant = check(wrap_cyclic(TwoTowers(), distill=None, inputs=given), given)
    assert meant.ok and "text.blocks x3" in meant.model
    of_a_plain_model = check(TwoTowers(), given)
    assert of_a_plain_model.ok and "text.blocks x3" in of_a_plain_model.model
    monkeypatch.setattr("cycledistill.stack.choose._is_another_tower", lambda *_: False)
    other = check(wrap_cyclic(TwoTowers(), distill=None), given)
    assert "vision.blocks x4" in other.model
    assert not other.ok and "what matters gets gradients" in failed(other), other
    assert "no block of the stack runs with these inputs" in row(other, "exit 2").detail


@pytest.mark.slow
def test_a_tower_that_no_guess_reaches_is_proved_with_inputs(check: Check) -> None:
    pytest.importorskip("transformers")
    from tests.stack.test_towers import VISION, llava, question

    result = check(wrap_cyclic(llava(), distill=None, blocks=VISION), question())
    assert result.ok and row(result, "exit 2").oracle == "its blocks called by hand", result
    with pytest.raises(StackError, match="has 2 towers"):
        check(llava(), question())


class Apart(toys.ToyViT):
    """Adds something between its blocks, and declares no size: no trial sees it."""

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x) + 0.5
        return self.norm(x)


@both
def test_what_no_trial_saw_is_looked_at_in_the_first_forward(check: Check, monkeypatch: Patch, mended: bool) -> None:
    if not mended:

        def by_position(path: str, index: int, outputs: list[Any], inputs: list[Any]) -> Any:
            return links_between(outputs, inputs) or [(0, 0)]

        monkeypatch.setattr("cycledistill.cycle.recording.links_into", by_position)
        monkeypatch.setattr("cycledistill.cycle.recording.check_arguments", lambda *_: None)
    model = wrap_cyclic(Apart(), distill=None, blocks="blocks").train()
    if mended:
        with pytest.raises(StackError, match="block 1 does not receive the output of block 0"):
            model(tokens())
        return
    assert len(model(tokens())) == 2
    result = check(model, tokens())
    assert {"eval at exit 2", "training, outputs", "training, gradients"} <= failed(result), result
    assert "between two blocks the model makes a new tensor" in row(result, "exit 2").detail
