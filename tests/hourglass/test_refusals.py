"""What the hourglass refuses, why, and that the model is then as it was."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cycledistill import StackError, unwrap_hourglass, wrap_hourglass
from cycledistill.hourglass.key_map import KEY_MAP, from_official, to_official
from tests.hourglass.models import FRAMES, WIDTH, FrameModel, JointModel, SequenceFirst, awake, build, poses
from tests.hourglass.refused import assert_refused
from tests.prune.oracle import vit


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"layer": 5}, r"lie outside the stack levels, whose 5 blocks are numbered 0 to 4"),
        ({"layer": -1}, "lie outside"),
        ({"layer": [1, 7], "keep": [5, 3]}, r"\[7\] lie outside"),
        ({"layer": []}, "number of a block"),
        ({"layer": [3, 1], "keep": [5, 3]}, "ascending"),
        ({"layer": [1, 1], "keep": [5, 3]}, "ascending"),
        ({"layer": True}, "number of a block"),
        ({"layer": "1"}, "number of a block"),
        ({"keep": 13}, "the clip has 12 frames"),
        ({"keep": 0}, "at least 1"),
        ({"keep": -3}, "at least 1"),
        ({"keep": 0.0}, "above 0 and at most 1"),
        ({"keep": 1.5}, "above 0 and at most 1"),
        ({"keep": float("nan")}, "above 0 and at most 1"),
        ({"keep": True}, "at least 1"),
        ({"keep": "5"}, "at least 1"),
        ({"keep": [5, 3]}, "one number for each"),
        ({"layer": [1, 3], "keep": [3, 5]}, "cannot keep more frames"),
        ({"select": "random"}, "'tpc', 'uniform', 'motion', 'attention'"),
        ({"select": 3}, "or a callable"),
        ({"select": "attention", "layer": 0}, "has none before 0"),
        ({"recover": "cubic"}, "recover='cubic'"),
        ({"recover": None}, "recover=None"),
        ({"recover_after": "tail"}, "no module of this path"),
        ({"recover_after": ""}, "no module of this path"),
        ({"recover_after": "levels"}, "no module of this path that is called"),
        ({"recover_after": "levels.1"}, "before the last prune point"),
        ({"recover_after": "norm", "recover": False}, "no frames are recovered"),
        ({"layout": lambda x: x}, "a pair of functions"),
        ({"layout": (1, 2)}, "a pair of functions"),
        ({"pool": "max"}, "pool='max'"),
        ({"heads": 3}, "heads=3 do not divide the 8 channels"),
        ({"heads": 0}, "heads=0"),
        ({"frames": 0}, "frames=0"),
        ({"width": 2.5}, "width=2.5"),
        ({"centre": 12}, "centre=12: the number of a frame of the 12 in the clip"),
        ({"centre": -1}, "centre=-1"),
        ({"neighbours": 0}, "neighbours=0"),
        ({"noise": "gaussian"}, "noise='gaussian'"),
        ({"noise": torch.arange(3)}, "numbers in"),
        ({"exact": "no"}, "exact='no'"),
        ({"tie": "random"}, "tie='random'"),
        ({"lengths": "all"}, "lengths='all'"),
        ({"blocks": "blocks"}, "no module of this path"),
        ({"blocks": "head"}, "leaf"),
        ({"blocks": "levels.0"}, "is one module"),
        ({"blocks": 3}, "auto"),
    ],
)
def test_arguments(settings: dict[str, Any], match: str) -> None:
    assert_refused(build(), match, **settings)


def test_blocks_that_nobody_named_are_not_quoted() -> None:
    said = r"has no levels, the blocks that wrap_hourglass takes where none are named: name .*blocks=\"path"
    with pytest.raises(
        StackError, match=rf'(?s)VisionTransformer {said}.* or pass blocks="auto" Cand.*blocks="blocks"'
    ):
        wrap_hourglass(vit(), keep=3)
    with pytest.raises(StackError, match=r'^blocks="level": FrameModel has no module of this path; near it: .levels'):
        wrap_hourglass(build(FrameModel), keep=3, blocks="level")


def test_sizes_that_are_not_known() -> None:
    plain = build()
    del plain.config
    assert_refused(plain, "pass frames=...")
    assert wrap_hourglass(copy.deepcopy(plain), layer=2, keep=5, recover="linear")(poses()).shape == (2, FRAMES, 9)
    assert wrap_hourglass(copy.deepcopy(plain), layer=2, keep=5, frames=FRAMES)(poses()).shape == (2, FRAMES, 9)
    for level in plain.levels:
        level.attn.num_heads = None
    assert_refused(plain, "pass heads=...", frames=FRAMES)
    wide = wrap_hourglass(build(), layer=2, keep=5, width=16)
    with pytest.raises(StackError, match="wrap with width=8"):
        wide(poses())


def test_declared_by_the_model() -> None:
    plain = build()
    plain.config = SimpleNamespace(frames=FRAMES, lengths="any")
    model = wrap_hourglass(copy.deepcopy(plain), layer=2, keep=5)
    assert model(poses(2, 6)).shape == (2, 6, 9)
    plain.pool = "sum"
    assert_refused(plain, "pool='sum'")


def test_wrapped_twice_and_nothing_to_unwrap() -> None:
    model = wrap_hourglass(build(), layer=2, keep=5)
    for each in (model, nn.Sequential(model)):
        with pytest.raises(StackError, match="already wrapped by wrap_hourglass"):
            wrap_hourglass(each, layer=2, keep=5)
    assert model(poses()).shape == (2, FRAMES, 9)
    unwrap_hourglass(model)
    with pytest.raises(StackError, match="nothing to undo"):
        unwrap_hourglass(model)
    with pytest.raises(StackError, match=r"unwrap its \.module"):
        unwrap_hourglass(nn.DataParallel(model))


def test_models_in_other_hands() -> None:
    assert_refused(torch.compile(build(), backend="eager"), "compile")
    assert_refused(nn.DataParallel(build()), r"wrap_hourglass\(model\.module\)")
    for name in ("hourglass", "prune", "recover"):
        model = build()
        setattr(model, name, 3)
        assert_refused(model, "of its own")
    with pytest.raises(StackError, match=r"torch\.nn\.Module"):
        wrap_hourglass("model")  # type: ignore[type-var]
    with pytest.raises(StackError, match=r"jit\.script"), pytest.warns((FutureWarning, DeprecationWarning)):
        torch.jit.script(wrap_hourglass(build(), layer=2, keep=5).levels[2])
    assert_refused(build(SequenceFirst), r"levels", blocks="levels")


def test_clips() -> None:
    model = wrap_hourglass(build(), layer=2, keep=5)
    with pytest.raises(StackError, match='a clip of 9 frames: the tables of the hourglass are for 12.*lengths="any"'):
        model(poses(2, 9))
    with pytest.raises(StackError, match="no frames"):
        model(poses(2, 0))
    shorter = wrap_hourglass(build(), layer=2, keep=5, lengths="shorter")
    shorter.pos = nn.Parameter(torch.randn(1, 40, WIDTH).double())
    with pytest.raises(StackError, match="receives 13 tokens, where the clip has 12 frames"):
        shorter(poses(2, 13))
    untabled = wrap_hourglass(build(), layer=2, keep=5, recover=False)
    with pytest.raises(StackError, match="keep=5: the clip has 4 frames"):
        untabled(poses(2, 4))
    late = wrap_hourglass(build(), layer=2, keep=3, centre=8, recover="linear")
    with pytest.raises(StackError, match="centre=8: the clip has 7 frames"):
        late(poses(2, 7))
    assert late(poses()).shape == (2, FRAMES, 9)  # a refused forward leaves nothing behind


class Masked(FrameModel):
    """Levels that take a mask over frames."""

    def run(self, x: Tensor) -> Tensor:
        mask = torch.ones(x.shape[:2])
        for level in self.levels:
            x = level(x, mask)
        return x


def test_levels_of_another_kind() -> None:
    class Taking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = build().levels[0]

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return self.inner(x)

    masked = build(Masked)
    masked.levels = nn.ModuleList(Taking() for _ in range(5))
    model = wrap_hourglass(masked, layer=2, keep=5, recover="linear")
    with pytest.raises(StackError, match=r"takes a \(2, 12\) tensor beside its tokens"):
        model(poses())
    with pytest.raises(StackError, match="no attention over frames"):
        wrap_hourglass(masked_linear(), layer=2, keep=5, select="attention", recover=False)
    model = wrap_hourglass(masked_linear(), layer=2, keep=5, recover=False)
    with pytest.raises(StackError, match="layout="):
        model(torch.randn(3, WIDTH))
    assert model(torch.randn(3, 9, WIDTH)).shape == (3, 5, WIDTH)


def masked_linear() -> Any:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.levels = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            for level in self.levels:
                x = level(x)
            return x

    return Plain()


class Skipping(FrameModel):
    skips: str = ""

    def run(self, x: Tensor) -> Tensor:
        for number, level in enumerate(self.levels):
            if not (self.skips == "point" and number == 2):
                x = level(x)
        return x

    def finish(self, x: Tensor) -> Tensor:
        return self.head(x if self.skips == "norm" else self.norm(x))


def test_forwards_that_do_not_pass_the_points_or_the_recovery() -> None:
    model = wrap_hourglass(build(Skipping), layer=2, keep=5)
    model.skips = "point"
    with pytest.raises(StackError, match="passed 0 of 1 prune points"):
        model(poses())
    model.skips = "norm"
    with pytest.raises(StackError, match="norm did not run after the last block"):
        model(poses())
    model.skips = ""
    assert model(poses()).shape == (2, FRAMES, 9)


class Decoder(FrameModel):
    """Levels that also take a memory."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(WIDTH, 2, 16, dropout=0.0, batch_first=True)
        self.levels = nn.ModuleList(copy.deepcopy(layer) for _ in range(3))

    def forward(self, poses: Tensor, memory: Tensor) -> Tensor:  # type: ignore[override]
        x = self.embed(poses)
        for level in self.levels:
            x = level(x, memory)
        return self.finish(x)


def test_a_memory_like_the_tokens_is_no_state() -> None:
    model = wrap_hourglass(build(Decoder), layer=1, keep=5, recover="linear")
    assert model(poses(), torch.randn(2, 7, WIDTH).double()).shape[:2] == (2, FRAMES)
    with pytest.raises(StackError, match="takes 2 tensors of one shape, .* and returns 1"):
        model(poses(), torch.randn(2, FRAMES, WIDTH).double())


def test_frames_that_come_first_need_a_layout() -> None:
    class FramesFirst(FrameModel):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0)
            self.levels = nn.ModuleList(copy.deepcopy(layer) for _ in range(3))

        def forward(self, poses: Tensor) -> Tensor:
            return self.finish(self.run(self.embed(poses).transpose(0, 1))).transpose(0, 1)

    model = build(FramesFirst)
    assert_refused(model, "batch_first=False", layer=1, recover="linear")
    layout = (lambda x: x.transpose(0, 1).unsqueeze(2), lambda x: x.squeeze(2).transpose(0, 1))
    wrap_hourglass(model, layer=1, keep=5, recover="linear", layout=layout)
    assert model(poses()).shape[:2] == (2, FRAMES)
    assert model.hourglass.index.shape == (2, 5)


def test_a_layout_that_does_not_come_back() -> None:
    layout = (lambda x: x.unsqueeze(2), lambda x: (x.squeeze(2), x))
    model = wrap_hourglass(build(FrameModel), layer=2, keep=5, recover="linear", layout=layout)
    with pytest.raises(StackError, match=r"gave 2 things for the tokens at levels\.2, which are 1 tensor"):
        model(poses())


def test_maps_of_all_tokens_are_refused() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_vit", img_size=64, num_classes=0, global_pool="", class_token=False)
    wrap_hourglass(model, blocks="blocks", layer=2, keep=5, recover="linear", frames=16)
    with pytest.raises(StackError, match="forward_intermediates makes maps of all tokens"):
        model.forward_intermediates(torch.randn(1, 3, 64, 64))


def test_noise_of_another_length() -> None:
    model = wrap_hourglass(build(), layer=2, keep=5, noise=torch.rand(2, 9))
    with pytest.raises(StackError, match=r"noise of shape \(2, 9\): \(2, 12\)"):
        model(poses())
    with pytest.raises(StackError, match="noise=3"):
        model.hourglass.noise = 3


def test_official_names_both_ways() -> None:
    model = awake(wrap_hourglass(build(JointModel), layer=2, keep=5))
    ours = model.state_dict()
    official = to_official(ours)
    assert set(ours) - set(official) == set(KEY_MAP)
    assert set(official) - set(ours) == set(KEY_MAP.values())
    assert torch.equal(official["x_token"], model.recover.query)
    assert torch.equal(official["cross_attention.linear_k.bias"], model.recover.k.bias)
    again = from_official(official)
    assert list(again) == list(ours)
    assert all(again[name] is official[KEY_MAP.get(name, name)] for name in again)
    official.pop("cross_attention.linear_v.bias")
    official["cross_attention.norm.weight"] = torch.zeros(1)
    with pytest.raises(
        StackError, match=r"missing \['cross_attention.linear_v.bias'\], unexpected \['cross_attention.no"
    ):
        from_official(official)
    with pytest.raises(StackError, match=r"unexpected \['prune.1.pos'\]"):
        to_official(wrap_hourglass(build(), layer=[1, 3], keep=[5, 3]).state_dict())
    with pytest.raises(StackError, match="missing"):
        to_official(build().state_dict())


def test_data_parallel_replicas() -> None:
    model = wrap_hourglass(build(), layer=2, keep=5)
    model.levels[2]._is_replica = True
    with pytest.raises(StackError, match="DistributedDataParallel"):
        model(poses())
