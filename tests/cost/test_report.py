"""Costs against numbers worked out by hand, against published ones, and without a trace on the model."""

from __future__ import annotations

import copy
import dataclasses
import gc
import json
from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cycledistill import StackError, wrap_cyclic
from cycledistill.cost.macs import MacCounter, Macs
from cycledistill.cost.report import CostReport, cost
from cycledistill.cost.timing import interleaved
from tests import toys

TOKENS, FEATURES, DIM, HIDDEN, CLASSES, DEPTH = 4, 6, 8, 16, 5, 3
LENGTH = TOKENS + 1  # and the class token
# By hand, one image. A block: qkv (8 -> 24), proj (8 -> 8), two MLP layers; QK^T and AV are LENGTH^2 x DIM each.
BEFORE = TOKENS * FEATURES * DIM
BLOCK_WEIGHTS = LENGTH * (DIM * 3 * DIM + DIM * DIM + 2 * DIM * HIDDEN)
BLOCK_ATTENTION = 2 * LENGTH * LENGTH * DIM
STACK = Macs(DEPTH * (BLOCK_WEIGHTS + BLOCK_ATTENTION), DEPTH * BLOCK_ATTENTION)
AFTER = DIM * CLASSES


class Block(nn.Module):
    """Pre-norm attention block with two heads."""

    def __init__(self, drop: float = 0.0) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), cast(nn.Module, nn.Linear(DIM, DIM))
        self.mlp = nn.Sequential(nn.Linear(DIM, HIDDEN), nn.GELU(), nn.Dropout(drop), nn.Linear(HIDDEN, DIM))

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))
        return x + self.mlp(self.norm2(x))


class Toy(nn.Module):
    """Tokens (B, 4, 6) -> embed, class token, BatchNorm, blocks, head on the class token."""

    def __init__(self, drop: float = 0.0, block: type[nn.Module] = Block) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, DIM)
        self.cls_token = nn.Parameter(torch.randn(1, 1, DIM))
        self.stem_norm = nn.BatchNorm1d(DIM)
        self.blocks = nn.Sequential(*(block(drop) for _ in range(DEPTH)))
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), self.embed(x)], dim=1)
        x = self.stem_norm(x.transpose(1, 2)).transpose(1, 2)
        return self.head(self.blocks(x)[:, 0])


class Undecided(Toy):
    """Looks at its data, so the meta device cannot run it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(-x if x.sum().item() > 1e9 else x)


def image(batch: int = 1) -> Tensor:
    return torch.randn(batch, TOKENS, FEATURES, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def toy() -> Toy:
    torch.manual_seed(0)
    return Toy()


def plus(*macs: Macs | int) -> Macs:
    each = [m if isinstance(m, Macs) else Macs(m, 0) for m in macs]
    return Macs(sum(m.total for m in each), sum(m.attention for m in each))


def times(n: int, macs: Macs) -> Macs:
    return Macs(n * macs.total, n * macs.attention)


def check_by_hand(report: CostReport, cycles: int, batch: int = 1) -> None:
    assert report.before == times(batch, Macs(BEFORE, 0))
    assert report.one_pass == times(batch, STACK)
    assert report.after == times(batch, Macs(AFTER, 0))
    assert report.cycles == cycles
    for n in range(1, cycles + 1):
        assert report.exits[n - 1] == times(batch, plus(BEFORE, times(n, STACK), AFTER))
        forward = plus(BEFORE, times(n, STACK), n * AFTER)  # the head runs once a cycle
        assert report.training_forward[n - 1] == times(batch, forward)
        # Backward of y = Wx takes two products of the same size, for x and for W; the embedding's input needs none.
        backward = 2 * forward.total - BEFORE
        assert report.training_step[n - 1].total == batch * (forward.total + backward)
    ones, alls = report.training_forward[0].total, report.training_forward[-1].total
    assert report.training_forward_ratio == pytest.approx(alls / ones)
    assert report.training_step_ratio == pytest.approx(report.training_step[-1].total / report.training_step[0].total)


@pytest.mark.slow
@pytest.mark.parametrize("cycles", [1, 3])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_toy_costs_what_is_worked_out_by_hand(toy: Toy, cycles: int, batch: int) -> None:
    report = cost(toy, image(batch), cycles)
    check_by_hand(report, cycles, batch)
    assert report.one_pass.weights == batch * DEPTH * BLOCK_WEIGHTS
    assert (report.stack.path, report.stack.depth) == ("blocks", DEPTH)


def test_parameters_are_counted(toy: Toy) -> None:
    toy.head.requires_grad_(False)
    report = cost(toy, image())
    block = (DIM + 1) * 3 * DIM + (DIM + 1) * DIM + (DIM + 1) * HIDDEN + (HIDDEN + 1) * DIM + 4 * DIM
    head = (DIM + 1) * CLASSES
    assert report.parameters == (FEATURES + 1) * DIM + DIM + 2 * DIM + DEPTH * block + head
    assert report.trainable == report.parameters - head
    assert report.stack.parameters == DEPTH * block


@pytest.mark.slow
def test_deit_tiny_has_the_known_costs() -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        report = cost(timm.create_model("deit_tiny_patch16_224"), cycles=3)
    assert report.parameters == 5_717_416
    assert [round(macs.total / 1e9, 2) for macs in report.exits] == [1.25, 2.48, 3.70]
    assert report.exits[0].total / 1e9 == pytest.approx(2.507 / 2, abs=5e-4)
    assert report.one_pass.total / 1e9 == pytest.approx(1.2246, abs=5e-5)
    # Forward FLOPs of 1, 2, 3 training cycles, as measured for a hand-written loop.
    flops = [2 * macs.total / 1e9 for macs in report.training_forward]
    assert flops == pytest.approx([2.507, 4.957, 7.406], abs=1e-3)
    assert report.training_step[1].total / report.training_step[0].total == pytest.approx(1.985, abs=1e-3)
    assert report.inputs == "1 x 3 x 224 x 224"


@pytest.mark.slow
def test_torchvision_publishes_the_same_cost() -> None:
    models = pytest.importorskip("torchvision.models")
    published = models.ViT_B_16_Weights.IMAGENET1K_V1.meta
    with torch.device("meta"):
        report = cost(models.vit_b_16())
    assert report.parameters == published["num_params"]
    assert report.exits[0].total / 1e9 == pytest.approx(published["_ops"], abs=1e-3)


@pytest.mark.slow
def test_a_stage_is_counted_between_the_others() -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("swin_tiny_patch4_window7_224")
    with pytest.raises(StackError, match="Candidates"):
        cost(model)
    report = cost(model, blocks="layers.2.blocks")
    assert report.exits[0] == plus(report.before, report.one_pass, report.after)
    assert report.training_forward[1] == plus(report.exits[0], report.one_pass, report.after)
    assert min(report.before.total, report.after.total) > 1e8


def test_batched_products_with_weights_are_no_attention() -> None:
    class Einsum(Block):
        def __init__(self, drop: float = 0.0) -> None:
            super().__init__(drop)
            self.proj = nn.Identity()
            self.weight = nn.Parameter(torch.randn(2, DIM // 2, DIM))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.einsum("bnhd,hdc->bnc", x.unflatten(-1, (2, DIM // 2)), self.weight))

    report = cost(Toy(block=Einsum), image())
    assert report.one_pass == STACK  # the einsum is a projection of the same size
    with MacCounter(nn.Identity()) as counter:
        torch.einsum("bij,bjk->bik", torch.zeros(2, 3, 4), torch.zeros(2, 4, 5))
    assert counter.read() == Macs(2 * 3 * 4 * 5, 2 * 3 * 4 * 5)


def test_fused_encoder_layers_are_not_free() -> None:
    layer = nn.TransformerEncoderLayer(DIM, 2, HIDDEN, batch_first=True, dropout=0.0)
    enabled = torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad(), MacCounter(layer) as counter:
        layer.eval()(torch.zeros(1, LENGTH, DIM))
    assert counter.read() == Macs(BLOCK_WEIGHTS + BLOCK_ATTENTION, BLOCK_ATTENTION)
    assert torch.backends.mha.get_fastpath_enabled() is enabled


def test_a_model_that_looks_at_its_data_is_counted_on_a_copy() -> None:
    torch.manual_seed(0)
    model = Undecided()
    check_by_hand(cost(model, image()), 2)
    assert not model.stem_norm.num_batches_tracked


@pytest.mark.slow
def test_wrapped_models_report_their_own_cycles(toy: Any) -> None:
    wrap_cyclic(toy, 3, "exits")
    toy.cyclic.exit = 2
    check_by_hand(cost(toy, image()), 3)
    check_by_hand(cost(toy, image(), 2), 2)
    assert (toy.cyclic.cycles, toy.cyclic.exit) == (3, 2)
    with pytest.raises(ValueError, match="wrapped already, at 'blocks'"):
        cost(toy, image(), blocks="blocks")


@pytest.mark.slow
def test_weights_per_cycle_do_not_stand_in_the_way(toy: Toy) -> None:
    from cycledistill import Distill

    wrap_cyclic(toy, 2, Distill(task_weights=(1.0, 0.5)))
    check_by_hand(cost(toy, image(), repeats=1), 2)


def test_a_model_frozen_for_deployment_has_a_cost_too(toy: Toy) -> None:
    report = cost(toy.requires_grad_(False), image())
    assert report.trainable == 0
    assert report.training_forward[1].total > report.training_forward[0].total
    assert not any(p.requires_grad for p in toy.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was(wrapped: bool, training: bool) -> None:
    torch.manual_seed(0)
    toy = Toy(drop=0.5)
    if wrapped:
        wrap_cyclic(toy, 2)
    toy.train(training)
    toy.blocks[1].train(not training)
    gradients = [torch.randn_like(p) for p in toy.parameters()]
    for parameter, gradient in zip(toy.parameters(), gradients, strict=True):
        parameter.grad = gradient
    state, modes = copy.deepcopy(toy.state_dict()), [m.training for m in toy.modules()]
    classes, random = [type(m) for m in toy.modules()], torch.get_rng_state()
    threads = torch.get_num_threads()

    cost(toy, image(2), 3, repeats=1)

    assert all(torch.equal(value, state[key]) for key, value in toy.state_dict().items())
    assert list(state) == list(toy.state_dict())
    assert all(p.grad is gradient for p, gradient in zip(toy.parameters(), gradients, strict=True))
    assert [m.training for m in toy.modules()] == modes
    assert [type(m) for m in toy.modules()] == classes
    assert torch.equal(torch.get_rng_state(), random)
    assert hasattr(toy, "cyclic") is wrapped
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_time_is_measured_on_request(toy: Toy) -> None:
    report = cost(toy, image(2), 2, repeats=3)
    assert report.seconds is not None
    assert report.seconds.repeats == 3
    assert len(report.seconds.exits) == len(report.seconds.training_step) == 2
    assert min(*report.seconds.exits, *report.seconds.training_step) > 0
    assert "one thread" in str(report)
    assert cost(toy, image()).seconds is None


def test_a_report_reads_as_text_and_as_json(toy: Toy) -> None:
    report = cost(toy, image(), 2)
    record = json.loads(json.dumps(report.to_dict()))
    assert record["exits"][1] == {
        "total": report.exits[1].total,
        "attention": report.exits[1].attention,
        "weights": report.exits[1].weights,
    }
    assert record["stack"]["path"] == "blocks"
    assert record["training_step_ratio"] == report.training_step_ratio
    assert {field.name for field in dataclasses.fields(report)} <= set(record)
    text = str(report)
    assert "Toy, input 1 x 4 x 6" in text
    assert f"{report.parameters:,}" in text
    assert f"forward {report.training_forward_ratio:.3f}x" in text


@pytest.mark.parametrize("inputs", [(image(),), {"x": image()}])
def test_inputs_may_be_positional_or_named(toy: Toy, inputs: tuple[Tensor] | dict[str, Tensor]) -> None:
    check_by_hand(cost(toy, inputs), 2)


@pytest.mark.parametrize("cycles", [0, -1, 1.5, True, "2"])
def test_cycles_must_be_a_whole_number(toy: Toy, cycles: object) -> None:
    with pytest.raises(ValueError, match="whole number of at least 1"):
        cost(toy, image(), cycles)  # type: ignore[arg-type]


def test_what_cannot_be_done_is_said(toy: Toy) -> None:
    with pytest.raises(ValueError, match="repeats=-1"):
        cost(toy, image(), repeats=-1)
    with pytest.raises(ValueError, match=r"declares no size that runs.*inputs="):
        cost(toy)
    with pytest.raises(ValueError, match="meta device has no data"):
        cost(toy.to("meta"), image(), repeats=1)
    with pytest.raises(StackError):
        cost(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.zeros(1, 3, 8, 8))


@pytest.mark.slow
def test_rounds_are_interleaved_and_turned() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = interleaved(calls, repeats=2, warmup=1)
    assert "".join(order) == "abc" + "cba" + "abc"
    assert {name: len(rounds) for name, rounds in seconds.items()} == {"a": 2, "b": 2, "c": 2}


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_timing_holds_torch_to_one_thread_and_puts_everything_back() -> None:
    seen: list[tuple[int, bool]] = []

    def fail() -> None:
        seen.append((torch.get_num_threads(), gc.isenabled()))
        raise KeyError("in the timed call")

    with pytest.raises(KeyError):
        interleaved({"a": fail})
    assert seen == [(1, False)]
    assert (torch.get_num_threads(), gc.isenabled()) == (2, True)
    with pytest.raises(ValueError, match="repeats"):
        interleaved({"a": fail}, repeats=0)


def test_it_counts_a_training_step_where_gradients_are_switched_off() -> None:
    model = toys.make()
    x = toys.batch(size=1)[0]
    expected = cost(model, x, 2)
    with torch.no_grad():
        assert cost(model, x, 2) == expected
    with torch.inference_mode():
        assert cost(model, x, 2).training_step == expected.training_step
