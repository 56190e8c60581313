"""Any-time inference: `model.cyclic.exit = k` returns what cycle k returns, and runs the tail once."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cycledistill import CycleLoss, CycleOutput, StackError, at_exit, wrap_cyclic
from tests import toys
from tests.cycle.test_equality import TOYS, inputs
from tests.oracle import Truth, assert_differ, assert_same


@pytest.mark.parametrize("name", TOYS)
def test_exit_returns_that_cycle(name: str) -> None:
    cls, options, path = TOYS[name]
    model = toys.make(cls, **options).eval()
    x, _ = inputs(cls)
    want = Truth(model, "blocks" if path == "auto" else path).cycles(4, x)
    wrap_cyclic(model, 2, blocks=path)
    assert model.cyclic.exit == 1
    for k in (2, 1, 4, 3):  # beyond `cycles` too, and back
        model.cyclic.exit = k
        got = model(x)
        assert not isinstance(got, CycleOutput)
        assert_same(got, want[k - 1], rtol=1e-14, what=f"exit {k}")
    assert_differ(want[1], want[0])


def test_exit_does_not_touch_training() -> None:
    model = toys.make()
    x, _ = toys.batch()
    want = Truth(model).cycles(2, x)
    wrap_cyclic(model, 2)
    model.cyclic.exit = 3
    assert_same(model(x).outputs, want)


def test_stem_and_tail_run_once() -> None:
    model = wrap_cyclic(toys.make(linear=toys.Counted), 2).eval()
    model.cyclic.exit = 3
    model(toys.batch()[0])
    assert (model.embed.calls, model.head.calls) == (1, 1)


def test_hooks_see_one_tail() -> None:
    model = wrap_cyclic(toys.make(), 2).eval()
    model.cyclic.exit = 3
    seen: list[Tensor] = []
    model.norm.register_forward_hook(lambda _m, args, _y: seen.append(args[0]))
    model(toys.batch()[0])
    assert len(seen) == 1


def test_forward_features_is_included() -> None:
    model = toys.make().eval()
    x, _ = toys.batch()
    truth = Truth(model)
    wrap_cyclic(model, 2)
    for k in (1, 2, 3):
        model.cyclic.exit = k
        assert_same(model.forward_features(x), truth(k, x, method="forward_features"))
        assert_same(model.forward_head(model.forward_features(x)), truth(k, x))


def test_forward_features_of_a_timm_model() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_vit", img_size=32).eval()
    truth = Truth(model)
    wrap_cyclic(model, 2)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for k in (2, 3):
            model.cyclic.exit = k
            assert_same(model.forward_features(x), truth(k, x, method="forward_features"))
            assert_same(model(x), truth(k, x))


class Encoding(toys.ToyViT):
    """Enters its stack by a method whose name says nothing, and checkpoints its blocks."""

    def encode(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self._run(x)

    def _run(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.norm(self.encode(x)))


def test_a_method_of_another_name_that_calls_blocks_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    model = wrap_cyclic(toys.make(Encoding), 2).eval()
    x, _ = toys.batch()
    once = model.encode(x)
    model.cyclic.exit = 2
    model(x).sum().backward()  # runs the blocks again, outside any forward
    assert not caplog.records
    for _ in range(2):
        assert_same(model.encode(x), once)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert re.search("run once, as at exit 1, and not the 2 times .* 'forward'", record.getMessage())


class EncodingAtOnce(Encoding):
    """The same, with blocks that are called as one module."""

    def _run(self, x: Tensor) -> Tensor:
        return self.blocks(x)


def test_a_method_of_another_name_that_calls_the_container_cycles(caplog: pytest.LogCaptureFixture) -> None:
    model = toys.make(EncodingAtOnce, container="sequential").eval()
    x, _ = toys.batch()
    truth = Truth(model)
    wrap_cyclic(model, 2)
    model.cyclic.exit = 3
    assert_same(model.encode(x), truth(3, x, method="encode"))
    assert not caplog.records


def test_a_model_that_reads_blocks_gets_the_cycle_it_asked_for() -> None:
    model = toys.make(toys.TapViT).eval()
    x, _ = toys.batch()
    by_hand = copy.deepcopy(model)
    state = by_hand.stem(x)
    for _ in range(3):
        taps = []
        for block in by_hand.blocks:
            state = block(state)
            taps.append(state)
    wrap_cyclic(model, 2)
    model.cyclic.exit = 3
    assert_same(model(x), by_hand.read(taps))


def test_timm_intermediates_are_those_of_the_cycle() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_vit", img_size=32).eval()
    depth = len(model.blocks)
    truth = Truth(model)
    wrap_cyclic(model, 2)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for k in (1, 2):
            model.cyclic.exit = k
            last = [(k - 1) * depth + i for i in range(depth)]
            want = truth(k, x, indices=last, method="forward_intermediates")
            assert_same(model.forward_intermediates(x, indices=list(range(depth))), want, what=f"exit {k}")


def test_timm_feature_getter_gets_those_of_the_cycle() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_vit", img_size=32, features_only=True, out_indices=(1, 3, 5))
    truth = Truth(model, "model.blocks")
    wrap_cyclic(model, 2, blocks="model.blocks")
    x = torch.randn(2, 3, 32, 32)
    want = []
    with torch.no_grad():
        for k in (1, 2):
            indices, truth.model.out_indices = truth.model.out_indices, [6 * (k - 1) + i for i in (1, 3, 5)]
            want.append(truth(k, x))
            truth.model.out_indices = indices
        out = model(x)
        for k in (1, 2):
            assert len(out[k - 1]) == 3
            assert_same(out[k - 1], want[k - 1], what=f"cycle {k}")
        model.eval()
        for k in (1, 2):
            model.cyclic.exit = k
            assert_same(model(x), want[k - 1], what=f"exit {k}")


def test_exit_leaves_batchnorm_buffers_alone() -> None:
    model = wrap_cyclic(toys.make(toys.NormedViT), 2, blocks="blocks").eval()
    before = copy.deepcopy(dict(model.named_buffers()))
    model.cyclic.exit = 3
    model(toys.batch()[0])
    assert_same(dict(model.named_buffers()), before)


def test_exit_has_gradients() -> None:
    """Saliency maps and adapters need gradients through an eval model."""
    model = toys.make().eval()
    x, _ = toys.batch()
    truth = Truth(model)
    wrap_cyclic(model, 2)
    model.cyclic.exit = 2
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    model(ours).square().sum().backward()
    truth(2, theirs).square().sum().backward()
    assert ours.grad is not None and theirs.grad is not None
    assert_same(ours.grad, theirs.grad, rtol=1e-12)


@pytest.mark.parametrize("bad", [0, -1, 1.5, "2", None, True])
def test_bad_exits_and_cycles_are_refused(bad: object) -> None:
    model = wrap_cyclic(toys.make(), 2)
    for name in ("exit", "cycles"):
        with pytest.raises((ValueError, TypeError), match=re.escape(repr(bad))):
            setattr(model.cyclic, name, bad)
    assert (model.cyclic.exit, model.cyclic.cycles) == (1, 2)
    assert len(model(toys.batch()[0])) == 2


def test_exit_in_a_stack_that_cannot_cycle_is_refused() -> None:
    """The chain can only be seen in a forward: an eval forward with exit > 1 must look too."""
    model = toys.make(Resetting).eval()
    x, _ = toys.batch()
    want = copy.deepcopy(model)(x)
    wrap_cyclic(model, 2, blocks="blocks")
    assert_same(model(x), want)
    model.cyclic.exit = 2
    with pytest.raises(StackError, match="block 2"):
        model(x)
    model.cyclic.exit = 1
    assert_same(model(x), want)


class Resetting(toys.ToyViT):
    """Block 2 does not receive the output of block 1: ConVit's habit."""

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for i, block in enumerate(self.blocks):
            x = block(torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) if i == 2 else x)
        return self.norm(x)


def test_training_of_a_stack_that_cannot_cycle_is_refused() -> None:
    model = wrap_cyclic(toys.make(Resetting), 2, blocks="blocks")
    with pytest.raises(StackError, match="block 2 .*block 1"):
        CycleLoss(nn.CrossEntropyLoss())(model(toys.batch()[0]), toys.batch()[1])


class InPart(toys.ToyViT):
    """A method runs some of the blocks, as `forward_intermediates` with `stop_early` does."""

    def forward_part(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        x = self.embed(x)
        for block in self.blocks[start:stop]:
            x = block(x)
        return x


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ({"stop": 2}, r"forward_part stopped after 2 of 3 blocks.*stop_early=False"),
        ({"start": 1}, r"entered block 1 where block 0 was due"),
    ],
)
def test_a_method_that_runs_some_of_the_blocks_is_said_to(part: dict[str, int], what: str) -> None:
    """Nothing was edited, and unwrapping would not help; what is advised does."""
    model, (x, _) = toys.make(InPart).eval(), toys.batch()
    want = [model.forward_part(x, **part), Truth(model)(2, x, method="forward_part")]
    wrap_cyclic(model, 2)
    model.cyclic.exit = 2
    with pytest.raises(StackError, match=what + r".*at_exit\(model, 1\)") as caught:
        model.forward_part(x, **part)
    assert "unwrap_cyclic" not in str(caught.value)
    with at_exit(model, 1):
        assert_same(model.forward_part(x, **part), want[0])
    assert_same(model.forward_part(x), want[1])
