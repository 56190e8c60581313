"""Tokens in front that are no frames: a class token, registers; and token axes that are not frames at all."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

pytest.importorskip("timm")
pytest.importorskip("transformers")

import timm
from transformers import (
    TimesformerConfig,
    TimesformerModel,
    VideoMAEConfig,
    VideoMAEModel,
    ViTConfig,
    ViTModel,
    VivitConfig,
    VivitModel,
)

from cycledistill import StackError, wrap_cyclic, wrap_hourglass
from cycledistill.hourglass.recovery import recover_linear
from cycledistill.hourglass.selection import motion, uniform
from tests.hourglass.models import FRAMES, JOINTS, WIDTH, FrameModel, build, poses
from tests.hourglass.oracle import choose, recover, take
from tests.hourglass.wrapped import close

KEEP, LAYER = 5, 2


class FrontModel(FrameModel):
    """A class token, and registers where asked for, before the frames; the norm sees all, the head the frames."""

    front = 1

    def __init__(self, registers: int = 0, **block: Any) -> None:
        super().__init__(**block)
        self.front = 1 + registers
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        if registers:
            self.register_tokens = nn.Parameter(torch.randn(1, registers, WIDTH))

    def embed(self, poses: Tensor) -> Tensor:
        parts = [self.cls_token, *([self.register_tokens] if self.front > 1 else [])]
        return torch.cat([*(part.expand(len(poses), -1, -1) for part in parts), super().embed(poses)], dim=1)

    def finish(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.head(x[:, self.front :]) + x[:, :1].mean()


class CheckpointedModel(FrontModel):
    def run(self, x: Tensor) -> Tensor:
        for level in self.levels:
            x = checkpoint(level, x, use_reentrant=False)
        return x


def most_attended(model: Any, x: Tensor, front: int) -> Tensor:
    """By hand: attention that frames receive in the block before, from every token, those in front included."""
    block = model.levels[LAYER - 1]
    q, k, _ = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, block.attn.num_heads, -1)).unbind(2)
    weights = torch.einsum("bqhd,bkhd->bhqk", q, k).div(math.sqrt(q.shape[-1])).softmax(-1)
    received = weights.sum(dim=(1, 2))[:, front:]
    return received.sort(descending=True, stable=True).indices[:, :KEEP].sort().values


def by_hand(plain: Any, x: Tensor, select: str = "tpc", table: Any = None) -> tuple[Tensor, Tensor]:
    """The tokens behind the blocks, those in front and the kept frames, and which frames these are."""
    front, tokens, before = plain.front, plain.embed(x), None
    for number, level in enumerate(plain.levels):
        if number == LAYER:
            frames = tokens[:, front:]
            picks = {"tpc": choose, "uniform": uniform, "motion": motion}
            index = most_attended(plain, before, front) if select == "attention" else picks[select](frames, KEEP)
            kept = take(frames, index)
            tokens = torch.cat([tokens[:, :front], kept if table is None else kept + table], dim=1)
        before, tokens = tokens, level(tokens)
    return tokens, index


@pytest.mark.parametrize("registers", [0, 3])
@pytest.mark.parametrize("select", ["tpc", "uniform", "motion", "attention"])
def test_tokens_in_front_are_neither_dropped_nor_counted(select: str, registers: int) -> None:
    plain, x = build(FrontModel, registers=registers), poses(3)
    model = wrap_hourglass(
        copy.deepcopy(plain), layer=LAYER, keep=KEEP, select=select, recover=False, centre=False, frames=FRAMES
    )
    tokens, index = by_hand(plain, x, select)
    close(model(x), plain.finish(tokens))
    assert torch.equal(model.hourglass.index, index)
    assert model.hourglass.settings.prefix == 1 + registers


@pytest.mark.parametrize("kind", [FrontModel, CheckpointedModel])
def test_learned_recovery_and_gradients(kind: type[FrontModel]) -> None:
    plain, x = build(kind, registers=1), poses(3)
    model = wrap_hourglass(copy.deepcopy(plain), layer=LAYER, keep=KEEP)
    assert model.recover.query.shape == (1, FRAMES, WIDTH)
    with torch.no_grad():
        for parameter in (*model.prune.parameters(), *model.recover.parameters()):
            parameter.normal_()
    tokens, index = by_hand(plain, x, table=model.prune[0].pos)
    tokens = plain.norm(tokens)
    frames = recover(model.recover, tokens[:, 2:])
    wanted = plain.head(frames) + tokens[:, :1].mean()
    got = model(x)
    close(got, wanted)
    assert torch.equal(model.hourglass.index, index)
    got.square().sum().backward()
    wanted.square().sum().backward()
    own = dict(model.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(own[name].grad, parameter.grad, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("place", ["norm", "head"])
def test_frames_return_with_the_tokens_in_front_or_behind_them(place: str) -> None:
    plain, x = build(FrontModel), poses(2)
    model = wrap_hourglass(copy.deepcopy(plain), layer=LAYER, keep=KEEP, recover="linear", recover_after=place)
    tokens, index = by_hand(plain, x)
    tokens = plain.norm(tokens)
    if place == "norm":
        wanted = plain.head(recover_linear(tokens[:, 1:], index, FRAMES))
    else:
        wanted = recover_linear(plain.head(tokens[:, 1:]), index, FRAMES)
    close(model(x), wanted + tokens[:, :1].mean())


@pytest.mark.parametrize("order", ["hourglass first", "cycles first"])
def test_cycles_run_on_the_kept_frames_and_the_tokens_in_front(order: str) -> None:
    plain, x = build(FrontModel).train(), poses(2)
    model = copy.deepcopy(plain)
    verbs = [
        lambda: wrap_hourglass(model, layer=LAYER, keep=KEEP, recover=False, centre=False),
        lambda: wrap_cyclic(model, cycles=2, distill=None),
    ]
    for verb in verbs if order == "hourglass first" else reversed(verbs):
        verb()
    out, (tokens, _) = model(x), by_hand(plain, x)
    close(out[0], plain.finish(tokens))
    for level in plain.levels[LAYER:]:
        tokens = level(tokens)
    close(out[1], plain.finish(tokens))


@pytest.mark.slow
def test_compiles_whole() -> None:
    model, x = wrap_hourglass(build(FrontModel), layer=LAYER, keep=KEEP), poses(2)
    close(torch.compile(model, backend="eager", fullgraph=True)(x), model(x))


@pytest.mark.parametrize("how", ["num_prefix_tokens", "config", "token_groups", "parameters", "given"])
def test_where_the_number_of_tokens_in_front_is_found(how: str) -> None:
    plain, x = build(FrontModel, registers=2), poses(2)
    model = copy.deepcopy(plain)
    if how != "parameters":  # hidden under other names
        model.first, model.others = model.cls_token, model.register_tokens
        del model.cls_token, model.register_tokens
        model.embed = lambda poses: torch.cat(
            [part.expand(len(poses), -1, -1) for part in (model.first, model.others)]
            + [FrameModel.embed(model, poses)],
            dim=1,
        )
    if how == "num_prefix_tokens":
        model.num_prefix_tokens = 3
    elif how == "config":
        model.config.num_prefix_tokens = 3
    elif how == "token_groups":
        model.token_groups = {"prefix": slice(0, 3), "frame": slice(3, None)}
    wrap_hourglass(model, layer=LAYER, keep=KEEP, recover=False, centre=False, prefix=3 if how == "given" else "auto")
    close(model(x), plain.finish(by_hand(plain, x)[0]))


def test_a_class_token_that_nothing_declares_is_no_frame() -> None:
    model = build(FrontModel)
    model.first = model.cls_token
    del model.cls_token
    model.embed = lambda x: torch.cat([model.first.expand(len(x), -1, -1), FrameModel.embed(model, x)], dim=1)
    for recover_ in (False, "linear", True):
        wrapped = wrap_hourglass(copy.deepcopy(model), layer=LAYER, keep=KEEP, recover=recover_)
        with pytest.raises(
            StackError, match=r"levels.2 receives 13 tokens, where the clip has 12 frames: pass prefix=1 .*class token"
        ):
            wrapped(poses())
    longer = wrap_hourglass(model, layer=LAYER, keep=KEEP, recover=False, lengths="any")
    assert longer(poses()).shape[1] == KEEP - 1  # as told: clips of any length


@pytest.mark.parametrize("prefix", ["two", -1, True, 1.0, None])
def test_what_is_no_number_of_tokens_is_refused(prefix: Any) -> None:
    with pytest.raises(StackError, match='prefix=.*: "auto", or the number of tokens in front'):
        wrap_hourglass(build(FrameModel), layer=LAYER, keep=KEEP, prefix=prefix)


def test_more_tokens_in_front_than_there_are() -> None:
    model = wrap_hourglass(build(FrameModel), layer=LAYER, keep=KEEP, prefix=12, recover=False)
    with pytest.raises(StackError, match="prefix=12: levels.2 receives 12 tokens, so no frame is among them"):
        model(poses())


def test_a_mask_for_all_tokens_is_refused() -> None:
    class Masked(FrontModel):
        def run(self, x: Tensor) -> Tensor:
            for level in self.levels:
                x = level(x, torch.ones(13, 13, dtype=x.dtype))
            return x

    model = build(Masked)
    for level in model.levels:
        plain = level.forward
        level.forward = lambda x, mask, plain=plain: plain(x)
    wrap_hourglass(model, layer=LAYER, keep=KEEP, recover=False)
    with pytest.raises(StackError, match=r"levels.2 takes a \(13, 13\) tensor beside its tokens"):
        model(poses())


class SequenceFirstFront(nn.Module):
    """(1 + F, B, C): what stands in front is not on axis 1."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, dropout=0.0)
        self.stem, self.cls_token = nn.Linear(2 * JOINTS, WIDTH), nn.Parameter(torch.randn(1, 1, WIDTH))
        self.encoder = nn.TransformerEncoder(layer, 4, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(2)).transpose(0, 1)
        return self.encoder(torch.cat([self.cls_token.expand(1, x.shape[1], -1), x]))


def test_tokens_in_front_on_another_axis_are_refused() -> None:
    model = wrap_hourglass(
        SequenceFirstFront().double(),
        blocks="encoder.layers",
        layer=2,
        keep=4,
        recover=False,
        layout=(lambda x: x.transpose(0, 1).unsqueeze(2), lambda x: x.squeeze(2).transpose(0, 1)),
    )
    with pytest.raises(StackError, match="prefix counts tokens on axis 1 of what the blocks take"):
        model(poses(3))


SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
}


def videomae() -> Any:
    return VideoMAEModel(VideoMAEConfig(num_frames=8, tubelet_size=2, patch_size=16, **SIZES)).eval()


def vivit() -> Any:
    return VivitModel(VivitConfig(num_frames=8, tubelet_size=[2, 16, 16], **SIZES)).eval()


def video() -> Tensor:
    return torch.randn(2, 8, 3, 32, 32)


def path_of(model: Any) -> str:
    names = [name for name, each in model.named_modules() if isinstance(each, nn.ModuleList) and len(each) == 4]
    return names[0]


VIDEOS = {"VideoMAE": (videomae, 0), "ViViT": (vivit, 1)}


@pytest.mark.parametrize("name", VIDEOS)
def test_a_video_model_is_refused_and_the_layout_that_is_named_serves(name: str) -> None:
    make, front = VIDEOS[name]
    plain, x = make(), video()
    refused = wrap_hourglass(copy.deepcopy(plain), blocks=path_of(plain), layer=2, keep=2, recover=False)
    advice = r"pass layout=\(lambda x: x.unflatten\(1, \(-1, 4\)\), lambda x: x.flatten\(1, 2\)\)"
    with pytest.raises(StackError, match=rf"receives {16 + front} tokens.*4 patches of every step in time.*{advice}"):
        refused(x)
    model = wrap_hourglass(
        copy.deepcopy(plain),
        blocks=path_of(plain),
        layer=2,
        keep=2,
        recover=False,
        centre=False,
        layout=(lambda x: x.unflatten(1, (-1, 4)), lambda x: x.flatten(1, 2)),
    )
    seen: dict[str, Tensor] = {}
    blocks = plain.get_submodule(path_of(plain))
    with torch.no_grad():
        hook = blocks[1].register_forward_hook(lambda module, args, output: seen.update(x=output))
        plain(x)
        hook.remove()
        tokens = seen["x"]
        frames = tokens[:, front:].unflatten(1, (4, 4))
        index = choose(frames, 2)
        state = torch.cat([tokens[:, :front], take(frames, index).flatten(1, 2)], dim=1)
        for block in blocks[2:]:
            state = block(state)
        norm = getattr(plain, "layernorm", None)
        wanted = state if norm is None else norm(state)
        torch.testing.assert_close(model(x).last_hidden_state, wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(model.hourglass.index, index)


@pytest.mark.parametrize("said", [{"frames": 8}, {"frames": 4, "prefix": 12}, {"frames": 4, "lengths": "any"}], ids=str)
@pytest.mark.parametrize("name", VIDEOS)
def test_patches_of_a_video_are_no_frames_whatever_was_said(name: str, said: dict[str, Any]) -> None:
    make, _ = VIDEOS[name]
    plain = make()
    with pytest.raises(
        StackError, match=r"layout=\(lambda x: x.unflatten\(1, \(-1, 4\)\), lambda x: x.flatten\(1, 2\)\)"
    ):
        wrap_hourglass(plain, blocks=path_of(plain), layer=2, keep=2, recover=False, **said)(video())


def test_blocks_made_for_one_number_of_frames_are_refused() -> None:
    model = TimesformerModel(TimesformerConfig(num_frames=8, patch_size=16, **SIZES))
    with pytest.raises(StackError, match="blocks of TimesformerModel divide attention between space and time"):
        wrap_hourglass(model, blocks=path_of(model), layer=2, keep=2, recover=False)


@pytest.mark.parametrize("name", ["timm", "transformers"])
def test_patches_of_an_image_are_no_frames(name: str) -> None:
    if name == "timm":
        model, path = timm.create_model("test_vit", img_size=64), "blocks"
    else:
        model = ViTModel(ViTConfig(patch_size=8, **SIZES))
        path = path_of(model)
    before = [type(each) for each in model.modules()]
    with pytest.raises(
        StackError, match=r"receives 17 tokens, 1 of them in front, .* patches of an image and no frames.*frames=16"
    ):
        wrap_hourglass(model, blocks=path, layer=2, keep=4, recover=False)
    assert [type(each) for each in model.modules()] == before
    wrap_hourglass(model, blocks=path, layer=2, keep=4, recover=False, frames=16)
    model(torch.randn(2, 3, *((64, 64) if name == "timm" else (32, 32))))
    assert model.hourglass.index.shape == (2, 4)
