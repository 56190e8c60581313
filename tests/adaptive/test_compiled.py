"""Compiled, an adaptive forward is one graph to the first exit and one for further cycles, whatever the rows left."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from cycledistill import wrap_cyclic
from cycledistill.adaptive import AdaptiveExit
from cycledistill.plugin.torch_private import tree_leaves
from tests import toys
from tests.adaptive import models
from tests.adaptive.models import EXITS, fixed, spread, wobble, wrapped

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("cuda_in_use")]


def check_compiled(
    model: nn.Module,
    batches: list[tuple[tuple[Any, ...], dict[str, Any]]],
    graphs: int,
    exits: tuple[int, ...] = EXITS,
    backend: str = "eager",
) -> None:
    """Rows of compiled calls are those of the fixed exits, in so many graphs."""
    counter = CompileCounterWithBackend(backend)
    adaptive = AdaptiveExit(model, exits, wobble, compile={"backend": counter})
    for args, kwargs in batches:
        truth = fixed(model, exits, *args, **kwargs)
        spread(adaptive, truth)
        outputs, reached = adaptive(*args, return_exits=True, **kwargs)
        for row, each in enumerate(reached.tolist()):
            got = [leaf[row] for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
            expected = [leaf[row] for leaf in tree_leaves(truth[exits.index(each)]) if isinstance(leaf, Tensor)]
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert counter.frame_count == graphs
    assert not torch._dynamo.utils.counters["graph_break"]


def of_sizes(*sizes: int) -> list[Any]:
    return [((toys.batch(seed=seed, size=size)[0],), {}) for seed, size in enumerate(sizes)]


def test_rows_that_shrink_need_no_other_graph() -> None:
    with torch.no_grad():
        check_compiled(wrapped(), of_sizes(8, 8, 8, 8), graphs=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cls", "options", "exits"),
    [
        (toys.TapViT, {}, EXITS),
        (toys.TwoStateViT, {}, EXITS),
        (toys.DictViT, {}, EXITS),
        (toys.NormedViT, {}, EXITS),
        (models.SecondAxisViT, {}, EXITS),
        (models.ReadsItsInput, {}, EXITS),
        (models.TableViT, {"length": 6}, EXITS),
        (models.TableViT, {"length": 6, "embedded": True}, EXITS),
        (toys.ToyViT, {}, (2, 3, 4)),
    ],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
def test_every_kind_of_model(cls: type[nn.Module], options: dict[str, Any], exits: tuple[int, ...]) -> None:
    with torch.no_grad():
        check_compiled(wrapped(cls, **options), of_sizes(6, 6, 6), graphs=2, exits=exits)


@pytest.mark.slow
def test_steps_of_other_lengths_have_a_graph_each() -> None:
    with torch.no_grad():
        check_compiled(wrapped(), of_sizes(6, 6), graphs=3, exits=(1, 2, 4))


@pytest.mark.slow
def test_a_mask_a_sample_and_other_sizes_of_batch() -> None:
    masks = [((x,), {"mask": torch.rand(len(x), 4, 1).double() + 0.5}) for (x,), _ in of_sizes(6, 6, 9, 7)]
    with torch.no_grad():
        # another first one, for any size
        check_compiled(wrapped(toys.ArgumentViT), masks, graphs=3, backend="aot_eager")


@pytest.mark.slow
def test_one_row_left_and_one_sample() -> None:
    model = wrapped()
    counter = CompileCounterWithBackend("eager")
    adaptive = AdaptiveExit(
        model, EXITS, lambda y: torch.arange(len(y)) + 0.5, (1.0, 5.0), compile={"backend": counter}
    )
    with torch.no_grad():
        for size in (4, 4, 5, 1, 1):
            x = toys.batch(size=size)[0]
            outputs, reached = adaptive(x, return_exits=True)
            assert reached.tolist() == [3] + [1] * (size - 1)
            assert counter.frame_count == 2 or size != 4, "one row that is left runs in the graph of many"
            truth = fixed(model, EXITS, x)
            expected = torch.stack([truth[each - 1][row] for row, each in enumerate(reached.tolist())])
            torch.testing.assert_close(outputs, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_with_pruning() -> None:
    pytest.importorskip("timm")
    from cycledistill import wrap_pruning
    from tests.prune.oracle import images, vit

    torch.manual_seed(0)
    model = wrap_cyclic(wrap_pruning(vit(), layers=(1, 2), keep=0.5), 3, "exits").eval()
    with torch.no_grad():
        check_compiled(model, [((images(6),), {}) for _ in range(2)], graphs=2)


@pytest.mark.slow
def test_models_of_timm_and_hugging_face() -> None:
    timm, transformers = pytest.importorskip("timm"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    pixels = [torch.randn(4, 3, 28, 28).double() for _ in range(2)]
    rotary = timm.create_model("eva02_tiny_patch14_224", img_size=28, num_classes=7, depth=2)
    config = transformers.ViTConfig(
        image_size=28, patch_size=14, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        num_labels=5,
    )  # fmt: skip
    hugging = transformers.ViTForImageClassification(config)
    with torch.no_grad():
        check_compiled(wrap_cyclic(rotary, 3, "exits").double().eval(), [((x,), {}) for x in pixels], graphs=2)
        check_compiled(wrap_cyclic(hugging, 3, "exits").double().eval(), [((), {"pixel_values": x}) for x in pixels], 2)


@pytest.mark.slow
def test_compiling_it_from_outside_says_how_instead() -> None:
    adaptive = AdaptiveExit(wrapped(), threshold=0.3)
    with pytest.raises(Exception, match="compile=True"):
        torch.compile(adaptive, backend="eager", fullgraph=True)(toys.batch(size=4)[0])


@pytest.mark.parametrize("given", ["default", {"fullgraph": True}, None])
def test_what_compile_may_be(given: Any) -> None:
    with pytest.raises(ValueError, match="compile="):
        AdaptiveExit(wrapped(), compile=given)


@pytest.mark.slow
def test_a_compiled_one_is_not_copied() -> None:
    adaptive = AdaptiveExit(wrapped(), threshold=0.3, compile={"backend": "eager"})
    with torch.no_grad():
        adaptive(toys.batch(size=4)[0])
    with pytest.raises(TypeError, match=r"compile=True is not copied"):
        copy.deepcopy(adaptive)
