"""What the lifting models are made of, what they refuse, and that the library's plug-ins find what they need."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cycledistill import Distill, unwrap_cyclic, wrap_cyclic
from cycledistill.integrations.human36m.models.frame_lifter import FrameLifterConfig
from cycledistill.integrations.human36m.models.layers import FRAMES, JOINTS, Attention, DropPath
from cycledistill.integrations.human36m.models.lifter import Lifter, NetworkConfig, positions_of
from cycledistill.integrations.human36m.models.mhformer import MHFormerConfig
from cycledistill.integrations.human36m.models.mixste import MixSTE, MixSTEConfig
from cycledistill.integrations.human36m.models.motionbert import MotionBERTConfig
from cycledistill.integrations.human36m.models.registry import create_lifter, lifter_config, list_lifters

# parameters, as published, and tensors in the state dict: MHFormer's three tables of positions are one here
NETWORKS = {
    "mixste": (33_783_811, 204),
    "mhformer": (31_516_125, 271),
    "motionbert": (42_466_317, 260),
    "motionbert_lite": (16_001_549, 260),
}
SMALL: dict[str, dict[str, Any]] = {
    "mixste": {"frames": 9, "dim": 16, "depth": 4},
    "mhformer": {"frames": 9, "dim": 16, "hidden": 32},
    "motionbert": {"frames": 9, "dim": 16, "depth": 3, "dim_rep": 24},
    "frame_lifter": {"frames": 9, "dim": 16, "depth": 3},
}


def small(name: str, **options: Any) -> Lifter:
    """A small model with every weight drawn, so that no term is hidden behind a zero."""
    model = create_lifter(name, **(SMALL[name] | options))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def clip(model: Lifter, frames: int | None = None, batch: int = 2) -> torch.Tensor:
    config = model.config
    return torch.randn(batch, frames or config.frames, config.joints, config.in_channels)


@pytest.mark.parametrize("name", NETWORKS)
def test_sizes_of_the_published_models(name: str) -> None:
    with torch.device("meta"):
        model = create_lifter(name)
    assert (sum(each.numel() for each in model.parameters()), len(model.state_dict())) == NETWORKS[name]


def test_short_mhformers_normalise_their_embeddings() -> None:
    with torch.device("meta"):
        short, long = create_lifter("mhformer", frames=27), create_lifter("mhformer", frames=36)
    assert (len(short.state_dict()), len(long.state_dict())) == (286, 271)
    assert any(isinstance(each, nn.BatchNorm1d) for each in short.stem.modules())
    assert not any(isinstance(each, nn.BatchNorm1d) for each in long.stem.modules())


@pytest.mark.parametrize("name", SMALL)
def test_one_pose_for_each_frame(name: str) -> None:
    model = small(name)
    assert model.train()(clip(model)).shape == (2, 9, 17, 3)
    other = small(name, joints=5)
    assert other(clip(other)).shape == (2, 9, 5, 3)


@pytest.mark.parametrize("name", SMALL)
def test_levels_are_free_of_the_clip_length(name: str) -> None:
    model = small(name).eval()
    joints = {"mhformer": 3, "frame_lifter": 1}.get(name, 17)
    for level in model.levels:
        for frames in (1, 4, 20):
            tokens = torch.randn(2, frames, joints, 16)
            assert level(tokens).shape == tokens.shape
        assert not any(9 in parameter.shape for parameter in level.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_the_forward_is_the_contract(name: str) -> None:
    model = small(name).eval()
    poses = clip(model)
    tokens = model.embed(poses)
    assert tokens.ndim == 4
    for level in model.levels:
        tokens = level(tokens)
    assert torch.equal(model.head(model.norm(tokens)), model(poses))


def test_mixste_shares_its_norms_without_writing_them_twice(tmp_path: Path) -> None:
    model = small("mixste")
    assert len(model.state_dict()) == 204 - 4 * 2 * 12
    copies: list[Any] = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for each in copies:
        assert all(level._norms == (each.spatial_norm, each.temporal_norm) for level in each.levels)
        assert each.spatial_norm is not model.spatial_norm
    save_file(model.state_dict(), tmp_path / "weights.safetensors")  # refuses shared tensors
    fresh = create_lifter("mixste", **SMALL["mixste"]).eval()
    fresh.load_state_dict(load_file(tmp_path / "weights.safetensors"), strict=True)
    poses = clip(model)
    assert torch.equal(fresh(poses), model.eval()(poses))


def test_mixste_levels_follow_the_official_order() -> None:
    model: Any = small("mixste").eval()
    poses = clip(model)
    x = model.embed_joints(poses) + model.spatial_pos
    spatial = [model.first, *(level.spatial for level in model.levels[1:])]
    for index, level in enumerate(model.levels):
        x = model.spatial_norm(spatial[index](x))
        if index == 0:
            x = x + model.temporal_pos[:, :, None]
        x = model.temporal_norm(level.temporal(x))
    assert model.levels[0].spatial is None
    torch.testing.assert_close(model.head(x), model(poses))


def test_what_no_figure_shows() -> None:
    with torch.device("meta"):
        mixste, mhformer = create_lifter("mixste"), create_lifter("mhformer")
        others = [create_lifter("motionbert_lite"), create_lifter("frame_lifter")]
    assert {name for name, each in mixste.named_modules() if isinstance(each, nn.LayerNorm) and each.eps == 1e-5} == {
        "head.0"
    }
    assert {name for name, each in mhformer.named_modules() if isinstance(each, nn.LayerNorm) and each.eps == 1e-5} == {
        f"stem.norm.{n}" for n in range(3)
    }
    for model in others:
        assert {each.eps for each in model.modules() if isinstance(each, nn.LayerNorm)} == {1e-6}
    rates = [each.rate for each in mixste.modules() if isinstance(each, DropPath)]
    assert rates == pytest.approx([0, 0, *(0.1 * i / 7 for i in range(1, 8) for _ in range(2))])
    assert [level.drop_path.rate for level in mhformer.levels] == [0, 0.1, 0.2]
    assert {each.num_heads for each in mhformer.stem.modules() if isinstance(each, Attention)} == {9}


def test_initial_weights() -> None:
    motionbert: Any = create_lifter("motionbert_lite", frames=27)
    for level in motionbert.levels:
        assert not level.fuse.weight.any()
        assert (level.fuse.bias == 0.5).all()
    assert motionbert.temporal_pos.std().item() == pytest.approx(0.02, rel=0.1)
    mixste: Any = create_lifter("mixste", **SMALL["mixste"])
    assert not mixste.spatial_pos.any()
    assert not mixste.temporal_pos.any()


@pytest.mark.parametrize("axis", [FRAMES, JOINTS])
def test_attention_runs_along_one_axis(axis: int) -> None:
    attention = Attention(16, 4, axis)
    tokens = torch.randn(2, 5, 3, 16)
    got = attention(tokens)
    queries, keys, values = attention.qkv(tokens).unflatten(-1, (3, 4, 4)).unbind(3)
    for frame in range(5):
        for joint in range(3):
            seen: Any = (slice(None), slice(None), joint) if axis == FRAMES else (slice(None), frame)
            query = queries[:, frame, joint]  # (B, heads, 4)
            weights = (torch.einsum("bhd,bnhd->bhn", query, keys[seen]) / 2).softmax(-1)
            mixed = torch.einsum("bhn,bnhd->bhd", weights, values[seen]).flatten(1)
            torch.testing.assert_close(got[:, frame, joint], attention.proj(mixed))


@pytest.mark.parametrize(("axis", "shape"), [(FRAMES, (64, 1, 8, 1)), (JOINTS, (64, 16, 1, 1))])
def test_drop_path_drops_whole_lines(axis: int, shape: tuple[int, ...]) -> None:
    drop = DropPath(0.25, axis)
    ones = torch.ones(64, 16, 8, 4)
    out = drop.train()(ones)
    factors = out.amax(dim=(axis, 3), keepdim=True)
    assert factors.shape == shape
    assert torch.equal(out, factors.expand_as(out))
    assert factors.unique().tolist() == pytest.approx([0, 4 / 3])
    assert factors.mean().item() == pytest.approx(1, abs=0.1)
    assert drop.eval()(ones) is ones


@pytest.mark.parametrize(
    ("poses", "message"),
    [
        ((2, 9, 16, 2), r"\(B, F, 17, 2\) is expected"),
        ((2, 9, 17, 3), r"\(B, F, 17, 2\) is expected.*in_channels"),
        ((9, 17, 2), r"\(B, F, 17, 2\) is expected"),
        ((2, 0, 17, 2), r"\(B, F, 17, 2\) is expected"),
        ((0, 9, 17, 2), r"\(B, F, 17, 2\) is expected"),
        ((2, 8, 17, 2), r"8 frames: this model takes clips of just 9.*frames=8, or with lengths=\"any\""),
    ],
)
def test_clips_of_another_shape_are_refused(poses: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small("mixste")(torch.zeros(poses))


def test_mhformer_does_not_advise_to_resize() -> None:
    with pytest.raises(ValueError, match="frames=18") as refusal:
        small("mhformer")(torch.zeros(1, 18, 17, 2))
    assert "lengths" not in str(refusal.value)


@pytest.mark.parametrize("name", ["mixste", "motionbert", "frame_lifter"])
def test_other_clip_lengths_by_flag(name: str) -> None:
    model = small(name, lengths="shorter").eval()
    cut = small(name, frames=5).eval()
    weights = {key: each[:, :5] if key == "temporal_pos" else each for key, each in model.state_dict().items()}
    cut.load_state_dict(weights)
    poses = clip(model, 5)
    assert torch.equal(model(poses), cut(poses))
    with pytest.raises(ValueError, match='at most 9.*"any".*"shorter" now'):
        model(clip(model, 10))
    resized, longer = small(name, lengths="any").eval(), small(name, frames=17).eval()
    weights = resized.state_dict()
    longer.load_state_dict(weights | {"temporal_pos": positions_of(weights["temporal_pos"], 17, "any")})
    poses = clip(resized, 17)
    torch.testing.assert_close(resized(poses), longer(poses))
    # With a frame more between any two, every second row is an old one.
    torch.testing.assert_close(longer.temporal_pos[:, ::2], resized.temporal_pos)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NetworkConfig(frames=0), "frames=0"),
        (lambda: NetworkConfig(dim=True), "dim=True"),
        (lambda: NetworkConfig(dim=30), "dim=30 is not divisible by heads=8"),
        (lambda: NetworkConfig(lengths="longer"), '"exact", "shorter" or "any"'),
        (lambda: MixSTEConfig(drop_path=1.0), "drop_path=1.0"),
        (lambda: MixSTEConfig(depth=0), "depth=0"),
        (lambda: MotionBERTConfig(mlp_ratio=0.5), "mlp_ratio=0.5"),
        (lambda: MHFormerConfig(frames=100), "not divisible by 9.*nearest: 99"),
        (lambda: MHFormerConfig(depth=1), "depth=1.*at least 2"),
        (lambda: MHFormerConfig(lengths="any"), "as wide as the clip is long"),
        (lambda: FrameLifterConfig(dropout=-0.1), "dropout=-0.1"),
        (lambda: create_lifter("mixste", cycles=0), "cycles=0"),
        (lambda: create_lifter("mixste", mode="frames"), "mode='frames'"),
        (lambda: create_lifter("mixste", distill="teacher"), "unknown preset"),
        (lambda: create_lifter("mixste", depht=8), "no option 'depht'; the nearest is 'depth'"),
        (lambda: create_lifter("MixSTE-243"), "no lifting model; nearest: .*mixste"),
        (lambda: create_lifter("zzz"), "known: frame_lifter"),
    ],
)
def test_models_that_cannot_be_built_are_refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_overrides_reach_the_host_and_the_model() -> None:
    config = lifter_config("motionbert_lite", frames=81, cycles=2, distill="exits")
    assert config.network == replace(MotionBERTConfig(dim=256, mlp_ratio=4), frames=81)
    assert (config.cycles, config.distill) == (2, "exits")
    assert lifter_config("motionbert_lite").network.frames == 243
    assert set(NETWORKS) <= set(list_lifters())


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("blocks", ["levels", "levels[1:3]"])
def test_cycles_against_an_unrolled_loop(name: str, blocks: str) -> None:
    model = small(name).eval()  # so that nothing is drawn; the oracle needs BatchNorm fixed too
    poses = clip(model)
    levels = list(model.levels)
    cycled = levels[1:3] if blocks == "levels[1:3]" else levels
    tokens = model.embed(poses)
    before, after = levels[: levels.index(cycled[0])], levels[levels.index(cycled[-1]) + 1 :]
    for level in before:
        tokens = level(tokens)
    want, states = [], []
    for _ in range(3):
        for level in cycled:
            tokens = level(tokens)
        states.append(tokens)
        tail = tokens
        for level in after:
            tail = level(tail)
        want.append(model.head(model.norm(tail)))
    plain = list(model.state_dict())
    wrap_cyclic(model, 3, blocks=blocks)
    assert list(model.state_dict()) == plain
    assert torch.equal(model(poses), want[0])
    model.train()
    for each in model.modules():
        if isinstance(each, (nn.Dropout, DropPath, nn.BatchNorm1d)):
            each.eval()
    out = model(poses)
    for got, state, pose, tokens in zip(out.outputs, out.tokens, want, states, strict=True):
        torch.testing.assert_close(got, pose)
        torch.testing.assert_close(state, tokens)
    unwrap_cyclic(model)
    assert torch.equal(model.eval()(poses), want[0])


def test_cycles_by_name() -> None:
    model = create_lifter("mixste", **SMALL["mixste"], cycles=2, distill=Distill(normalize=True))
    out = model.train()(clip(model))
    assert len(out) == 2
    sum(each.sum() for each in out.outputs).backward()
    assert isinstance(unwrap_cyclic(model), MixSTE)
