"""What is remembered has the layout that torch itself works out; nothing is made up where there are values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cycledistill.cost.meta_shapes import MetaShapes
from cycledistill.plugin.torch_private import storage_of, tree_leaves


def layout(result: Any) -> list[tuple[Any, ...]]:
    return [(x.shape, x.stride(), x.dtype, x.device) for x in tree_leaves(result)]


@pytest.mark.parametrize(
    "run",
    [
        lambda x: F.layer_norm(F.gelu(x), (4,)),
        lambda x: x.transpose(1, 2).clone() + 1,
        lambda x: (x.long() + 1, x.long() + 1.0, x.long() + True, x + 1),
        lambda x: (x.sum(1), x.sum(1, keepdim=True), x.sum(1, dtype=torch.float64)),
        lambda x: torch.cat([x, x.expand(2, 3, 4)], dim=1),
        lambda x: (x.to(torch.bfloat16), x.to(torch.float64), torch.zeros_like(x, dtype=torch.int8)),
        lambda x: torch.var_mean(x, dim=-1),
        lambda x: x.permute(2, 0, 1).contiguous().unbind(0),
        lambda x: F.scaled_dot_product_attention(x, x, x),
        lambda x: (x @ x.transpose(1, 2)).softmax(-1).topk(2),
    ],
)
def test_twice_the_layout_that_torch_gives(run: Callable[[Tensor], Any]) -> None:
    x = torch.empty(2, 3, 4, device="meta")
    want = layout(run(x))
    with MetaShapes():
        assert layout(run(x)) == want
        assert layout(run(x)) == want
        assert layout(run(x.transpose(1, 2).contiguous().transpose(1, 2))) == layout(
            run(torch.empty_strided((2, 3, 4), (12, 1, 3), device="meta"))
        )


def test_gradients_have_their_shapes() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Dropout(), nn.Linear(8, 3)).to("meta")
    with MetaShapes():
        for _ in range(2):
            model.zero_grad()
            model(torch.empty(2, 4, device="meta")).square().mean().backward()
            assert all(p.grad is not None and layout(p.grad) == layout(p) for p in model.parameters())


def test_results_are_new_and_views_and_changes_stay_what_they_are() -> None:
    x = torch.empty(2, 6, device="meta")
    with MetaShapes():
        one, two = x + 1, x + 1
        assert storage_of(one) != storage_of(two) != storage_of(x)
        for _ in range(2):
            assert storage_of(x.view(3, 4)) == storage_of(x)
            assert storage_of(torch.ops.aten._unsafe_view(x, (3, 4))) == storage_of(x)  # a view, unlike its schema says
            assert x.add_(1) is x


def test_values_are_computed() -> None:
    with MetaShapes():
        assert [(torch.ones(2) * number).tolist() for number in (1, 2, 2, 3)] == [[1, 1], [2, 2], [2, 2], [3, 3]]
        assert (
            torch.ones(2).to("meta").is_meta
            and torch.zeros_like(torch.empty(2, device="meta"), device="cpu").sum() == 0
        )
