"""In eval a wrapped model is the model that was wrapped, bit for bit and at its price."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from cycledistill import CycleLoss, CycleOutput, unwrap_cyclic, wrap_cyclic
from tests import toys
from tests.cycle.test_equality import TOYS, inputs
from tests.oracle import assert_differ, assert_same


@pytest.mark.parametrize("name", TOYS)
def test_eval_is_bit_identical(name: str) -> None:
    cls, options, path = TOYS[name]
    model = toys.make(cls, **options).eval()
    x, _ = inputs(cls)
    want = copy.deepcopy(model)(x)
    wrap_cyclic(model, 3, blocks=path)
    got = model(x)
    assert not isinstance(got, CycleOutput)
    assert type(got) is type(want)
    assert_same(got, want)


def test_eval_follows_the_mode_not_the_gradient() -> None:
    model = wrap_cyclic(toys.make(), 2)
    x, _ = toys.batch()
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert isinstance(model.train()(x), CycleOutput)
            assert isinstance(model.eval()(x), Tensor)


def test_timm_parts_of_forward_are_bit_identical() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_vit", img_size=32).eval()
    base = copy.deepcopy(model)
    wrap_cyclic(model, 2)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features = base.forward_features(x)
        assert_same(model.forward_features(x), features)
        assert_same(model.forward_head(features), base.forward_head(features))
        assert_same(model.forward_intermediates(x), base.forward_intermediates(x))
        assert_same(model(x), base(x))


def test_eval_runs_each_part_once() -> None:
    model = wrap_cyclic(toys.make(linear=toys.Counted), 3).eval()
    model(toys.batch()[0])
    assert (model.embed.calls, model.head.calls) == (1, 1)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_fast_path_of_torch_encoders_stays_bit_identical() -> None:
    """With a padding mask torch's encoder packs the batch in eval; wrapping must not switch that off or on."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enc = nn.TransformerEncoder(layer, 2)

        def forward(self, x: Tensor, pad: Tensor) -> Tensor:
            return self.enc(x, src_key_padding_mask=pad)

    pad = torch.tensor([[False, False, False, True], [False, True, True, True]])
    x = torch.randn(2, 4, 8)
    for path in ("enc.layers", "enc"):
        model = Net().eval()
        with torch.no_grad():
            want = model(x, pad)
            wrap_cyclic(model, 2, blocks=path)
            assert_same(model(x, pad), want)


def test_weights_trained_while_wrapped_serve_the_plain_model() -> None:
    model = toys.make()
    plain = copy.deepcopy(model).eval()
    x, target = toys.batch()
    wrap_cyclic(model, 2)
    before = model.eval()(x)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    CycleLoss(nn.CrossEntropyLoss())(model(x), target).backward()
    optimizer.step()
    after = model.eval()(x)
    assert_differ(after, before)
    plain.load_state_dict(model.state_dict(), strict=True)
    assert_same(plain(x), after)
    unwrap_cyclic(model)
    assert_same(model(x), after)


def test_parts_of_the_model_may_stay_in_eval() -> None:
    """A frozen backbone part in eval inside a training model is common: the model's own flag decides."""
    model = wrap_cyclic(toys.make(drop=0.5), 2).train()
    for block in model.blocks:
        block.eval()
    first, second = model(toys.batch()[0]), model(toys.batch()[0])
    assert isinstance(first, CycleOutput)
    assert_same(first.outputs, second.outputs)


def test_criterion_serves_evaluation() -> None:
    model = wrap_cyclic(toys.make(), 2).eval()
    x, target = toys.batch()
    task = nn.CrossEntropyLoss()
    logits = model(x)
    assert_same(CycleLoss(task)(logits, target), task(logits, target))
