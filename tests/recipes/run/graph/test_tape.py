"""The stand-in for a CUDA graph replays as one does: what one would not see, it does not see either."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cycledistill.recipes.errors import NotCapturableError
from tests.recipes.run.graph.tape import TapeCapture


class Trained:
    """A layer whose step is captured as it should be, or with one mistake."""

    def __init__(self, mistake: str = "") -> None:
        self.mistake, self.capture = mistake, TapeCapture()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 3)
        self.rate, self.own, self.scale = torch.zeros(()), torch.zeros(2, 3), 1.0
        self.play = self.update = lambda: None

    def gradients(self) -> Tensor:
        loss = self.scale * self.layer(self.own).square().mean()
        self.layer.zero_grad(set_to_none=True)
        loss.backward()
        return loss.detach()

    def step(self) -> None:
        with torch.no_grad():
            for parameter in self.layer.parameters():
                assert parameter.grad is not None
                parameter -= self.rate * parameter.grad

    def record(self) -> None:
        self.play, self.loss = self.capture.record(self.gradients)
        self.update, _ = self.capture.record(self.step)

    def train(self, batches: list[Tensor], eager: bool) -> list[float]:
        losses = []
        for number, batch in enumerate(batches, start=1):
            if self.mistake == "the input is replaced":
                self.own = batch
            else:
                self.own.copy_(batch)
            if self.mistake == "a number changes":
                self.scale = 1 / number
            self.rate = torch.tensor(0.1 / number) if self.mistake == "the rate is replaced" else self.rate.fill_(0.1)
            if eager:
                losses.append(float(self.gradients()))
                self.step()
                continue
            if number == 1:
                self.record()
            if self.mistake == "gradients are made anew":
                losses.append(float(self.gradients()))
            else:
                self.play()
                losses.append(float(self.loss))
            self.update()
        return [*losses, *self.layer.weight.detach().flatten().tolist()]


MISTAKES = ["the input is replaced", "a number changes", "the rate is replaced", "gradients are made anew"]


@pytest.mark.parametrize("mistake", ["", *MISTAKES])
def test_a_tape_sees_what_it_was_made_with_and_nothing_else(mistake: str) -> None:
    batches = [torch.randn(2, 3) for _ in range(3)]
    eager, taped = (Trained(mistake).train(batches, eager) for eager in (True, False))
    assert taped[0] == eager[0]
    assert (taped == eager) == (mistake == "")


def test_recording_does_nothing() -> None:
    trained = Trained()
    before = [parameter.clone() for parameter in trained.layer.parameters()]
    trained.own.copy_(torch.randn(2, 3))
    trained.rate.fill_(0.1)
    trained.record()
    assert all(torch.equal(*pair) for pair in zip(trained.layer.parameters(), before, strict=True))
    trained.play()
    trained.update()
    assert not any(torch.equal(*pair) for pair in zip(trained.layer.parameters(), before, strict=True))


def test_each_replay_draws_by_the_generator_as_it_is() -> None:
    x = torch.ones(64)
    play, dropped = TapeCapture().record(lambda: nn.functional.dropout(x, 0.5, training=True))
    found = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        play()
        found.append(dropped.clone())
        torch.manual_seed(seed)
        assert torch.equal(found[-1], nn.functional.dropout(x, 0.5, training=True))
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])


def test_reading_values_back_is_an_error() -> None:
    x = torch.ones(3)
    with pytest.raises(NotCapturableError, match="not permitted when stream is capturing"):
        TapeCapture().record(lambda: x.sum().item())
