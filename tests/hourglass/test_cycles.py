"""Hourglass and cycles on one model: one choice of frames a forward, whoever was wrapped first."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cycledistill import (
    CycleLoss,
    CycleOutput,
    StackError,
    unwrap_cyclic,
    unwrap_hourglass,
    wrap_cyclic,
    wrap_hourglass,
)
from cycledistill.cost.report import cost
from tests.hourglass.models import (
    DEPTH,
    FRAMES,
    WIDTH,
    Checkpointed,
    FrameModel,
    JointModel,
    TupleModel,
    awake,
    build,
    poses,
)
from tests.hourglass.oracle import add, by_hand, choose, finish, take

ORDERS = ("hourglass, cycles", "cycles, hourglass")
POINTS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((2,), (5,)), ((4,), (3,)), ((1, 3), (8, 3))]


def wrap(
    plain: nn.Module,
    order: str,
    layers: tuple[int, ...] = (2,),
    keep: tuple[int, ...] = (5,),
    cycles: int = 3,
    blocks: str = "auto",
    **settings: Any,
) -> Any:
    model = copy.deepcopy(plain)
    for step in order.split(", "):
        if step == "hourglass":
            wrap_hourglass(model, layer=layers, keep=keep, **settings)
        else:
            wrap_cyclic(model, cycles, "sdpose", blocks=blocks)
    if settings.get("recover", True) is True:
        torch.manual_seed(7)
        awake(model)
    return model


def step(model: nn.Module, *outputs: CycleOutput) -> dict[str, Tensor]:
    model.zero_grad()
    sum(CycleLoss(nn.MSELoss())(output, torch.ones_like(output[0])) for output in outputs).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("layers", "keep"), POINTS)
@pytest.mark.parametrize("kind", [FrameModel, JointModel, TupleModel])
def test_levels_after_the_last_point_are_cycled(
    kind: type[nn.Module], layers: tuple[int, ...], keep: tuple[int, ...], order: str
) -> None:
    plain, x = build(kind), poses()
    model = wrap(plain, order, layers, keep).train()
    assert model.cyclic.stack.path == f"levels[{layers[-1]}:{DEPTH}]"
    out = model(x)
    outputs, tokens, kept = by_hand(plain, model, x, layers, keep, cycles=3)
    for got, want in zip((*out.outputs, *out.tokens), (*outputs, *tokens), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)
    index = model.hourglass.index
    assert all(torch.equal(a, b) for a, b in zip(index if len(layers) > 1 else (index,), kept, strict=True))
    got = step(model, out)
    task = sum(nn.functional.mse_loss(each, torch.ones_like(each)) for each in outputs)
    mse = nn.functional.mse_loss
    pairs = [
        pair for a, b in pairwise(tokens) for pair in (zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)])
    ]
    model.zero_grad()
    plain.zero_grad()
    (task + 5e-6 * sum(mse(a, b) for a, b in pairs)).backward()
    for name, parameter in (*plain.named_parameters(), *model.named_parameters()):
        if name.startswith(("prune", "recover")) or parameter.grad is not None:
            torch.testing.assert_close(got[name], parameter.grad, rtol=1e-8, atol=1e-9, msg=name)


@pytest.mark.parametrize("order", ORDERS)
def test_levels_before_the_point_are_cycled_on_the_frames_of_the_first_cycle(order: str) -> None:
    plain, x = build(JointModel), poses()
    model = wrap(plain, order, blocks="levels[0:2]").train()
    out = model(x)
    state, index = plain.embed(x), None
    for cycle in range(3):
        for level in plain.levels[:2]:
            state = level(state)
        index = choose(state, 5) if index is None else index
        torch.testing.assert_close(out.tokens[cycle], state, rtol=1e-11, atol=1e-11)
        rest = add(take(state, index), model.prune[0].pos)
        for level in plain.levels[2:]:
            rest = level(rest)
        torch.testing.assert_close(out[cycle], finish(plain, model, rest), rtol=1e-11, atol=1e-11)
    assert torch.equal(model.hourglass.index, index)
    assert not torch.equal(choose(state, 5), index)  # the last cycle would have chosen others
    model.eval()
    for number in (1, 2, 3):
        model.cyclic.exit = number
        torch.testing.assert_close(model(x), out[number - 1], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("order", ORDERS)
def test_levels_between_two_points_are_cycled(order: str) -> None:
    plain, x = build(), poses()
    model = wrap(plain, order, (1, 3), (8, 3), cycles=2, blocks="levels[1:3]", recover=False, centre=False).train()
    out = model(x)
    state = plain.levels[0](plain.embed(x))
    state, second = take(state, choose(state, 8)), None
    for cycle in range(2):
        state = plain.levels[2](plain.levels[1](state))
        second = choose(state, 3) if second is None else second
        rest = plain.levels[4](plain.levels[3](take(state, second)))
        torch.testing.assert_close(out[cycle], plain.finish(rest), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("blocks", ["levels", "levels[1:3]", "levels[0:5]", "levels[1:4]"])
@pytest.mark.parametrize("order", ORDERS)
def test_cycles_across_a_point_are_refused(order: str, blocks: str) -> None:
    plain, x = build(), poses()
    first = copy.deepcopy(plain)
    if order.startswith("hourglass"):
        wrap_hourglass(first, layer=2, keep=5)
    else:
        wrap_cyclic(first, 2, blocks=blocks)
    before, want = [type(module) for module in first.modules()], first(x)
    keys = set(vars(first))
    with pytest.raises(StackError, match=r'blocks="levels\[0:2\]" or blocks="levels\[2:5\]"'):
        if order.startswith("hourglass"):
            wrap_cyclic(first, 2, blocks=blocks)
        else:
            wrap_hourglass(first, layer=2, keep=5)
    assert [type(module) for module in first.modules()] == before
    assert set(vars(first)) == keys
    assert torch.equal(first(x), want)
    for proposed in ("levels[0:2]", "levels[2:5]"):
        assert len(wrap(plain, order, cycles=2, blocks=proposed).train()(x)) == 2


@pytest.mark.parametrize("order", ORDERS)
def test_any_time_exits(order: str) -> None:
    plain, x = build(JointModel), poses()
    model = wrap(plain, order)
    outputs, _, _ = by_hand(plain, model, x, (2,), (5,), cycles=4)
    for number, want in enumerate(outputs, start=1):
        model.cyclic.exit = number
        torch.testing.assert_close(model(x), want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("settings", [{"recover": "linear"}, {"recover": False}, {"recover_after": "levels.4"}])
def test_other_recoveries(settings: dict[str, Any], order: str) -> None:
    plain, x = build(JointModel), poses()
    model = wrap(plain, order, cycles=2, **settings).train()
    alone = wrap_hourglass(copy.deepcopy(plain), layer=2, keep=5, **settings)
    if settings.get("recover", True) is True:
        torch.manual_seed(7)
        awake(alone)
    out = model(x)
    torch.testing.assert_close(out[0], alone(x), rtol=1e-11, atol=1e-11)
    doubled = copy.deepcopy(alone)  # its own container, with the levels after the point twice
    doubled.levels.extend([unwrap_hourglass(copy.deepcopy(alone)).levels[number] for number in (2, 3, 4)])
    if settings.get("recover_after"):
        assert out[1].shape == out[0].shape == (2, FRAMES, 3, 3)
    elif settings["recover"] is False:
        torch.testing.assert_close(out[1], doubled(x), rtol=1e-11, atol=1e-11)
    else:
        interpolated = wrap_hourglass(unwrap_hourglass(doubled), layer=2, keep=5, **settings)
        torch.testing.assert_close(out[1], interpolated(x), rtol=1e-11, atol=1e-11)
    assert out.tokens[1].shape == (2, 5, 3, WIDTH)


@pytest.mark.parametrize("order", ORDERS)
def test_one_cycle_is_the_plain_hourglass(order: str) -> None:
    plain, x = build(JointModel), poses()
    alone = wrap_hourglass(copy.deepcopy(plain), layer=2, keep=5)
    model = wrap(plain, order, cycles=1)
    alone.load_state_dict(model.state_dict())
    assert list(alone.state_dict()) == list(model.state_dict())
    assert torch.equal(model(x), alone(x))
    assert torch.equal(model.train()(x)[0], alone.train()(x))


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_one_cycle_costs_what_the_plain_hourglass_does(order: str) -> None:
    plain, x = build(JointModel), poses()
    alone = wrap_hourglass(copy.deepcopy(plain), layer=2, keep=5)
    model = wrap(plain, order, cycles=1)
    assert cost(model.eval(), x).exits[0] == cost(alone.eval(), x, cycles=1).exits[0]


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_noise_is_drawn_once_for_all_cycles(order: str) -> None:
    plain, x = build(), poses() * 1e-3
    with torch.no_grad():
        plain.pos.zero_()
    model = wrap(plain, order, blocks="levels[0:2]", noise="uniform", exact=False).train()
    torch.manual_seed(1)
    model(x)
    first = model.hourglass.index
    torch.manual_seed(1)
    unwrap_cyclic(model)(x)
    assert torch.equal(model.hourglass.index, first)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("first", ["hourglass", "cycles"])
def test_unwrapping_in_any_order(order: str, first: str) -> None:
    plain, x = build(), poses()
    model = wrap(plain, order)
    if first == "hourglass":
        unwrap_hourglass(model)
        cyclic = wrap_cyclic(copy.deepcopy(plain), 3, blocks="levels[2:5]")
        assert torch.equal(model.train()(x)[2], cyclic.train()(x)[2])
        unwrap_cyclic(model)
    else:
        unwrap_cyclic(model)
        alone = wrap_hourglass(copy.deepcopy(plain), layer=2, keep=5)
        alone.load_state_dict(model.state_dict())
        assert torch.equal(model.eval()(x), alone(x))
        unwrap_hourglass(model)
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    assert set(vars(model)) == set(vars(plain))
    assert torch.equal(model.eval()(x), plain(x))


@pytest.mark.parametrize("order", ORDERS)
def test_copies_keep_both(order: str) -> None:
    model, x = wrap(build(), order).train(), poses()
    want = model(x)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(x)[2], want[2])
        copied.cyclic.cycles = 1
        assert len(copied(x)) == 1
    assert torch.equal(model(x)[2], want[2])


@pytest.mark.parametrize("blocks", ["auto", "levels[0:2]"])
@pytest.mark.parametrize("order", ORDERS)
def test_checkpointing_is_exact_also_after_two_forwards(order: str, blocks: str) -> None:
    model, first, second = wrap(build(Checkpointed), order, blocks=blocks).train(), poses(), poses()
    results = []
    for saves in (False, True):
        model.saves = saves
        results.append(step(model, model(first), model(second)))
    for name in results[0]:  # the order of sums differs, so the last bits may
        torch.testing.assert_close(results[1][name], results[0][name], rtol=1e-12, atol=1e-14, msg=name)


def test_reentrant_checkpointing_is_refused() -> None:
    class Reentrant(FrameModel):
        def run(self, x: Tensor) -> Tensor:
            for level in self.levels:
                x = checkpoint(level, x, use_reentrant=True)
            return x

    model = wrap_hourglass(build(Reentrant), layer=2, keep=5)
    with pytest.raises(StackError, match="use_reentrant=False"):
        model(poses().requires_grad_())
    with torch.no_grad(), pytest.warns(UserWarning, match="None of the inputs"):
        assert model(poses()).shape == (2, FRAMES, 9)


@pytest.mark.slow
@pytest.mark.parametrize(("blocks", "order"), list(zip(["auto", "levels[0:2]"], ORDERS, strict=True)))
@pytest.mark.usefixtures("cuda_in_use")
def test_compiles_whole(blocks: str, order: str) -> None:
    model, x = wrap(build(), order, cycles=2, blocks=blocks).train(), poses()
    eager = copy.deepcopy(model)
    fast = torch.compile(model, backend="eager", fullgraph=True)
    got, want = step(model, fast(x)), step(eager, eager(x))
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-9, atol=1e-10, msg=name)
    assert torch.equal(model.hourglass.index, eager.hourglass.index)
    model.eval()
    eager.eval()
    model.cyclic.exit = eager.cyclic.exit = 2
    torch.testing.assert_close(fast(x), eager(x), rtol=1e-11, atol=1e-11)


class Encoder(nn.Module):
    """Levels and norm as one module, all frames in, all frames out once it is an hourglass."""

    def __init__(self, inner: FrameModel) -> None:
        super().__init__()
        self.levels, self.norm = inner.levels, inner.norm

    def forward(self, x: Tensor) -> Tensor:
        for level in self.levels:
            x = level(x)
        return self.norm(x)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        inner = FrameModel()
        self.stem, self.pos, self.head, self.encoder = inner.stem, inner.pos, inner.head, Encoder(inner)

    def forward(self, poses: Tensor) -> Tensor:
        return self.head(self.encoder(self.stem(poses.flatten(2)) + self.pos))


@pytest.mark.parametrize("order", ORDERS)
def test_an_hourglass_inside_one_cycled_module_drops_and_recovers_in_every_cycle(order: str) -> None:
    plain, x = build(Nested), poses()
    model = copy.deepcopy(plain)
    for wrapped in order.split(", "):
        if wrapped == "hourglass":
            wrap_hourglass(
                model, blocks="encoder.levels", layer=2, keep=5, recover="linear", recover_after="encoder.norm"
            )
        else:
            wrap_cyclic(model, 3, blocks="encoder")
    out = model.train()(x)
    alone = wrap_hourglass(copy.deepcopy(plain), blocks="encoder.levels", layer=2, keep=5, recover="linear",
                           recover_after="encoder.norm")  # fmt: skip
    torch.testing.assert_close(out[0], alone(x), rtol=1e-11, atol=1e-11)
    index = alone.hourglass.index
    assert torch.equal(model.hourglass.index, index)
    state = plain.stem(x.flatten(2)) + plain.pos
    alone.hourglass.index = index
    alone.stem, alone.pos = nn.Identity(), nn.Parameter(torch.zeros(1))
    alone.stem.forward = lambda tokens: state  # the encoder on whatever state stands here
    for cycle in range(3):
        torch.testing.assert_close(out[cycle], alone(x), rtol=1e-11, atol=1e-11)
        state = _encode(alone, state)


def _encode(model: Any, state: Tensor) -> Tensor:
    seen: list[Tensor] = []
    hook = model.head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(torch.zeros(len(state), FRAMES, 3, 2, dtype=state.dtype))
    hook.remove()
    return seen[0]


def test_one_cycled_module_with_a_recovery_outside_is_refused() -> None:
    model = wrap_hourglass(build(Nested), blocks="encoder.levels", layer=2, keep=5, recover="linear")
    with pytest.raises(StackError, match=r"encoder\.levels\[0:2\]"):
        wrap_cyclic(model, 2, blocks="encoder")
    outer = nn.Sequential(model)
    with pytest.raises(StackError, match=r"wrap_cyclic\(model\.0\)"):
        wrap_cyclic(outer, 2, blocks="0.encoder.levels[2:5]")
    outer = wrap_cyclic(nn.Sequential(build()), 2, blocks="0.levels")
    with pytest.raises(StackError, match="on the same module"):
        wrap_hourglass(outer[0], layer=2, keep=5)
    with pytest.raises(StackError, match="on the same module"):
        wrap_hourglass(nn.Sequential(wrap_cyclic(build(), 2)), blocks="0.levels", layer=2, keep=5)
