"""Models whose samples depend on each other are refused, and no other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cycledistill import StackError, wrap_cyclic
from cycledistill.adaptive import AdaptiveExit
from cycledistill.adaptive.samples import Mixed, check_same
from tests import toys
from tests.adaptive import models
from tests.adaptive.models import EXITS, images, wobble, wrapped

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: wrapped(block=models.MixingBlock), "is another for some samples alone"),
        (lambda: wrapped(models.FoldingViT), "not one row a sample"),
        (lambda: wrapped(Noisy), "is another for some samples alone"),
    ],
    ids=["mixes samples", "windows", "random"],
)
def test_samples_that_depend_on_each_other_are_refused(model: Any, message: str) -> None:
    built = model()
    with torch.no_grad(), pytest.raises(Mixed, match=message):
        AdaptiveExit(built, EXITS, wobble, threshold=0.0)(images())
    assert built.cyclic.recorder.running is None


class Noisy(toys.ToyViT):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.embed_noise(x))

    def embed_noise(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


def test_a_batchnorm_left_in_training_is_refused() -> None:
    model = wrapped(toys.NormedViT)
    model.stem_bn.train()
    before = model.stem_bn.running_mean.clone()
    with torch.no_grad(), pytest.raises(StackError, match=r"BatchNorm1d .* training mode.*model\.eval\(\)"):
        AdaptiveExit(model, EXITS, wobble, threshold=0.0)(images())
    assert torch.equal(model.stem_bn.running_mean, before)


def test_samples_that_mix_in_later_cycles_alone_are_refused() -> None:
    model = wrapped(models.LateMixingViT)
    leave = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0, 0.0])  # the first and the last, which are tried alone, go on
    adaptive = AdaptiveExit(model, (1, 2), lambda output: leave, threshold=0.5)
    for _ in range(2):  # and refused again
        with torch.no_grad(), pytest.raises(Mixed, match="the model's output is another for some samples alone"):
            adaptive(images())


@pytest.mark.slow
@pytest.mark.parametrize("types", [(torch.bfloat16, False), (torch.float32, True), (torch.float32, False)], ids=str)
def test_what_rounds_more_is_not_refused(types: tuple[torch.dtype, bool]) -> None:
    """Tokens of pruning may tie in 16 bits, so it is left out here."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=7, depth=4)
    model = wrap_cyclic(model, 3, "exits").to(types[0]).eval()
    adaptive = AdaptiveExit(model, threshold=0.2)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=types[1]):
        for seed in range(3):
            x = torch.randn(9 + seed, 3, 32, 32, dtype=types[0])
            outputs, exits = adaptive(x, return_exits=True)
            assert torch.equal(outputs[exits == 1], model(x)[exits == 1])


def test_a_first_call_in_which_all_are_sure_hides_nothing() -> None:
    """Blocks that mix samples in later cycles are refused before any sample goes there."""
    adaptive = AdaptiveExit(wrapped(models.LateMixingViT), EXITS, wobble, threshold=-2)
    with torch.no_grad(), pytest.raises(Mixed, match="the model's output is another for some samples alone"):
        adaptive(images())


def test_what_blocks_look_up_outside_their_arguments_is_refused() -> None:
    """Its rows would be those of other samples as soon as some leave, which none does in the first call."""

    class Noting(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.seen = 1 + x.abs().mean((1, 2))
            return super().forward(x)

    class Scaled(toys.Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * self.looks_at[0].seen[: len(x), None, None])

    class Outside(toys.ToyViT):
        def __init__(self) -> None:
            super().__init__(2, block=Scaled)
            self.embed = Noting(toys.FEATURES, toys.DIM)
            for block in self.blocks:
                block.looks_at = [self.embed]

    with torch.no_grad(), pytest.raises(Mixed, match="the model's output is another"):
        AdaptiveExit(wrapped(Outside), EXITS, wobble, threshold=-2)(images())


def test_infinite_entries_do_not_hide_that_samples_mix() -> None:
    class Masking(models.LateMixingViT):
        def forward(self, x: Tensor) -> Tensor:
            scores = super().forward(x)
            return torch.cat([scores, torch.full_like(scores[:, :1], -torch.inf)], 1)

    def finite(output: Tensor) -> Tensor:
        return wobble(output[:, :-1])

    with torch.no_grad(), pytest.raises(Mixed, match="is another for some samples alone"):
        AdaptiveExit(wrapped(Masking), EXITS, finite, threshold=0.0)(images())


@pytest.mark.parametrize(
    ("kind", "share"), [(torch.bfloat16, 0.05), (torch.float32, 1e-4), (torch.float64, 1e-7)], ids=str
)
def test_a_little_mixing_is_more_than_rounding(kind: torch.dtype, share: float) -> None:
    class Mixing(toys.Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 2 * share * x.mean(0, keepdim=True)

    model = wrapped(block=Mixing).to(kind)
    with torch.no_grad(), pytest.raises(Mixed, match="is another for some samples alone"):
        AdaptiveExit(model, EXITS, wobble, threshold=0.0)(3 * images().to(kind))


def test_rows_are_compared_one_by_one_and_what_is_not_finite_exactly() -> None:
    whole = torch.ones(3, 4, dtype=torch.float64)
    whole[2] *= 10
    whole[0, 0], whole[0, 1] = torch.nan, torch.inf
    check_same("it", whole, whole.clone(), 0.0, 0)
    for row, column, value, away in ((1, 3, 1.5, 0.1), (0, 0, 7.0, 1e9), (0, 0, 0.0, 1e9), (0, 1, -torch.inf, 1e9)):
        other = whole.clone()
        other[row, column] = value
        with pytest.raises(Mixed, match="it is another"):
            check_same("it", whole, other, away, 0)
    other[0, 1] = torch.inf
    other[2, 0] += 0.01
    check_same("it", whole, other, 1e-3, 0)
