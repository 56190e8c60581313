"""On a CPU large batches run in parts and give what the whole batch gives; where parts would be seen they run whole."""

from __future__ import annotations

import functools
import warnings
from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from cycledistill import wrap_cyclic, wrap_pruning
from cycledistill.recipes.run.sub_batches import SUB_BATCH, check_size, in_sub_batches
from tests.toys import FEATURES, ToyViT

Pair = namedtuple("Pair", "left right")


class Noting(nn.Module):
    """Doubles its input, and notes the batches it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        return 2 * images


@pytest.mark.parametrize(
    ("samples", "parts"), [(0, [0]), (1, [1]), (3, [3]), (4, [4]), (5, [4, 1]), (8, [4, 2, 2]), (11, [4, 4, 3])]
)
def test_parts_and_remainders_are_joined_in_order(samples: int, parts: list[int]) -> None:
    model, images = Noting(), torch.randn(samples, 3)
    assert torch.equal(in_sub_batches(model, images, size=4), 2 * images)
    assert model.batches == parts


def test_a_network_gives_what_it_gives_whole() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    images = torch.randn(9, 3, 16, 12)
    with torch.no_grad():
        # Not equal to the bit on every processor: a convolution's kernel is chosen by the batch too.
        torch.testing.assert_close(in_sub_batches(model, images), model(images), rtol=1e-5, atol=1e-6)
        assert in_sub_batches(model, images.bfloat16(), call=model.bfloat16()).dtype is torch.bfloat16


def test_gradients_go_through_parts() -> None:
    model, inputs = nn.Linear(3, 2).eval(), torch.randn(9, 3, requires_grad=True)
    whole = torch.autograd.grad(model(inputs).square().sum(), inputs)[0]
    torch.testing.assert_close(torch.autograd.grad(in_sub_batches(model, inputs).square().sum(), inputs)[0], whole)


def test_structures_are_kept_and_what_is_not_over_samples_is_not_split() -> None:
    shared, flag, scale = torch.randn(6, 3), True, torch.tensor(3.0)

    def call(inputs: dict[str, Tensor], pair: Pair, flag: bool, scale: Tensor, shared: Tensor) -> dict[str, Any]:
        assert flag is True and scale.ndim == 0 and shared.shape == (6, 3)  # as many as there are samples
        product = inputs["a"] @ shared.T * scale
        return {"product": product, "pair": Pair(pair.left, (pair.right, None)), "name": "x"}

    inputs, pair = {"a": torch.randn(6, 3)}, Pair(torch.arange(6), torch.randn(6, 2, 2))
    held = functools.partial(call, shared=shared)
    got = in_sub_batches(Noting(), inputs, pair, flag, scale, size=4, call=held)
    expected = held(inputs, pair, flag, scale)
    torch.testing.assert_close(got["product"], expected["product"], rtol=1e-6, atol=1e-6)
    assert isinstance(got["pair"], Pair) and torch.equal(got["pair"].left, pair.left)
    assert torch.equal(got["pair"].right[0], pair.right) and got["pair"].right[1] is None
    assert got.keys() == expected.keys() and got["name"] == "x"


def test_tensors_of_several_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(6, 2\), \(1, 2\): one length .* call=, e.g. functools.partial"):
        in_sub_batches(Noting(), torch.zeros(6, 2), torch.zeros(1, 2), call=lambda a, b: a + b)


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (lambda images: images.mean(), r"a tensor of shape \(\)"),
        (lambda images: images.sum(0), r"a tensor of shape \(2,\)"),
        (lambda images: {"count": len(images)}, "4"),
        (lambda images: (images, {"some": bool(images.any())}), "False"),
    ],
)
def test_an_output_that_cannot_be_joined_is_refused(call: Any, shown: str) -> None:
    with pytest.raises(ValueError, match=f"returned {shown} for 4 samples: .* use size=None"):
        in_sub_batches(Noting(), torch.zeros(6, 2), size=4, call=call)


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (lambda images: (images, torch.ones(4)), r"\(4,\)"),
        (lambda images: torch.stack([number * images for number in range(4)]), r"\(4, 4, 2\)"),
        (lambda images: [row.expand(4, 2) for row in images[:2]], r"\(4, 2\)"),
    ],
    ids=["a table", "layers", "lists"],
)
@pytest.mark.parametrize("samples", [8, 12])
def test_what_has_a_parts_length_by_chance_is_not_joined(call: Any, shown: str, samples: int) -> None:
    with pytest.raises(ValueError, match=f"a tensor of shape {shown} for 4 samples: .* use size=None"):
        in_sub_batches(Noting(), torch.zeros(samples, 2), size=4, call=call)


def test_one_batch_where_it_is_asked_for() -> None:
    model = Noting()
    in_sub_batches(model, torch.zeros(9, 2), size=None)
    assert model.batches == [9] and SUB_BATCH < 9


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "4"])
def test_no_number_of_samples_is_refused(size: Any) -> None:
    with pytest.raises(ValueError, match=rf"sub_batch={size!r}: a whole number of at least 1, or None"):
        check_size(size, "sub_batch")


def test_other_devices_run_whole() -> None:
    model = Noting()
    assert in_sub_batches(model, torch.zeros(9, 2, device="meta")).shape == (9, 2)
    assert model.batches == [9]


def test_training_mode_runs_whole_also_of_a_part_alone() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)).eval()
    model[0].train()  # whose statistics are of the batch
    inputs = torch.randn(9, 2)
    torch.testing.assert_close(in_sub_batches(model, inputs), model(inputs), rtol=0, atol=0)


def test_batchnorm_without_running_statistics_runs_whole() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False), nn.Linear(2, 2)).eval()
    inputs = torch.randn(9, 2)
    torch.testing.assert_close(in_sub_batches(model, inputs), model(inputs), rtol=0, atol=0)


@pytest.mark.parametrize("register", ["register_module_forward_hook", "register_module_forward_pre_hook"])
def test_hooks_around_all_modules_see_one_forward(register: str) -> None:
    model = Noting()
    hook = getattr(torch.nn.modules.module, register)(lambda *given: None)
    in_sub_batches(model, torch.zeros(9, 2))
    hook.remove()
    assert model.batches == [9]


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_inside_see_one_forward(register: str) -> None:
    model, seen = nn.Sequential(Noting()).eval(), []
    hook = getattr(model[0], register)(lambda *given: seen.append(len(given[1][0])))
    in_sub_batches(model, torch.zeros(9, 2))
    assert seen == [9]
    hook.remove()
    in_sub_batches(model, torch.zeros(9, 2), size=8)
    assert model[0].batches == [9, 8, 1]


def test_a_handle_that_shows_the_forward_shows_the_whole_of_it() -> None:
    model: Any = ToyViT()
    for block in model.blocks:
        block.attn.num_heads, block.attn.scale = 2, 0.5  # what scores need
    wrap_pruning(model, (1,), keep=0.5, query=slice(0, 1)).eval()
    images = torch.randn(6, 9, FEATURES)
    for outer in (model, nn.Sequential(model).eval()):
        with torch.no_grad():
            in_sub_batches(outer, images)
            shown = model.pruning.index
        assert len(shown) == 6


def test_a_later_exit_runs_in_parts_around_the_model() -> None:
    model: Any = wrap_cyclic(ToyViT(), 2, None)
    model.eval()
    model.cyclic.exit = 2
    images = torch.randn(6, 9, FEATURES)
    with torch.no_grad():
        torch.testing.assert_close(in_sub_batches(model, images), model(images), rtol=1e-5, atol=1e-6)


class Outer(nn.Module):
    """A linear layer in parts of four."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 3)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return in_sub_batches(self.inner, images, size=4)


@pytest.mark.slow
def test_exported_and_compiled_graphs_run_whole() -> None:
    model, images = Outer(), torch.randn(11, 2)
    dynamic = {"images": {0: torch.export.Dim("batch", min=1)}}
    exported = torch.export.export(model, (images[:6],), dynamic_shapes=dynamic)
    assert not any("cat" in str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(exported.module()(images), model(images))
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, backend=backend, fullgraph=True)(images), model(images))
    assert len(graphs) == 1 and not any("cat" in str(node.target) for node in graphs[0].graph.nodes)


def test_traces_run_whole() -> None:
    model, images = Outer(), torch.randn(11, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and used
        traced = torch.jit.trace(model, images[:6], check_trace=False)
    torch.testing.assert_close(traced(images), model(images))
    with torch.no_grad():
        graph = make_fx(model, tracing_mode="symbolic", _allow_non_fake_inputs=True)(images[:6])
    torch.testing.assert_close(graph(images), model(images))


def test_a_compiled_model_is_given_the_batches_it_was_compiled_for() -> None:
    model = Noting()
    in_sub_batches(torch.compile(model, backend="eager"), torch.zeros(9, 2))
    assert model.batches == [9]
