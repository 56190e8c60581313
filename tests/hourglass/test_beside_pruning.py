"""An hourglass and pruning on one model: never on the same blocks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from cycledistill import StackError, wrap_hourglass, wrap_pruning
from tests.hourglass.refused import assert_refused


def test_pruning_and_an_hourglass_on_the_same_blocks() -> None:
    pytest.importorskip("timm")
    from timm.models.vision_transformer import VisionTransformer

    vit = VisionTransformer(img_size=16, patch_size=8, embed_dim=12, depth=3, num_heads=3).eval()
    settings: dict[str, Any] = {"blocks": "blocks", "layer": 1, "keep": 3, "recover": False, "frames": 4}
    assert_refused(wrap_pruning(copy.deepcopy(vit), (1,)), "wrap_pruning drops tokens in these blocks", **settings)
    with pytest.raises(StackError, match="an hourglass drops frames in these blocks"):
        wrap_pruning(wrap_hourglass(vit, **settings), (1,))


PARTS = [("blocks", "blocks[2:3]"), ("blocks[0:3]", "blocks[2:4]"), ("blocks[1:4]", "blocks")]


@pytest.mark.parametrize("inside", [False, True], ids=["one model", "a part of it"])
@pytest.mark.parametrize(("frames", "tokens"), PARTS)
def test_pruning_and_an_hourglass_on_shared_blocks_in_either_order(frames: str, tokens: str, inside: bool) -> None:
    """Also where the shared blocks are none that the first of the two changes."""
    pytest.importorskip("timm")
    from timm.models.vision_transformer import VisionTransformer

    def vit() -> nn.Module:
        return VisionTransformer(img_size=16, patch_size=8, embed_dim=12, depth=4, num_heads=3).eval()

    settings: dict[str, Any] = {"layer": 1, "keep": 3, "recover": False, "frames": 4}
    model = wrap_hourglass(vit(), blocks=frames, **settings)
    with pytest.raises(StackError, match="an hourglass drops frames in these blocks"):
        wrap_pruning(nn.Sequential(model) if inside else model, (0,), blocks="0." * inside + tokens, query=slice(0, 1))
    model = wrap_pruning(vit(), (0,), blocks=tokens)
    with pytest.raises(StackError, match="wrap_pruning drops tokens in these blocks"):
        wrap_hourglass(nn.Sequential(model) if inside else model, blocks="0." * inside + frames, **settings)


def test_pruning_and_an_hourglass_on_neighbouring_blocks() -> None:
    pytest.importorskip("timm")
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(img_size=16, patch_size=8, embed_dim=12, depth=4, num_heads=3).eval()
    wrap_hourglass(model, blocks="blocks[0:2]", layer=1, keep=3, recover=False, frames=4)
    wrap_pruning(model, (0,), 0.5, blocks="blocks[2:4]", query=slice(0, 1))
    model(torch.randn(2, 3, 16, 16))
    assert (model.hourglass.index.shape, model.pruning.index.shape) == ((2, 3), (2, 2))
