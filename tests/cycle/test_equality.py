"""Outputs, tokens and gradients of N cycles equal a container that holds the blocks N times."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cycledistill import CycleLoss, CycleOutput, wrap_cyclic
from tests import toys
from tests.oracle import Truth, assert_differ, assert_same, assert_same_gradients, gradients

TOYS = {
    "list": (toys.ToyViT, {}, "auto"),
    "sequential": (toys.ToyViT, {"container": "sequential"}, "auto"),
    "one_block": (toys.ToyViT, {"depth": 1}, "blocks"),
    "slice": (toys.ToyViT, {"depth": 4}, "blocks[1:3]"),
    "slice_open": (toys.ToyViT, {"depth": 3}, "blocks[1:]"),
    "one_module": (toys.ToyViT, {"container": "sequential"}, "blocks[1:2]"),
    "arguments": (toys.ArgumentViT, {}, "blocks"),
    "two_states": (toys.TwoStateViT, {}, "blocks"),
    "first_stage": (toys.TwoStageViT, {}, "stages.0"),
    "second_stage": (toys.TwoStageViT, {}, "stages.1"),
    "batchnorm": (toys.NormedViT, {}, "blocks"),
    "dict": (toys.DictViT, {}, "auto"),
    "pair": (toys.PairViT, {}, "auto"),
    "convolutions": (toys.ConvNet, {}, "layer2"),
    "slicing": (toys.SlicingViT, {}, "blocks"),
}


def inputs(cls: type[nn.Module]) -> tuple[Tensor, Tensor]:
    x, target = toys.batch()
    if cls is toys.ConvNet:
        x = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    return x, target


def task(output: object, target: Tensor) -> Tensor:
    """A loss for whatever a toy returns."""
    if isinstance(output, dict):
        return F.cross_entropy(output["logits"], target) + output["dense"].square().mean()
    if isinstance(output, tuple):
        return sum(F.cross_entropy(part, target) for part in output)
    return F.cross_entropy(output, target)


@pytest.mark.parametrize("cycles", [1, 2, 3])
@pytest.mark.parametrize("name", TOYS)
def test_outputs_and_gradients_equal_the_truth(name: str, cycles: int) -> None:
    cls, options, path = TOYS[name]
    model = toys.make(cls, **options)
    x, target = inputs(cls)
    truth = Truth(model, "blocks" if path == "auto" else path)
    want = truth.cycles(cycles, x)
    assert wrap_cyclic(model, cycles, distill="exits", blocks=path) is model
    out = model(x)
    assert isinstance(out, CycleOutput) and len(out) == len(out.outputs) == len(out.tokens) == cycles
    for k in range(cycles):
        assert_same(out[k], want[k], rtol=1e-14, what=f"cycle {k + 1}")
    if cycles > 1:
        assert_differ(out[0], out[1])
    CycleLoss(task)(out, target).backward()
    sum(task(output, target) for output in want).backward()
    assert_same_gradients(gradients(model), truth.gradients(), rtol=1e-12)


@pytest.mark.parametrize("name", ["list", "arguments", "two_states", "pair"])
def test_one_cycle_is_the_base_bit_for_bit(name: str) -> None:
    cls, options, path = TOYS[name]
    model = toys.make(cls, **options)
    x, target = inputs(cls)
    base = copy.deepcopy(model)
    wrap_cyclic(model, 1, blocks=path)
    out, want = model(x), base(x)
    assert isinstance(out, CycleOutput) and len(out) == 1
    assert_same(out[0], want)
    CycleLoss(task)(out, target).backward()
    task(want, target).backward()
    assert_same_gradients(gradients(model), gradients(base), rtol=0.0)


def test_identity_blocks_give_the_same_answer_every_cycle() -> None:
    model = toys.make()
    for block in model.blocks:
        for last in (block.attn.proj, block.mlp[2]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
    want = copy.deepcopy(model)(toys.batch()[0])
    out = wrap_cyclic(model, 3)(toys.batch()[0])
    for k in range(3):
        assert_same(out[k], want)


@pytest.mark.parametrize("name", ["list", "slice", "second_stage"])
def test_tokens_are_the_outputs_of_the_stack(name: str) -> None:
    cls, options, path = TOYS[name]
    model = toys.make(cls, **options)
    x, _ = inputs(cls)
    blocks = list(wrap_cyclic(copy.deepcopy(model), 3, blocks=path).cyclic.stack.modules(model))
    truth = Truth(model, "blocks" if path == "auto" else path)
    seen: list[Tensor] = []
    truth.model.get_submodule(_name_of(blocks[-1], model)).register_forward_hook(lambda _m, _a, y: seen.append(y))
    with truth.repeated(3) as doubled:
        doubled(x)
    out = wrap_cyclic(model, 3, blocks=path)(x)
    assert len(seen) == 3
    for k in range(3):
        assert isinstance(out.tokens[k], Tensor)
        assert_same(out.tokens[k], seen[k])


def _name_of(module: nn.Module, model: nn.Module) -> str:
    return next(name for name, other in model.named_modules() if other is module)


def test_two_states_give_a_tuple_of_tokens() -> None:
    model = wrap_cyclic(toys.make(toys.TwoStateViT), 2, blocks="blocks")
    out = model(toys.batch()[0])
    assert [type(t) for t in out.tokens] == [tuple, tuple]
    assert [t.shape for t in out.tokens[0]] == [(3, 4, toys.DIM), (3, 2, toys.DIM)]


def test_masks_given_by_the_caller_reach_every_cycle() -> None:
    model = toys.make(toys.ArgumentViT)
    x, _ = toys.batch()
    mask = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)[None, :, None]
    truth = Truth(model)
    want = truth.cycles(2, x, mask=mask)
    out = wrap_cyclic(model, 2)(x, mask=mask)
    assert_same(out.outputs, want)
    assert_differ(out[1], truth(2, x))


def test_inputs_that_need_gradients_get_them() -> None:
    model = toys.make()
    x, target = toys.batch()
    truth = Truth(model)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    wrap_cyclic(model, 2, distill="exits")
    CycleLoss(task)(model(ours), target).backward()
    sum(task(output, target) for output in truth.cycles(2, theirs)).backward()
    assert ours.grad is not None and theirs.grad is not None
    assert_same(ours.grad, theirs.grad, rtol=1e-12)


@pytest.mark.parametrize("layer", [nn.TransformerEncoderLayer])
def test_one_module_may_be_the_whole_stack(layer: type[nn.Module]) -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(toys.FEATURES, toys.DIM)
            self.encoder = nn.TransformerEncoder(
                layer(toys.DIM, 2, 16, dropout=0.0, batch_first=True), 2, enable_nested_tensor=False
            )
            self.head = nn.Linear(toys.DIM, toys.CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.encoder(self.embed(x)).mean(1))

    model = toys.make(Encoder)
    x, target = toys.batch()
    truth = Truth(model, "encoder")
    want = truth.cycles(3, x)
    wrap_cyclic(model, 3, distill="exits", blocks="encoder")
    assert model.cyclic.stack.whole
    out = model(x)
    assert_same(out.outputs, want, rtol=1e-14)
    assert_differ(out[0], out[1])
    CycleLoss(task)(out, target).backward()
    sum(task(output, target) for output in want).backward()
    ours = gradients(model)
    theirs = {name.replace("encoder.module.", "encoder."): g for name, g in truth.gradients().items()}
    assert_same_gradients(ours, theirs, rtol=1e-12)


def test_cycles_may_change_between_steps() -> None:
    model = toys.make()
    x, _ = toys.batch()
    want = Truth(model).cycles(4, x)
    wrap_cyclic(model, 2)
    for cycles in (2, 4, 1, 3):
        model.cyclic.cycles = cycles
        out = model(x)
        assert len(out) == len(out.task_weights) == cycles
        assert_same(out.outputs, want[:cycles])


def test_a_change_of_input_shape_needs_no_new_wrap() -> None:
    model = toys.make()
    truth = Truth(model)
    wrap_cyclic(model, 2)
    for size, tokens in ((3, 4), (1, 7), (2, 2)):
        x, _ = toys.batch(size=size, tokens=tokens)
        assert_same(model(x).outputs, truth.cycles(2, x))


def test_training_forward_cycles_without_gradients_too() -> None:
    model = toys.make()
    x, _ = toys.batch()
    want = Truth(model).cycles(2, x)
    wrap_cyclic(model, 2)
    with torch.no_grad():
        out = model(x)
    assert isinstance(out, CycleOutput) and not out[1].requires_grad
    assert_same(out.outputs, want)
    with torch.inference_mode():
        assert_same(model(x).outputs, want)


def test_forward_features_alone_behaves_as_the_base_in_training() -> None:
    model = toys.make()
    x, _ = toys.batch()
    want = copy.deepcopy(model).forward_features(x)
    wrap_cyclic(model, 2)
    got = model.forward_features(x)
    assert isinstance(got, Tensor)
    assert_same(got, want)
    assert len(model(x)) == 2  # and nothing is left over from it


def test_partial_cycles_reach_parameters_once_per_use() -> None:
    """The head is used N times, the embedding once: their gradients must say so (sum over cycles, stem from notes)."""
    model = toys.make(linear=toys.Counted)
    wrap_cyclic(model, 3)
    model(toys.batch()[0])
    assert (model.embed.calls, model.head.calls) == (1, 3)


def test_models_that_read_every_block_see_each_cycles_own() -> None:
    model = toys.make(toys.TapViT)
    x, target = toys.batch()
    by_hand = copy.deepcopy(model)
    state, want = by_hand.stem(x), []
    for _ in range(3):
        taps = []
        for block in by_hand.blocks:
            state = block(state)
            taps.append(state)
        want.append(by_hand.read(taps))
    wrap_cyclic(model, 3, distill="exits")
    out = model(x)
    assert_same(out.outputs, want)
    assert_differ(out[0], out[1])
    CycleLoss(task)(out, target).backward()
    sum(task(output, target) for output in want).backward()
    assert_same_gradients(gradients(model), gradients(by_hand), rtol=1e-12)


@pytest.mark.parametrize("cycles", [2, 3])
def test_timm_vit_with_groups_of_everything(cycles: int) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_vit", img_size=32, num_classes=5).double()
    x, target = torch.randn(2, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 3])
    truth = Truth(model)
    want = truth.cycles(cycles, x)
    wrap_cyclic(model, cycles, distill="exits")
    out = model(x)
    assert_same(out.outputs, want)
    CycleLoss(task)(out, target).backward()
    sum(task(output, target) for output in want).backward()
    assert_same_gradients(gradients(model), truth.gradients(), rtol=1e-12)


def test_functional_call_uses_the_parameters_it_is_given() -> None:
    model = toys.make()
    x, _ = toys.batch()
    other = toys.make(seed=5)
    want = Truth(other).cycles(2, x)
    wrap_cyclic(model, 2)
    out = torch.func.functional_call(model, dict(other.named_parameters()), (x,))
    assert_same(out.outputs, want)


def test_bfloat16_autocast_stays_near_float32() -> None:
    model = toys.make().float()
    x, target = toys.batch()
    truth = Truth(model)
    wrap_cyclic(model, 2, distill="exits")
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x.float())
        with torch.no_grad():
            want = truth.cycles(2, x.float())
    for k in range(2):
        assert out[k].dtype == torch.bfloat16 == want[k].dtype
        assert_same(out[k], want[k])
    exact = truth.cycles(2, x.float())
    assert_same([o.float() for o in out.outputs], exact, rtol=0.05)
    CycleLoss(task)(out, target).backward()
    sum(task(output, target) for output in exact).backward()
    assert_same_gradients(gradients(model), truth.gradients(), rtol=0.05)
