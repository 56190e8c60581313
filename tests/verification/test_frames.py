"""Tokens that are no frames are set aside or refused by the hourglass; without that mend verify finds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("timm")

from cycledistill import StackError, wrap_cyclic, wrap_hourglass
from cycledistill.hourglass.settings import TokenAxis
from tests.hourglass.models import WIDTH, FrameModel, build, poses
from tests.prune.oracle import images, vit
from tests.verification.mends import Check, Patch, both
from tests.verification.results import failed, row


class ClassToken(FrameModel):
    """One learned token in front of the frames, which it declares by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))

    def embed(self, poses: Tensor) -> Tensor:
        x = super().embed(poses)
        return torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1)


class FirstAlone(ClassToken):
    """Answers with the class token, as a classifier does."""

    def finish(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x)[:, 0])


class SpaceTime(FrameModel):
    """A token for each joint of each frame, on one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.joint = nn.Linear(2, WIDTH)

    def embed(self, poses: Tensor) -> Tensor:
        return self.joint(poses).flatten(1, 2)


def let_all_tokens_be_frames(monkeypatch: Patch) -> None:
    monkeypatch.setattr("cycledistill.hourglass.checks.declared_prefix", lambda model: 0)
    monkeypatch.setattr(TokenAxis, "check", lambda *_, **__: None)


@both
@pytest.mark.parametrize(
    ("kind", "recover"), [(ClassToken, True), (ClassToken, "linear"), (ClassToken, "nearest"), (FirstAlone, False)]
)
def test_a_class_token_is_no_frame(check: Check, monkeypatch: Patch, kind: Any, recover: Any, mended: bool) -> None:
    if not mended:
        let_all_tokens_be_frames(monkeypatch)
    frames = {} if mended or recover is not True else {"frames": 13}
    result = check(wrap_hourglass(build(kind), layer=(1, 2), keep=(8, 5), recover=recover, **frames), poses())
    found = row(result, "counts frames")
    if mended:
        assert result.ok and found.detail == "8 of 12 frames kept, 1 in front", result
    else:
        assert found.result == "FAILED" and "begin with 1 that do not depend on the input, and 0 are" in found.detail


@pytest.mark.slow
def test_a_class_token_beside_cycles(check: Check) -> None:
    model = wrap_cyclic(wrap_hourglass(build(ClassToken), layer=2, keep=5, recover="linear"), 2, None)
    result = check(model, poses())
    assert result.ok, result


def test_a_token_in_front_that_is_dropped_all_the_same(check: Check, monkeypatch: Patch) -> None:
    from cycledistill.hourglass import frames

    monkeypatch.setattr(frames, "with_front", lambda front, kept: torch.cat((kept[:, :1], kept), 1))
    result = check(wrap_hourglass(build(FirstAlone), layer=2, keep=5, recover=False), poses())
    assert {"the hourglass counts frames", "hourglass, eval at one cycle"} <= failed(result), result
    assert "the tokens in front" in row(result, "counts frames").detail


def test_a_frame_that_is_set_aside(check: Check) -> None:
    result = check(wrap_hourglass(build(FrameModel), layer=2, keep=5, recover=False, prefix=1), poses())
    assert "holds 11 tokens, and 1 in front, and the clip has 12 frames" in row(result, "counts frames").detail


def videomae() -> tuple[nn.Module, dict[str, Any]]:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3}
    config = transformers.VideoMAEConfig(num_frames=8, tubelet_size=2, patch_size=16, image_size=32, **sizes)
    torch.manual_seed(0)
    return transformers.VideoMAEModel(config).eval(), {"blocks": "encoder.layer"}


NO_FRAMES: dict[str, tuple[Callable[[], tuple[nn.Module, dict[str, Any]]], Callable[[], Tensor]]] = {
    "joints": (lambda: (build(SpaceTime), {}), poses),
    "patches": (lambda: (vit(depth=3), {"blocks": "blocks"}), images),
    "patches of a video": (videomae, lambda: torch.randn(2, 8, 3, 32, 32)),
}


@both
@pytest.mark.slow
@pytest.mark.parametrize("kind", NO_FRAMES)
def test_tokens_that_are_no_frames(check: Check, monkeypatch: Patch, kind: str, mended: bool) -> None:
    make, given = NO_FRAMES[kind]
    model, where = make()
    if mended:
        with pytest.raises(StackError, match=r"receives \d+ tokens"):
            wrap_hourglass(model, layer=1, keep=3, recover=False, **where)(given())
        return
    monkeypatch.setattr(TokenAxis, "check", lambda *_, **__: None)
    result = check(wrap_hourglass(model, layer=1, keep=3, recover=False, **where), given())
    found = row(result, "counts frames")
    assert found.result == "FAILED" and "frames: they are no frames" in found.detail, result


@pytest.mark.slow
def test_a_video_in_the_advised_layout(check: Check) -> None:
    model, where = videomae()
    layout = (lambda x: x.unflatten(1, (-1, 4)), lambda x: x.flatten(1, 2))
    clip = torch.randn(2, 8, 3, 32, 32)
    wrapped = wrap_hourglass(model, layer=1, keep=2, recover=False, layout=layout, **where)
    assert row(check(wrapped, clip), "counts frames").detail == "2 of 4 frames kept"
