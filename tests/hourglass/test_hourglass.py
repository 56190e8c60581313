"""The hourglass against a loop by hand: layouts, several points, recovery, clip lengths, copies, compilers."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cycledistill import unwrap_hourglass, wrap_cyclic, wrap_hourglass
from cycledistill.hourglass.recovery import recover_linear, recover_nearest
from cycledistill.hourglass.selection import uniform
from tests.hourglass.models import (
    DEPTH,
    FRAMES,
    WIDTH,
    FrameModel,
    JointModel,
    SequenceFirst,
    TupleModel,
    awake,
    build,
    poses,
)
from tests.hourglass.oracle import by_hand, choose, take

KINDS = (FrameModel, JointModel, TupleModel)
POINTS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((2,), (5,)), ((0,), (4,)), ((4,), (1,)), ((1, 3), (8, 3))]


def close(got: Any, want: Any) -> None:
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


def gradients(model: nn.Module, output: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    output.square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def wrap(plain: nn.Module, layers: tuple[int, ...] = (2,), keep: tuple[int, ...] = (5,), **settings: Any) -> Any:
    return wrap_hourglass(copy.deepcopy(plain), layer=layers, keep=keep, **settings)


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


@pytest.mark.parametrize("select", ["uniform", "motion", "attention"])
@pytest.mark.parametrize("kind", [FrameModel, JointModel])
def test_other_selections(kind: type[nn.Module], select: str) -> None:
    plain, x = build(kind), poses()
    model = wrap(plain, recover=False, select=select, centre=False)
    recorded: list[Tensor] = []
    attention = plain.levels[1].attn if kind is FrameModel else plain.levels[1].temporal.attn
    attention.qkv.register_forward_hook(lambda _, args, output: recorded.append(output))
    state = plain.embed(x)
    for level in plain.levels[:2]:
        state = level(state)
    vectors = state if state.ndim == 3 else state.mean(2)
    if select == "uniform":
        want = uniform(vectors, 5)
    elif select == "motion":
        moved = (vectors[:, 1:] - vectors[:, :-1]).norm(dim=-1)
        want = moved.topk(5).indices.sort().values + 1
    else:
        q, k, _ = recorded[0].unflatten(-1, (3, 2, 4)).unbind(-3)
        weights = torch.einsum("...qhd,...khd->...hqk", q, k).div(2).softmax(-1)
        received = weights.sum((-3, -2))
        want = (received.sum(1) if received.ndim == 3 else received).topk(5).indices.sort().values
    model(x)
    assert torch.equal(model.hourglass.index, want)


def test_a_selection_of_ones_own() -> None:
    plain, x, seen = build(JointModel), poses(), []

    def last(tokens: Tensor, keep: int) -> Tensor:
        seen.append((tuple(tokens.shape), tokens.requires_grad, torch.is_grad_enabled()))
        return torch.arange(tokens.shape[1]).flip(0)[:keep].expand(len(tokens), -1)

    model = wrap(plain, select=last)
    model(x)
    assert model.hourglass.index.tolist() == [[7, 8, 9, 10, 11]] * 2
    assert seen == [((2, FRAMES, 3, WIDTH), False, False)]


def test_an_index_that_is_set_is_used_until_it_is_taken_back() -> None:
    plain, x = build(), poses()
    model = wrap(plain, recover=False)
    assert model.hourglass.index is None
    first = model(x)
    index = model.hourglass.index
    model.hourglass.index = index
    flipped = model(x.flip(-1))
    assert torch.equal(model.hourglass.index, index)
    state = plain.embed(x.flip(-1))
    for level in plain.levels[:2]:
        state = level(state)
    state = take(state, index)
    for level in plain.levels[2:]:
        state = level(state)
    close(flipped, plain.finish(state))
    model.hourglass.index = torch.tensor([[0, 1, 2, 3, 5]])  # for all clips
    model(poses(4))
    assert model.hourglass.index.tolist() == [[0, 1, 2, 3, 5]]
    model.hourglass.index = None
    assert torch.equal(model(x), first)
    twice = wrap(plain, (1, 3), (6, 2), recover=False)
    twice.hourglass.index = (torch.tensor([[0, 2, 4, 5, 8, 9]]), torch.tensor([[4, 9]]))
    out = twice(x)
    state = take(plain.levels[0](plain.embed(x)), torch.tensor([[0, 2, 4, 5, 8, 9]] * 2))
    state = take(plain.levels[2](plain.levels[1](state)), torch.tensor([[2, 5]] * 2))
    close(out, plain.finish(plain.levels[4](plain.levels[3](state))))


def test_noise_is_drawn_once_a_forward_and_may_be_given() -> None:
    plain, x = build(), poses() * 1e-3
    with torch.no_grad():
        plain.pos.zero_()
    model = wrap(plain, noise="uniform", exact=False)
    torch.manual_seed(1)
    model(x)
    first = model.hourglass.index
    model(x)
    assert not torch.equal(model.hourglass.index, first)
    torch.manual_seed(1)
    model.hourglass.noise = torch.rand(2, FRAMES)
    model(x)
    assert torch.equal(model.hourglass.index, first)
    model.hourglass.noise = torch.Generator().manual_seed(1)
    model(x)
    assert torch.equal(model.hourglass.index, first)
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert torch.equal(copied(x), model(x))
    model.hourglass.noise = None
    assert torch.equal(model(x), model(x))


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


def test_training_draws_dropout_and_prunes_alike() -> None:
    model, x = wrap(build(drop=0.3)), poses()
    torch.manual_seed(3)
    first = model.train()(x)
    torch.manual_seed(3)
    assert torch.equal(first, model(x))
    assert model.hourglass.index.shape == (2, 5)
    assert first.requires_grad


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


class Checkpointed(JointModel):
    saves = False

    def run(self, x: Tensor) -> Tensor:
        for level in self.levels:
            x = checkpoint(level, x, use_reentrant=False) if self.saves else level(x)
        return x


@pytest.mark.parametrize("settings", [{}, {"recover": "linear", "recover_after": "levels.4"}, {"noise": "uniform"}])
def test_checkpointing_is_exact_also_after_two_forwards(settings: dict[str, Any]) -> None:
    model, first, second = wrap(build(Checkpointed), (1, 3), (8, 3), **settings).train(), poses(), poses()
    results = []
    for saves in (False, True):
        model.saves = saves
        torch.manual_seed(0)
        model.zero_grad()
        outputs = [model(first), model(second)]
        kept = model.hourglass.index
        sum(output.square().sum() for output in outputs).backward()
        assert all(a is b for a, b in zip(model.hourglass.index, kept, strict=True))
        results.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


class Dropping(FrameModel):
    """Levels with dropout, checkpointed or not."""

    saves = False

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.2, batch_first=True)
        self.levels = nn.ModuleList(copy.deepcopy(layer) for _ in range(4))

    run = Checkpointed.run


def random_frames(tokens: Tensor, keep: int) -> Tensor:
    return torch.rand(tokens.shape[:2]).topk(keep, dim=1).indices


@pytest.mark.parametrize("cycles", [1, 2])
@pytest.mark.parametrize("settings", [{"noise": "uniform"}, {"select": random_frames}])
def test_a_random_choice_does_not_shift_dropout_under_checkpointing(settings: dict[str, Any], cycles: int) -> None:
    model, x = wrap(build(Dropping), (1, 2), (8, 3), recover="linear", **settings).train(), poses()
    if cycles > 1:
        wrap_cyclic(model, cycles, None)
    results = []
    for saves in (False, True):
        model.saves = saves
        torch.manual_seed(0)
        model.zero_grad()
        out = model(x)
        sum(each.square().sum() for each in (out.outputs if cycles > 1 else [out])).backward()
        results.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_the_model_as_a_whole_may_be_checkpointed() -> None:
    model, x = wrap(build(JointModel)), poses()
    want = gradients(model, model(x))
    got = gradients(model, checkpoint(model, x, use_reentrant=False))
    assert all(torch.equal(got[name], want[name]) for name in want)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "recover"), [(FrameModel, True), (FrameModel, "linear"), (JointModel, "local"), (TupleModel, False)]
)
@pytest.mark.usefixtures("cuda_in_use")
def test_compiles_whole(kind: type[nn.Module], recover: bool | str) -> None:
    model, x = wrap(build(kind), (1, 3), (8, 3), recover=recover), poses()
    eager = copy.deepcopy(model)
    backend = "aot_eager" if recover is True else "eager"  # as traced, but for one: that takes a fraction of the time
    fast = torch.compile(model, backend=backend, fullgraph=True)
    model.train()
    eager.train()
    got, want = gradients(model, fast(x)), gradients(eager, eager(x))
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-9, atol=1e-10, msg=name)
    assert all(torch.equal(a, b) for a, b in zip(model.hourglass.index, eager.hourglass.index, strict=True))
    if recover is False:  # in eval fewer things are asked: one stands for all
        with torch.no_grad():
            close(fast.eval()(x), eager.eval()(x))


@pytest.mark.slow
@pytest.mark.usefixtures("cuda_in_use")
def test_compiles_whole_under_autocast() -> None:
    model, x = wrap(build().float(), recover="linear"), poses().float()
    fast = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        want = model(x)
        index = model.hourglass.index
        torch.testing.assert_close(fast(x), want, rtol=0.05, atol=0.05)
    assert torch.equal(model.hourglass.index, index)  # chosen in full precision


@pytest.mark.slow
@pytest.mark.parametrize("select", ["tpc", "uniform", "motion", "attention"])
@pytest.mark.usefixtures("cuda_in_use")
def test_exports(select: str) -> None:
    model, x = wrap(build(JointModel), select=select), poses()
    want = model(x)
    index = model.hourglass.index
    program = torch.export.export(model, (x,))
    close(program.module()(x), want)
    other = poses()
    close(program.module()(other), model(other))
    assert index.shape == (2, 5)


@pytest.mark.slow
@pytest.mark.usefixtures("cuda_in_use")
def test_exports_for_any_number_of_clips() -> None:
    model = awake(wrap(build(JointModel), (1, 3), (8, 3)))
    program = torch.export.export(model, (poses(),), dynamic_shapes={"poses": {0: torch.export.Dim("clips", min=2)}})
    for batch in (2, 5):
        x = poses(batch)
        close(program.module()(x), model(x))


@pytest.mark.slow
@pytest.mark.parametrize("recover", [True, "linear"])
@pytest.mark.filterwarnings("ignore")  # the exporter's own
@pytest.mark.usefixtures("cuda_in_use")
def test_runs_in_onnx(tmp_path: Path, recover: bool | str) -> None:
    pytest.importorskip("onnxscript")
    # Up to 1.23 its optimizer fuses the products of 64-bit numbers into an operation it has for 32 bits alone.
    runtime = pytest.importorskip("onnxruntime", minversion="1.24")
    model, x = wrap(build(), recover=recover).float(), poses().float()
    torch.onnx.export(model, (x,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    for given in (x, poses().float()):
        got = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: given.numpy()})[0])
        torch.testing.assert_close(got, model(given), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_sixteen_bits(kind: type[nn.Module]) -> None:
    model, x = awake(wrap(build(kind))).float(), poses().float()
    want = model(x)
    index = model.hourglass.index
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x)
    assert out.shape == want.shape
    model.hourglass.index = index  # rounded tokens may choose others
    half = copy.deepcopy(model).bfloat16()
    for got in (half(x.bfloat16()), _autocast(model, x)):
        assert (got.float() - want).abs().max() < 0.1 * want.abs().max()
    model.bfloat16()
    model.hourglass.index = None
    model(x.bfloat16()).float().sum().backward()
    assert model.hourglass.index.shape == (2, 5)
    assert model.recover.query.grad.dtype == torch.bfloat16


def _autocast(model: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return model(x)


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
