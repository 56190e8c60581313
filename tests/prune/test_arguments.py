"""Positions, rotary tables and masks that a model hands to its blocks follow the tokens that are left."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

pytest.importorskip("timm")

from timm.models.vision_transformer import Block

from cycledistill import StackError, unwrap_pruning, wrap_cyclic, wrap_pruning
from cycledistill.prune.kept_tokens import KeptTokens, take_argument

FIRST, PATCHES, WIDTH = 2, 12, 8
TOKENS = FIRST + PATCHES


class Positioned(nn.Module):
    """A block that adds the positions it is given, and passes a mask on to its attention."""

    def __init__(self) -> None:
        super().__init__()
        inner = Block(WIDTH, 2, mlp_ratio=2.0)
        self.norm1, self.attn, self.norm2, self.mlp = inner.norm1, inner.attn, inner.norm2, inner.mlp

    def forward(self, x: Tensor, pos: Tensor | None = None, attn_mask: Tensor | None = None) -> Tensor:
        if pos is not None:
            first = x.shape[1] - pos.shape[1]
            x = x + nn.functional.pad(pos, (0, 0, first, 0))
        x = x + self.attn(self.norm1(x), attn_mask=attn_mask)
        return x + self.mlp(self.norm2(x))


class Model(nn.Module):
    """Tokens (B, 14, 8) through positioned blocks; the first gets no positions, as in TokenPose."""

    num_prefix_tokens = FIRST

    def __init__(self, whole: bool, learnable: bool, saves: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Positioned() for _ in range(4))
        table = torch.randn(1, TOKENS if whole else PATCHES, WIDTH)
        self.pos = nn.Parameter(table, requires_grad=learnable)
        self.head = nn.Linear(WIDTH, 3)
        self.saves = saves

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        for number, block in enumerate(self.blocks):
            pos = self.pos if number else None
            if self.saves:
                x = checkpoint(block, x, pos, attn_mask, use_reentrant=False)
            else:
                x = block(x, pos, attn_mask=attn_mask)
        return self.head(x[:, 0])


def by_hand(model: Any, x: Tensor, index: Tensor, mask: Tensor | None = None) -> Tensor:
    """The output of one image, dropped after whole layers, where `index` says what was kept at the end."""
    tokens = torch.arange(TOKENS)
    for number, block in enumerate(model.blocks):
        places = tokens if model.pos.shape[1] == TOKENS else tokens[FIRST:] - FIRST
        part = None if mask is None else mask[..., tokens, :][..., tokens]
        x = block(x, model.pos[:, places] if number else None, attn_mask=part)
        if number == 1:
            rows = torch.cat([torch.arange(FIRST), index + FIRST])
            x, tokens = x[:, rows], rows
    return model.head(x[:, 0])


def grads(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("whole", [False, True], ids=["patches", "all tokens"])
def test_positions(whole: bool, learnable: bool) -> None:
    plain, x = Model(whole, learnable).double(), torch.randn(3, TOKENS, WIDTH, dtype=torch.float64)
    pruned = wrap_pruning(copy.deepcopy(plain), (1,), 0.4)
    got = pruned(x)
    want = torch.cat([by_hand(plain, x[i : i + 1], index) for i, index in enumerate(pruned.pruning.index)])
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    got, want = grads(pruned, got.square().sum()), grads(plain, want.square().sum())
    assert ("pos" in got) == learnable
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("kind", ["bool", "added"])
@pytest.mark.parametrize("axes", ["(N, N)", "(1, 1, 1, N)", "(B, H, N, N)"])
def test_masks_reach_scores_and_later_blocks(axes: str, kind: str) -> None:
    plain, x = Model(True, False).double(), torch.randn(3, TOKENS, WIDTH, dtype=torch.float64)
    allowed = torch.ones(3, 2, TOKENS, TOKENS, dtype=torch.bool)
    hidden = torch.tensor([4, 7, 9, 11])  # keys no query may attend to, so they score nothing
    allowed[..., hidden] = False
    mask = {"(N, N)": allowed[0, 0], "(1, 1, 1, N)": allowed[:1, :1, :1], "(B, H, N, N)": allowed}[axes]
    if kind == "added":
        mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, float("-inf"))
    pruned = wrap_pruning(copy.deepcopy(plain), (1,), 0.5)
    with torch.no_grad():
        got = pruned(x, mask)
        assert not torch.isin(pruned.pruning.index + FIRST, hidden).any()
        for i, index in enumerate(pruned.pruning.index):
            own = mask[i : i + 1] if mask.ndim == 4 and len(mask) == 3 else mask
            own = own.expand(*own.shape[:-2], TOKENS, TOKENS)
            torch.testing.assert_close(got[i : i + 1], by_hand(plain, x[i : i + 1], index, own), rtol=1e-12, atol=1e-12)


@pytest.fixture
def compiler_skips_side_effects() -> Iterator[None]:
    """What `torch.compile(fullgraph=True)` needs where it meets checkpointing."""
    with torch._dynamo.config.patch(skip_fwd_side_effects_in_bwd_under_checkpoint=True):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.usefixtures("compiler_skips_side_effects", "cuda_in_use")
def test_checkpointing_with_positions_and_cycles(learnable: bool, compiled: bool) -> None:
    plain, x = wrap_pruning(Model(False, learnable).double(), (1, 2), 0.5), torch.randn(2, TOKENS, WIDTH).double()
    wrap_cyclic(plain, 2, "exits")
    saving = copy.deepcopy(plain)
    saving.saves = True
    backend = "aot_eager" if learnable else "eager"
    run = torch.compile(saving, backend=backend, fullgraph=True) if compiled else saving
    outs = plain(x), run(x)
    got, want = (
        grads(model, sum(each.square().sum() for each in out.outputs))
        for model, out in zip((saving, plain), reversed(outs), strict=True)
    )
    assert outs[1].tokens[1].shape == (2, FIRST + 3, WIDTH)
    assert torch.equal(saving.pruning.index, plain.pruning.index)
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-10, atol=1e-12, msg=name)


def test_the_state_may_come_by_name() -> None:
    model, x = Model(True, False), torch.randn(2, TOKENS, WIDTH)
    block = wrap_pruning(model, (1,), 0.5).blocks[1]
    assert torch.equal(block(x, model.pos), block(pos=model.pos, x=x))
    dropped = block(x)
    assert torch.equal(model.blocks[2](dropped, model.pos), model.blocks[2](pos=model.pos, x=dropped))
    unwrap_pruning(model)
    assert block(x=x).shape == x.shape


@pytest.fixture
def kept() -> KeptTokens:
    index = torch.stack([torch.randperm(PATCHES)[:5] for _ in range(3)])
    return KeptTokens(index, FIRST, TOKENS, block=0)


@pytest.mark.parametrize(
    ("name", "shape", "taken"),
    [
        ("pos", (PATCHES, 6), (3, 5, 6)),
        ("pos", (TOKENS, 6), (3, 7, 6)),
        ("pos", (1, PATCHES, 6), (3, 5, 6)),
        ("pos", (3, TOKENS, 6), (3, 7, 6)),
        ("pos", (3, 2, PATCHES, 6), (3, 2, 5, 6)),
        ("rope", (PATCHES, 6), (3, 1, 5, 6)),
        ("rope", (2, PATCHES, 6), (3, 2, 5, 6)),
        ("rope", (3, 1, PATCHES, 6), (3, 1, 5, 6)),
        ("attn_mask", (TOKENS, TOKENS), (3, 1, 7, 7)),
        ("attn_mask", (2, TOKENS, TOKENS), (3, 2, 7, 7)),
        ("attn_mask", (3, 1, 1, TOKENS), (3, 1, 1, 7)),
        ("rel_pos_bias", (1, 2, TOKENS, TOKENS), (3, 2, 7, 7)),
        ("key_mask", (3, TOKENS), (3, 7)),
        ("other", (5, 6), (5, 6)),
        ("other", (TOKENS,), (TOKENS,)),
    ],
)
def test_shapes_and_values_of_every_served_argument(
    kept: KeptTokens, name: str, shape: tuple[int, ...], taken: tuple[int, ...]
) -> None:
    value = torch.randn(shape)
    got = take_argument(name, value, kept)
    assert got.shape == taken
    if got is value:
        return
    for image in range(3):
        patches = kept.index[image]
        tokens = torch.cat([torch.arange(FIRST), patches + FIRST])
        own = value[image] if shape[0] == 3 else value.squeeze(0) if shape[0] == 1 else value
        if "mask" in name or "bias" in name:
            want = own[..., tokens]
            want = want[..., tokens, :] if len(shape) > 1 and shape[-2] == TOKENS else want
        else:
            want = own[..., tokens if shape[-2] == TOKENS else patches, :]
        assert torch.equal(got[image].reshape(want.shape), want)


def test_arguments_whose_axes_cannot_be_told(kept: KeptTokens) -> None:
    with pytest.raises(StackError, match="cannot tell the axes of the block argument 'pos'"):
        take_argument("pos", torch.randn(4, PATCHES, 6), kept)
    assert take_argument("size", (7, 7), kept) == (7, 7)
