"""Recovering frames: the attention against the official code's results, interpolation against numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cycledistill import StackError
from cycledistill.hourglass.key_map import KEY_MAP, from_official
from cycledistill.hourglass.recovery import (
    FrameRecovery,
    RankPositions,
    recover_linear,
    recover_nearest,
    table_for,
    time_bias,
)
from tests.hourglass.filled import weights

GOLDEN = Path(__file__).parents[1] / "golden" / "tra.npz"
KEYS = {f"linear_{name}": name for name in "qkv"} | {"proj": "proj"}


def filled(query: torch.Tensor) -> FrameRecovery:
    module = FrameRecovery(27, 32, 8)
    shapes = {f"{theirs}.{kind}": shape for theirs in KEYS for kind, shape in (("weight", (32, 32)), ("bias", (32,)))}
    state = {}
    for name, values in weights(shapes).items():
        part, kind = name.split(".")
        state[f"{KEYS[part]}.{kind}"] = torch.from_numpy(values)
    module.load_state_dict({"query": query, **state})
    return module


@pytest.mark.parametrize("case", ["recovered", "recovered_zero_query"])
def test_official_recovery(case: str) -> None:
    with np.load(GOLDEN) as file:
        given = {name: torch.from_numpy(file[name]) for name in file.files}
    query = given["query"] if case == "recovered" else torch.zeros_like(given["query"])
    module = filled(query)
    assert sum(each.numel() for name, each in module.named_parameters() if name != "query") == 4224
    with torch.no_grad():  # 34 clips of one joint, and 2 clips of 17
        got = module(given["kept"].unsqueeze(2)).squeeze(2)
        joints = given["kept"].unflatten(0, (2, 17)).transpose(1, 2)
        together = module(joints).transpose(1, 2).flatten(0, 1)
    want = given[case]
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()
    torch.testing.assert_close(together, got, rtol=1e-5, atol=1e-6)


def test_at_first_all_frames_are_alike_and_training_breaks_that() -> None:
    module, kept = FrameRecovery(9, 8, 2), torch.randn(2, 3, 4, 8)
    out = module(kept)
    assert out.shape == (2, 9, 4, 8)
    assert out.is_contiguous()
    assert torch.equal(out, out[:, :1].expand_as(out))
    (out * torch.randn_like(out)).sum().backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    out = module(kept)
    assert (out[:, 1:] - out[:, :-1]).abs().amin(dim=(0, 2, 3)).min() > 0


def test_a_local_recovery_is_pytorchs_attention_with_a_mask_by_hand() -> None:
    batch, frames, keep, width, heads = 2, 11, 4, 12, 3
    module = FrameRecovery(frames, width, heads, local=True)
    torch.nn.init.normal_(module.query)
    kept, index = torch.randn(batch, keep, 5, width), torch.tensor([[0, 3, 4, 9], [1, 2, 7, 10]])
    theirs = torch.nn.MultiheadAttention(width, heads, batch_first=True)
    ours = (module.q, module.k, module.v)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([each.weight for each in ours]))
        theirs.in_proj_bias.copy_(torch.cat([each.bias for each in ours]))
        theirs.out_proj.load_state_dict(module.proj.state_dict())
        mask = torch.zeros(batch, heads, frames, keep)
        for clip, head, frame, rank in np.ndindex(*mask.shape):
            slope = (2.0, 2**-0.5, 0.25)[head]  # in equal ratios
            mask[clip, head, frame, rank] = -slope * abs(frame - int(index[clip, rank])) * keep / frames
        got = module(kept, index=index)
        for joint in range(5):
            query = module.query.expand(batch, -1, -1)
            want, _ = theirs(query, kept[:, :, joint], kept[:, :, joint], attn_mask=mask.flatten(0, 1))
            torch.testing.assert_close(got[:, :, joint], query + want, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="index=None"):
        module(kept)


def test_a_local_recovery_tells_frames_apart_before_training() -> None:
    """What the published one cannot: see above. Frames take most from the kept frames around them."""
    module, keep, frames = FrameRecovery(81, 8, 4, local=True), 27, 81
    index = torch.arange(1, frames, 3)[None]
    out = module(torch.randn(1, keep, 1, 8), index=index)
    assert (out[:, 1:] - out[:, :-1]).abs().amax(dim=(0, 2, 3)).min() > 0
    weights = time_bias(index, frames, 4).softmax(-1)[0]
    away = (torch.arange(frames)[:, None] - index).abs()
    assert ((weights * away).sum(-1).mean(-1) < torch.tensor([2.0, 3.5, 6.5, 12.5])).all()  # evenly: 27
    assert module.state_dict().keys() == FrameRecovery(81, 8, 4).state_dict().keys()


def test_tables_of_other_lengths() -> None:
    table = torch.tensor([0.0, 1.0, 4.0]).view(1, 3, 1)
    assert table_for(table, 3, "any") is table
    assert table_for(table, 5, "any").flatten().tolist() == [0.0, 0.5, 1.0, 2.5, 4.0]
    assert table_for(table, 2, "shorter").flatten().tolist() == [0.0, 1.0]
    positions = RankPositions(3, 1)
    assert positions(torch.zeros(2, 3, 4, 1)).shape == (2, 3, 4, 1)
    module = FrameRecovery(9, 8, 2)
    assert module(torch.randn(2, 3, 4, 8), 5, "any").shape == (2, 5, 4, 8)


@pytest.mark.parametrize("trailing", [(), (2,), (3, 2)])
def test_interpolation(trailing: tuple[int, ...]) -> None:
    index = torch.tensor([[1, 4, 5, 9], [0, 2, 7, 11]])
    values = torch.randn(2, 4, *trailing, dtype=torch.float64)
    got, near = recover_linear(values, index, 12), recover_nearest(values, index, 12)
    time = np.arange(12)
    for clip in range(2):
        columns = values[clip].reshape(4, -1).T.numpy()
        want = np.stack([np.interp(time, index[clip].numpy(), column) for column in columns], -1)
        np.testing.assert_allclose(got[clip].reshape(12, -1).numpy(), want, atol=1e-12)
        ranks = [int((index[clip] - frame).abs().argmin()) for frame in time]
        assert torch.equal(near[clip], values[clip][ranks])


def test_interpolation_keeps_kept_frames_bit_for_bit_and_one_frame_stands() -> None:
    values = torch.randn(1, 5, 3)
    index = torch.tensor([[0, 3, 4, 8, 9]])
    for recovered in (recover_linear(values, index, 10), recover_nearest(values, index, 10)):
        assert torch.equal(recovered[:, index[0]], values)
    alone = torch.randn(2, 1, 3)
    assert torch.equal(recover_linear(alone, torch.tensor([[4], [0]]), 6), alone.expand(-1, 6, -1))
    every = torch.randn(1, 4, 2)
    assert torch.equal(recover_linear(every, torch.arange(4)[None], 4), every)


def test_heads_must_divide_the_channels() -> None:
    with pytest.raises(StackError, match="heads=3 do not divide the 8 channels"):
        FrameRecovery(9, 8, 3)


def test_official_names_are_those_of_the_golden_weights() -> None:
    state = {f"cross_attention.{name}": torch.zeros(1) for name in weights({f"{key}.weight": (1, 1) for key in KEYS})}
    with pytest.raises(StackError, match="missing.*pos_embed_token"):
        from_official(state)
    assert len(KEY_MAP) == 10
