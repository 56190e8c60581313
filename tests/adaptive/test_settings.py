"""What AdaptiveExit refuses, with what to do."""

from __future__ import annotations

import copy
import math
import pickle
from array import array
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cycledistill import StackError, unwrap_cyclic, wrap_cyclic, wrap_hourglass
from cycledistill.adaptive import AdaptiveExit
from tests import toys
from tests.adaptive.models import EXITS, wobble, wrapped

X = toys.batch(size=4)[0]


@pytest.mark.parametrize("exits", [(), (0, 1), (2, 1), (1, 1), (1.0, 2), "12", (True, 2), 3, None], ids=str)
def test_exits_are_ascending_whole_numbers(exits: Any) -> None:
    with pytest.raises(ValueError, match="exits="):
        AdaptiveExit(wrapped(), exits)


@pytest.mark.parametrize("threshold", [-0.1, 1.5, math.nan, True, "0.9", (0.5,), (0.5, 0.5, 0.5), (0.5, 2.0)], ids=str)
@pytest.mark.parametrize("confidence", ["probability", "entropy", "agreement"])
def test_thresholds_of_named_confidences_are_in_0_to_1_or_never(confidence: str, threshold: Any) -> None:
    with pytest.raises(ValueError, match="threshold="):
        AdaptiveExit(wrapped(), EXITS, confidence, threshold)
    adaptive = AdaptiveExit(wrapped(), EXITS, confidence, (0.5, math.inf))
    with pytest.raises(ValueError, match="threshold="):
        adaptive.threshold = threshold
    assert adaptive.threshold == (0.5, math.inf)


def test_thresholds_of_a_callable_are_any_numbers() -> None:
    assert AdaptiveExit(wrapped(), EXITS, wobble, -3).threshold == (-3.0, -3.0)
    with pytest.raises(ValueError, match="not NaN"):
        AdaptiveExit(wrapped(), EXITS, wobble, math.nan)


@pytest.mark.parametrize("confidence", ["certainty", None, 0.5])
def test_an_unknown_confidence_names_those_known(confidence: Any) -> None:
    with pytest.raises(ValueError, match=r'confidence=.*"probability", "entropy", "agreement", or a callable'):
        AdaptiveExit(wrapped(), EXITS, confidence)


def test_without_a_threshold_the_call_says_how_to_get_one() -> None:
    with pytest.raises(ValueError, match=r"no threshold yet: call calibrate\(loader, budget=1\.4\)"):
        AdaptiveExit(wrapped())(X)
    assert AdaptiveExit(wrapped(), (2,))(X).shape == (4, toys.CLASSES)  # one exit needs none


def test_settings_cannot_be_changed_under_it() -> None:
    adaptive = AdaptiveExit(wrapped(), threshold=0.5)
    with pytest.raises(AttributeError):
        adaptive.exits = (1, 2)
    assert "exits=(1, 2, 3), confidence='probability', threshold=(0.5, 0.5)" in repr(adaptive)


def test_training_mode_is_refused() -> None:
    adaptive = AdaptiveExit(wrapped(), threshold=0.5)
    adaptive.train()
    with pytest.raises(StackError, match=r"training mode.*model\.eval\(\)"):
        adaptive(X)
    assert adaptive.eval()(X).shape == (4, toys.CLASSES)


def test_making_one_leaves_the_modes_of_layers_alone() -> None:
    model = wrapped()
    model.norm.train()
    AdaptiveExit(model)
    assert model.norm.training and not model.training


class DistributedDataParallel(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class FSDPModule:
    """As FSDP2 puts in front of a module's class."""


class Sharded(FSDPModule, nn.Linear):
    pass


def with_hourglass() -> nn.Module:
    from tests.hourglass.models import FrameModel, build

    return wrap_cyclic(wrap_hourglass(build(FrameModel), layer=2, keep=5), 2).eval()


def sharded() -> nn.Module:
    model = wrapped()
    model.head = Sharded(toys.DIM, toys.CLASSES)
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: toys.make(), r"not wrapped.*wrap_cyclic\(model\)"),
        (lambda: DistributedDataParallel(wrapped()), r"AdaptiveExit\(model\.module\)"),
        (lambda: torch.compile(wrapped()), "compiled"),
        (lambda: nn.Sequential(wrapped()), r"not wrapped.*the part of it"),
        (lambda: "model", "takes a torch.nn.Module"),
        (sharded, r"FSDP"),
        (with_hourglass, r"hourglass .* use a fixed exit"),
    ],
    ids=["plain", "data parallel", "compiled", "inside", "no module", "sharded", "hourglass"],
)
def test_models_that_cannot_be_served_are_refused(model: Any, message: str) -> None:
    with pytest.raises(StackError, match=message):
        AdaptiveExit(model())


def test_a_model_that_was_unwrapped_since_is_refused() -> None:
    adaptive = AdaptiveExit(wrapped(), threshold=0.5)
    unwrap_cyclic(adaptive.model)
    with pytest.raises(StackError, match="unwrapped.*new AdaptiveExit"):
        adaptive(X)


def test_a_forward_that_was_replaced_is_refused() -> None:
    adaptive = AdaptiveExit(wrapped(), threshold=0.5)
    forward = adaptive.model.forward
    adaptive.model.forward = lambda x: forward(x)  # as prepare does: it still comes to the model's own
    assert adaptive(X).shape == (4, toys.CLASSES)
    adaptive.model.forward = lambda x: x.mean((1, 2))
    with pytest.raises(StackError, match=r"ran 0 times .* wrap the model first"):
        adaptive(X)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda y: y.mean(), r"output is a tensor \(\)"),
        (lambda y: {"logits": y, "loss": y.mean()}, r"output at \['loss'\] is a tensor \(\)"),
        (lambda y: (y, y[:1].mean(1)), r"output at \[1\] is a tensor \(1,\)"),
        (lambda y: (y, {1, 2}), r"output at \[1\] is a set, which cannot be split"),
        (lambda y: None, "without tensors"),
    ],
    ids=["scalar", "loss", "one row", "set", "nothing"],
)
def test_outputs_that_cannot_be_split_by_sample_are_refused(output: Any, message: str) -> None:
    class Returning(toys.ToyViT):
        def forward(self, x: Tensor) -> Any:  # type: ignore[override]
            return output(super().forward(x))

    model = wrapped(Returning)
    with torch.no_grad(), pytest.raises(TypeError, match=message):
        AdaptiveExit(model, EXITS, lambda output: torch.zeros(4), threshold=0.5)(X)


def test_an_output_of_the_batchs_length_that_is_no_row_a_sample_is_refused() -> None:
    class WithTable(toys.ToyViT):
        def forward(self, x: Tensor) -> Any:  # type: ignore[override]
            return {"logits": super().forward(x), "table": torch.arange(4)}

    with torch.no_grad(), pytest.raises((TypeError, StackError), match="table|output"):
        AdaptiveExit(wrapped(WithTable), threshold=0.5)(X)


@pytest.mark.parametrize(
    "number",
    [lambda y: float(y.max()), lambda y: len(y), lambda y: float(y[:1].max())],
    ids=["of the batch", "its size", "of one sample"],
)
@pytest.mark.parametrize("sure", [1.0, 0.0], ids=["all sure", "none sure"])
def test_a_plain_number_that_changes_is_refused_in_the_first_call(number: Any, sure: float) -> None:
    """Samples of several exits are put into one output, which has one place for it, whoever leaves in this call."""

    class Numbered(toys.ToyViT):
        def forward(self, x: Tensor) -> Any:  # type: ignore[override]
            y = super().forward(x)
            return {"logits": y, "number": number(y)}

    adaptive = AdaptiveExit(wrapped(Numbered), EXITS, lambda output: torch.full((4,), sure), threshold=0.5)
    with torch.no_grad(), pytest.raises((TypeError, StackError), match=r"output at \['number'\] is .*no row a sample"):
        adaptive(X)


def test_plain_entries_beside_the_tensors_stay() -> None:
    class Named(toys.ToyViT):
        def forward(self, x: Tensor) -> Any:  # type: ignore[override]
            return {"logits": super().forward(x), "name": "toy", "nothing": None, "loss": math.nan}

    adaptive = AdaptiveExit(wrapped(Named), EXITS, lambda output: wobble(output["logits"]), threshold=0.0)
    with torch.no_grad():
        outputs, exits = adaptive(X, return_exits=True)
    assert len(set(exits.tolist())) > 1 and outputs["name"] == "toy" and outputs["nothing"] is None


def test_an_empty_batch_and_no_tensor_are_refused() -> None:
    adaptive = AdaptiveExit(wrapped(), threshold=0.5)
    with pytest.raises(ValueError, match="batch is empty"):
        adaptive(X[:0])
    with pytest.raises(TypeError, match="without a tensor"):
        adaptive([])


def test_an_attribute_on_a_tensor_that_is_taken_apart_is_refused() -> None:
    class Attributed(toys.ToyViT):
        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            for block in self.blocks:
                x = block(x)
                x.scale = 3.0
            return self.head(self.norm(x * x.scale).mean(1))

    with torch.no_grad(), pytest.raises(StackError, match="attribute 'scale'"):
        AdaptiveExit(wrapped(Attributed), EXITS, lambda output: torch.arange(4), threshold=2)(X)


def test_copies_and_pickles_work_on_their_own() -> None:
    adaptive = AdaptiveExit(wrapped(), threshold=0.3)
    with torch.no_grad():
        expected = adaptive(X)
        for other in (copy.deepcopy(adaptive), pickle.loads(pickle.dumps(adaptive))):
            assert torch.equal(other(X), expected)
            assert other.model is not adaptive.model and other.model.cyclic is not adaptive.model.cyclic


@pytest.mark.parametrize("given", [np.ones(4), {1.0}, range(4)], ids=["array", "set", "range"])
def test_arguments_that_are_neither_tensors_nor_numbers_are_refused(given: Any) -> None:
    """What they hold would differ between calls, and rows of it could not be taken."""

    class Scaled(toys.ToyViT):
        def forward(self, x: Tensor, scale: Any) -> Tensor:
            return super().forward(x)

    with torch.no_grad(), pytest.raises(TypeError, match=rf"a {type(given).__name__} at .*\[1\].*give a tensor"):
        AdaptiveExit(wrapped(Scaled), threshold=0.5)(X, given)


def test_a_threshold_goes_there_and_back() -> None:
    for adaptive in (AdaptiveExit(wrapped(), (2,)), AdaptiveExit(wrapped(), (1, 2), threshold=0.5)):
        before = adaptive.threshold
        adaptive.threshold = before
        assert adaptive.threshold == before


@pytest.mark.parametrize(
    "given",
    [
        np.float32(0.5),
        torch.tensor(0.5),
        Fraction(1, 2),
        np.array([0.5, 0.5]),
        torch.tensor([0.5, 0.5]),
        array("d", [0.5, 0.5]),
    ],
    ids=str,
)
def test_numbers_of_every_kind_are_thresholds(given: Any) -> None:
    assert AdaptiveExit(wrapped(), EXITS, threshold=given).threshold == (0.5, 0.5)


def test_a_hook_that_changes_the_output_is_refused_where_exits_are_compared() -> None:
    """A call applies it once, to what all samples get; thresholds and curves would be of another output."""
    model = wrapped()
    adaptive, labels = AdaptiveExit(model, (1, 2), threshold=0.5), torch.zeros(4, dtype=torch.long)
    seen: list[Tensor] = []
    model.register_forward_hook(lambda module, args, output: seen.append(output))
    assert len(adaptive.outputs_at_exits(X)) == 2 and len(seen) == 1  # one that looks on is none of them
    for hook in (lambda module, args, output: 2 * output, lambda module, args, output: output.mul_(2)):
        handle = model.register_forward_hook(hook)
        for call in (lambda: adaptive.outputs_at_exits(X), lambda: adaptive.curve([(X, labels)], points=2)):
            with torch.no_grad(), pytest.raises(StackError, match="forward hook .* after the call"):
                call()
        handle.remove()


def test_a_forward_in_a_wider_type_is_the_same() -> None:
    """As what prepares a model for autocast puts over it."""
    model = wrapped().float()
    forward = model.forward
    adaptive = AdaptiveExit(model, (1, 2))
    model.forward = lambda x: forward(x).double()
    assert len(adaptive.outputs_at_exits(X.float())) == 2
