"""The hourglass against a loop by hand: several points, frames that are kept, and recovery."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cycledistill import unwrap_hourglass, wrap_cyclic, wrap_hourglass
from cycledistill.hourglass.recovery import recover_linear, recover_nearest
from tests.hourglass.models import DEPTH, FRAMES, WIDTH, FrameModel, JointModel, awake, build, poses
from tests.hourglass.oracle import by_hand, choose, take
from tests.hourglass.wrapped import KINDS, close, gradients, wrap

POINTS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((2,), (5,)), ((0,), (4,)), ((4,), (1,)), ((1, 3), (8, 3))]


@pytest.mark.parametrize(("layers", "keep"), POINTS)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_loop_by_hand(kind: type[nn.Module], layers: tuple[int, ...], keep: tuple[int, ...]) -> None:
    plain, x = build(kind), poses()
    model = awake(wrap(plain, layers, keep))
    outputs, _, kept = by_hand(plain, model, x, layers, keep)
    got = model(x)
    close(got, outputs[0])
    index = model.hourglass.index
    assert all(torch.equal(a, b) for a, b in zip(index if len(layers) > 1 else (index,), kept, strict=True))
    mine = gradients(model, got)
    added = {name: value for name, value in mine.items() if name.startswith(("prune", "recover"))}
    plain.zero_grad()
    model.zero_grad()
    outputs[0].square().sum().backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(mine[name], parameter.grad, rtol=1e-9, atol=1e-10, msg=name)
    for name, parameter in model.named_parameters():
        if name in added:
            torch.testing.assert_close(added[name], parameter.grad, rtol=1e-9, atol=1e-10, msg=name)
    assert len(added) == 9 + len(layers)


@pytest.mark.parametrize("kind", KINDS)
def test_a_local_recovery_counts_frames_of_the_clip(kind: type[nn.Module]) -> None:
    """Not of those that an earlier prune point left; in later cycles and in the recomputation of a checkpoint too."""
    plain, x = build(kind), poses()
    model = awake(wrap(plain, (1, 3), (8, 3), recover="local"))
    assert model.state_dict().keys() == wrap(plain, (1, 3), (8, 3)).state_dict().keys()
    outputs, _, _ = by_hand(plain, model, x, (1, 3), (8, 3), cycles=2)
    close(model(x), outputs[0])
    want = gradients(model, model(x))
    again = gradients(model, checkpoint(model, x, use_reentrant=False))
    assert all(torch.equal(again[name], want[name]) for name in want)
    wrap_cyclic(model, 2, None)
    model.cyclic.exit = 2
    close(model(x), outputs[1])


@pytest.mark.parametrize("kind", KINDS)
def test_only_its_own_keys_are_added(kind: type[nn.Module]) -> None:
    plain = build(kind)
    keys = list(plain.state_dict())
    model = wrap(plain, (1, 3), (8, 3))
    added = list(model.state_dict())[len(keys) :]
    assert list(model.state_dict())[: len(keys)] == keys
    parts = [f"recover.{part}.{kind}" for part in ("q", "k", "v", "proj") for kind in ("weight", "bias")]
    assert added == ["prune.0.pos", "prune.1.pos", "recover.query", *parts]
    assert model.prune[1].pos.shape == (1, 3, WIDTH)
    assert model.recover.query.shape == (1, FRAMES, WIDTH)
    for recover in (False, "linear", "nearest"):
        assert list(wrap(plain, recover=recover).state_dict()) == keys


@pytest.mark.parametrize("kind", KINDS)
def test_all_frames_and_no_recovery_are_the_plain_model_bit_for_bit(kind: type[nn.Module]) -> None:
    plain, x = build(kind), poses()
    for recover in (False, "linear", "nearest"):
        for keep in (FRAMES, 1.0):
            model = wrap(plain, keep=(keep,), recover=recover)  # type: ignore[arg-type]
            got, want = model(x), plain(x)
            assert torch.equal(got, want)
            mine, theirs = gradients(model, got), gradients(plain, want)
            assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
            assert torch.equal(model.hourglass.index, torch.arange(FRAMES).expand(2, -1))


def test_kept_frames_alone_keep_the_centre() -> None:
    plain, x = build(JointModel), poses()
    model = wrap(plain, recover=False)
    state = plain.embed(x)
    for level in plain.levels[:2]:
        state = level(state)
    index = choose(state, 5, always=(FRAMES - 1) // 2)
    state = take(state, index)
    for level in plain.levels[2:]:
        state = level(state)
    out = model(x)
    close(out, plain.finish(state))
    assert torch.equal(model.hourglass.index, index)
    target = torch.randn(2, FRAMES, 3, 3)
    assert torch.equal(model.hourglass.take(target), take(target, index))
    centre = [clip[numbers.tolist().index(5)] for clip, numbers in zip(out, index, strict=True)]
    assert torch.equal(model.hourglass.centre_frame(out), torch.stack(centre))


@pytest.mark.parametrize("centre", [0, 3, True, False])
def test_a_frame_that_is_always_kept(centre: int | bool) -> None:
    plain, x = build(), poses(8)
    model = wrap(plain, (1, 3), (4, 2), centre=centre, recover=False)
    model(x)
    frame = (FRAMES - 1) // 2 if centre is True else centre
    always = [bool((index == frame).any(1).all()) for index in model.hourglass.index]
    assert always == [centre is not False] * 2


@pytest.mark.parametrize(("recover", "between"), [("linear", recover_linear), ("nearest", recover_nearest)])
def test_interpolation_acts_on_what_the_head_returns(recover: str, between: Any) -> None:
    plain, x = build(JointModel), poses()
    model = wrap(plain, recover=recover)
    bare = wrap(plain, recover=False, centre=False)
    assert model.hourglass.recover_after == "head"
    close(model(x), between(bare(x), bare.hourglass.index, FRAMES))


def test_recovery_after_another_module() -> None:
    plain, x = build(), poses()
    last = wrap(plain, recover="linear", recover_after=f"levels.{DEPTH - 1}")
    bare = wrap(plain, recover=False, centre=False)
    seen: list[Tensor] = []
    bare.levels[-1].register_forward_hook(lambda _, args, output: seen.append(output))
    bare(x)
    close(last(x), plain.finish(recover_linear(seen[0], bare.hourglass.index, FRAMES)))
    inner = wrap(plain, recover="nearest", recover_after="levels.3")
    state = plain.embed(x)
    for level in plain.levels[:2]:
        state = level(state)
    index = choose(state, 5)
    state = recover_nearest(plain.levels[3](plain.levels[2](take(state, index))), index, FRAMES)
    close(inner(x), plain.finish(plain.levels[4](state)))


class SharedNorm(FrameModel):
    """The last norm is also called before the levels and inside them."""

    def embed(self, poses: Tensor) -> Tensor:
        return self.norm(super().embed(poses))

    def run(self, x: Tensor) -> Tensor:
        for level in self.levels[:-1]:
            x = self.norm(level(x))
        return self.levels[-1](x)


def test_frames_return_only_after_the_last_level() -> None:
    plain, x = build(SharedNorm), poses()
    assert wrap(plain)(x).shape == plain(x).shape
    assert wrap(plain, recover=False)(x).shape == (2, 5, 9)


def test_copies_pickle_and_state_dict() -> None:
    plain, x = build(JointModel), poses()
    model = awake(wrap(plain, (1, 3), (8, 3)))
    want = model(x)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(x), want)
        assert isinstance(copied, JointModel)
        copied.hourglass.index = None
        assert copied.hourglass.index is None
        with torch.no_grad():
            copied.recover.query.add_(1.0)
            copied.prune[0].pos.add_(1.0)
        assert not torch.equal(copied(x), want)
    assert torch.equal(model(x), want)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    again = wrap(build(JointModel), (1, 3), (8, 3))
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(again(x), want)


def test_unwrap() -> None:
    plain, x = build(), poses()
    model = wrap(plain)
    attributes = set(vars(plain))
    assert unwrap_hourglass(model) is model
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    assert list(model.state_dict()) == list(plain.state_dict())
    assert set(vars(model)) == attributes
    assert torch.equal(model(x), plain(x))
    assert unwrap_hourglass(wrap_hourglass(model, layer=2, keep=5, select="attention"))(x).shape == (2, FRAMES, 9)
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]


def test_a_level_called_by_itself_and_a_second_run_of_the_levels() -> None:
    plain, x = build(), poses()
    model = wrap(plain, recover=False)
    state = plain.embed(x)
    assert torch.equal(model.levels[2](state), plain.levels[2](state))

    class Twice(FrameModel):
        def forward(self, poses: Tensor) -> Tensor:
            return super().forward(poses) + super().forward(poses.flip(0))

    both = wrap(build(Twice), recover="linear")
    one = copy.deepcopy(both)
    one.__class__ = type(wrap(build(), recover="linear"))
    close(both(x), one(x) + one(x.flip(0)))
