"""Refusals that are right say what was seen, and the call that they advise works."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("timm")

from cycledistill import CycleLoss, CycleOutput, StackError, at_exit, unwrap_cyclic, wrap_cyclic
from tests.oracle import Truth, assert_same, assert_same_gradients, gradients
from tests.prune.oracle import images, vit


def advised(refusal: Any) -> str:
    """The last path that an error tells to wrap."""
    return re.findall(r'wrap_cyclic\(model, blocks="([^"]+)"\)', str(refusal.value))[-1]


class FirstFrozen(nn.Module):
    """Runs its first blocks, or others, under ``no_grad``, as code does that fine-tunes the last ones."""

    def __init__(self, frozen: set[int]) -> None:
        super().__init__()
        self.net, self.frozen = vit(), frozen

    def forward(self, x: Tensor) -> Tensor:
        x = self.net._pos_embed(self.net.patch_embed(x))
        for number, block in enumerate(self.net.blocks):
            with torch.set_grad_enabled(number not in self.frozen and torch.is_grad_enabled()):
                x = block(x)
        return self.net.forward_head(x)


@pytest.mark.parametrize(
    ("count", "start", "path"), [(1, 0, "[1:4]"), (2, 0, "[2:4]"), (2, 1, "[2:4]"), (3, 0, "[3:4]")]
)
def test_first_blocks_without_gradients(count: int, start: int, path: str) -> None:
    model = FirstFrozen(set(range(count))).train()
    truth, x = copy.deepcopy(model), images()
    blocks = "net.blocks" if start == 0 else f"net.blocks[{start}:4]"
    wrap_cyclic(model, distill=None, blocks=blocks)
    with pytest.raises(StackError, match=r"run without gradients \(torch.no_grad\).*Cycle the others") as refusal:
        model(x)
    assert "checkpoint" not in str(refusal.value) and advised(refusal) == "net.blocks" + path
    out = wrap_cyclic(unwrap_cyclic(model), distill=None, blocks=advised(refusal))(x)
    with torch.no_grad():
        state = truth.net._pos_embed(truth.net.patch_embed(x))
        for block in truth.net.blocks[:count]:
            state = block(state)
    expected = []
    for _ in range(2):
        for block in truth.net.blocks[count:]:
            state = block(state)
        expected.append(truth.net.forward_head(state))
    assert_same(list(out.outputs), expected, rtol=1e-12)
    sum(each.square().sum() for each in out.outputs).backward()
    sum(each.square().sum() for each in expected).backward()
    assert_same_gradients(gradients(model), gradients(truth), rtol=1e-10)


@pytest.mark.parametrize("frozen", [{1}, {3}, {0, 1, 2, 3}, {0, 2}], ids=str)
def test_other_blocks_without_gradients(frozen: set[int]) -> None:
    model = wrap_cyclic(FirstFrozen(frozen).train(), distill=None, blocks="net.blocks")
    numbers = ", ".join(map(str, sorted(frozen)))
    expected = f"blocks ({numbers}|0) run without gradients"
    with pytest.raises(StackError, match=expected):
        model(images())
    model.frozen = set()  # the advice: take the no_grad away
    assert len(model(images())) == 2
    with torch.no_grad():
        assert len(model(images())) == 2


def test_a_method_that_stops_early_is_named_and_both_ways_out_work() -> None:
    model, x = wrap_cyclic(vit()), images()
    plain = copy.deepcopy(unwrap_cyclic(copy.deepcopy(model)))
    model.cyclic.exit = 2
    expected = r"forward_intermediates stopped after 2 of 4 blocks.*stop_early=False.*with at_exit\(model, 1\)"
    with pytest.raises(StackError, match=expected):
        model.forward_intermediates(x, indices=[1], stop_early=True, intermediates_only=True)
    with at_exit(model, 1):
        got = model.forward_intermediates(x, indices=[1], stop_early=True, intermediates_only=True)
    assert_same(got, plain.forward_intermediates(x, indices=[1], intermediates_only=True))
    second = model.forward_intermediates(x, indices=[1], stop_early=False, intermediates_only=True)
    with Truth(plain, "blocks").repeated(2) as deep:
        assert_same(second, deep.forward_intermediates(x, indices=[5], intermediates_only=True), rtol=1e-12)


class Crops(nn.Module):
    """Runs its network once for each view, as multi-crop training and siamese networks do."""

    def __init__(self, joined: bool = False) -> None:
        super().__init__()
        self.body = nn.Module()
        self.body.net, self.joined = vit(), joined

    def forward(self, views: list[Tensor]) -> Any:
        if self.joined:
            return self.body.net(torch.cat(views))
        return [self.body.net(view) for view in views]


@pytest.mark.parametrize("early", [False, True], ids=["first forward", "trial"])
@pytest.mark.parametrize("exit", [1, 2])
def test_a_network_that_runs_twice(exit: int, early: bool) -> None:
    views = [images(), images()]
    model = Crops().train(exit == 1)
    with pytest.raises(
        StackError, match=r"the forward runs body\.net a second time.*wrap_cyclic\(model\.body\.net\)"
    ) as e:
        wrap_cyclic(model, inputs=([*views],) if early else None)
        model.cyclic.exit = exit
        model(views)
    assert "LayerDrop" not in str(e.value) and "torch.cat((a, b))" in str(e.value)
    # Both calls that are advised, against the plain network with its blocks repeated.
    truth = Truth(Crops().body.net.train(exit == 1), "blocks")
    alone, joined = Crops(), Crops(joined=True)
    for each in (alone, joined):
        each.body.net.load_state_dict(truth.model.state_dict())
        each.train(exit == 1)
    wrap_cyclic(alone.body.net, distill=None)
    wrap_cyclic(joined, distill=None)
    alone.body.net.cyclic.exit = joined.cyclic.exit = exit
    if exit == 1:
        assert_same([list(out.outputs) for out in alone(views)], [truth.cycles(2, view) for view in views], rtol=1e-12)
        assert_same(list(joined(views).outputs), truth.cycles(2, torch.cat(views)), rtol=1e-12)
        assert CycleLoss(lambda out: out.sum())(alone(views)[0]).requires_grad
    else:
        assert_same(alone(views), [truth(2, view) for view in views], rtol=1e-12)
        assert_same(joined(views), truth(2, torch.cat(views)), rtol=1e-12)


def test_a_forward_that_runs_its_own_blocks_twice() -> None:
    class Loop(nn.Module):
        def __init__(self, times: int) -> None:
            super().__init__()
            self.times, self.blocks = times, vit().blocks

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(self.times):
                x = self.blocks(x)
            return x

    x = torch.randn(2, 5, 24, dtype=torch.float64)
    twice = Loop(2).train()
    expected = twice(x)
    with pytest.raises(StackError, match=r"runs these blocks a second time itself.*wrap_cyclic\(model, cycles=2\)"):
        wrap_cyclic(twice)(x)
    unwrap_cyclic(twice).times = 1
    assert_same(wrap_cyclic(twice, cycles=2)(x)[-1], expected)


def test_positions_that_are_added_between_blocks() -> None:
    """YOLOS does so: no slice of its layers is a chain, and its encoder keeps the shape of its tokens."""
    transformers = pytest.importorskip("transformers")
    config = transformers.YolosConfig(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=[32, 32],
        patch_size=16,
        num_detection_tokens=5,
        use_mid_position_embeddings=True,
    )
    model = transformers.YolosForObjectDetection(config).train()
    (between,) = (each for name, each in model.named_parameters() if "mid_position_embeddings" in name)
    nn.init.normal_(between)
    x = torch.randn(2, 3, 32, 32)
    for blocks in ("auto", "vit.encoder.layer"):
        with pytest.raises(StackError, match=r"block 1 does not receive the output of block 0.*can be cycled as") as e:
            wrap_cyclic(model, blocks=blocks)
        assert advised(e) == "vit.encoder"
    truth = copy.deepcopy(model)
    out = wrap_cyclic(model, distill=None, blocks="vit.encoder")(x)
    state = truth.vit.embeddings(x)
    for number in range(2):
        state = truth.vit.encoder(state, 32, 32).last_hidden_state
        logits = truth.class_labels_classifier(truth.vit.layernorm(state)[:, -5:])
        torch.testing.assert_close(out[number].logits, logits, msg=f"cycle {number + 1}")


class Prompted(nn.Module):
    """Learnable prompts before frozen blocks, and a head (visual prompt tuning)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = vit().requires_grad_(False)
        self.prompts, self.head = nn.Parameter(torch.randn(1, 2, 24).double()), nn.Linear(24, 5).double()

    def forward(self, x: Tensor) -> Tensor:
        x = self.net._pos_embed(self.net.patch_embed(x))
        x = torch.cat((x, self.prompts.expand(len(x), -1, -1)), dim=1)
        return self.head(self.net.norm(self.net.blocks(x)).mean(1))


def test_prompts_on_a_frozen_backbone() -> None:
    model, x = Prompted().train(), images()
    expected = r"no parameter of the stack requires.*outside: prompts, head\.weight, head\.bias; one cycle.*their norms"
    with pytest.raises(StackError, match=expected):
        wrap_cyclic(model)
    out = wrap_cyclic(model, cycles=1, distill=None)(x)
    CycleLoss(lambda y: y.square().sum())(out).backward()
    plain = unwrap_cyclic(model)
    got = {name: parameter.grad for name, parameter in plain.named_parameters()}
    plain.zero_grad()
    plain(x).square().sum().backward()
    assert_same_gradients(got, gradients(plain), rtol=1e-12)
    for block in model.net.blocks:
        block.norm1.requires_grad_(True)
    out = wrap_cyclic(model, cycles=2)(x)
    assert isinstance(out, CycleOutput) and len(out) == 2
    out[-1].sum().backward()
    assert model.prompts.grad is not None and model.net.blocks[0].norm1.weight.grad is not None
