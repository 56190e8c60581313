"""Clips of other lengths, and tokens in other layouts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.hourglass.models import FRAMES, WIDTH, JointModel, SequenceFirst, awake, build, poses
from tests.hourglass.oracle import choose, take
from tests.hourglass.wrapped import close, wrap


@pytest.mark.parametrize(("lengths", "frames"), [("any", 9), ("any", 30), ("shorter", 7)])
def test_clips_of_other_lengths(lengths: str, frames: int) -> None:
    plain = build()
    plain.pos = nn.Parameter(torch.randn(1, 40, WIDTH, dtype=torch.float64))
    model = awake(wrap(plain, keep=(4,), lengths=lengths))
    out = model(poses(2, frames))
    assert out.shape == (2, frames, 9)
    assert model.hourglass.index.shape == (2, -(-frames * 4 // FRAMES))
    if lengths == "shorter":  # frame t is asked for by query t
        cut = wrap(plain, keep=(3,), frames=frames)
        state = {name: value.clone() for name, value in model.state_dict().items()}
        state["prune.0.pos"], state["recover.query"] = state["prune.0.pos"][:, :3], state["recover.query"][:, :frames]
        cut.load_state_dict(state)
        x = poses(2, frames)
        assert torch.equal(cut(x), model(x))


def test_without_tables_a_clip_has_any_length() -> None:
    plain = build()
    plain.pos = nn.Parameter(torch.randn(1, 40, WIDTH, dtype=torch.float64))
    for frames in (5, 12, 40):
        assert wrap(plain, recover="linear", lengths="any")(poses(1, frames)).shape == (1, frames, 9)
        share = wrap(plain, keep=(0.3,), recover=False, lengths="any")  # type: ignore[arg-type]
        assert share(poses(1, frames)).shape == (1, -(-frames * 3 // 10), 9)


def test_torchs_encoder_in_another_layout() -> None:
    plain, x = build(SequenceFirst), poses()
    layout = (lambda state: state.transpose(0, 1).unsqueeze(2), lambda grid: grid.squeeze(2).transpose(0, 1))
    model = wrap(plain, blocks="encoder.layers", layout=layout, frames=FRAMES)
    awake(model)
    assert model.hourglass.recover_after == "encoder.norm"
    state = plain.stem(x.flatten(2).transpose(0, 1)) + plain.pos
    for layer in plain.encoder.layers[:2]:
        state = layer(state)
    index = choose(state.transpose(0, 1), 5)
    state = take(state.transpose(0, 1), index) + model.prune[0].pos
    state = state.transpose(0, 1)
    for layer in plain.encoder.layers[2:]:
        state = layer(state)
    attention = nn.functional.multi_head_attention_forward
    part, weights = (
        model.recover,
        torch.cat([each.weight for each in (model.recover.q, model.recover.k, model.recover.v)]),
    )
    biases = torch.cat([each.bias for each in (part.q, part.k, part.v)])
    query, kept = part.query.expand(2, -1, -1).transpose(0, 1), plain.encoder.norm(state)
    mixed, _ = attention(
        query, kept, kept, WIDTH, 2, weights, biases, None, None, False, 0.0, part.proj.weight, part.proj.bias
    )
    close(model.train()(x), plain.head(query + mixed).transpose(0, 1))
    with torch.no_grad():  # where each layer is one fused operation
        close(model.eval()(x), plain.head(query + mixed).transpose(0, 1))


def test_a_layout_that_needs_the_number_of_frames() -> None:
    plain, x = build(JointModel), poses()

    class Flat(nn.Module):
        def __init__(self, level: nn.Module) -> None:
            super().__init__()
            self.level = level

        def forward(self, state: Tensor) -> Tensor:
            return self.level(state.unflatten(0, (2, -1))).flatten(0, 1)

    class FlatModel(JointModel):
        def run(self, state: Tensor) -> Tensor:
            return super().run(state.flatten(0, 1))

        def finish(self, state: Tensor) -> Tensor:
            return super().finish(state).unflatten(0, (2, -1))

    flat = build(FlatModel)
    flat.load_state_dict(plain.state_dict())
    flat.levels = nn.ModuleList(Flat(level) for level in flat.levels)
    layout = (lambda state, frames: state.unflatten(0, (-1, frames)), lambda grid: grid.flatten(0, 1))
    settings: dict[str, Any] = {"layers": (1, 3), "keep": (7, 3)}
    model, want = wrap(flat, layout=layout, **settings), wrap(plain, **settings)
    awake(want)
    model.prune.load_state_dict(want.prune.state_dict())
    model.recover.load_state_dict(want.recover.state_dict())
    close(model(x), want(x))
