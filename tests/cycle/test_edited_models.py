"""A wrapped model whose blocks were replaced, moved or taken out is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from cycledistill import StackError, unwrap_cyclic, wrap_cyclic
from tests import toys

EDITS = {
    "replaced block": lambda m: m.blocks.__setitem__(1, toys.Block().double()),
    "replaced container": lambda m: setattr(m, "blocks", nn.ModuleList(toys.Block().double() for _ in range(3))),
    "copied container": lambda m: setattr(m, "blocks", copy.deepcopy(m.blocks)),
    "removed block": lambda m: m.blocks.__delitem__(1),
    "removed last": lambda m: m.blocks.__delitem__(2),
    "pruned": lambda m: setattr(m, "blocks", m.blocks[:2]),
    "appended block": lambda m: m.blocks.append(toys.Block().double()),
    "inserted block": lambda m: m.blocks.insert(0, toys.Block().double()),
    "swapped order": lambda m: setattr(m, "blocks", nn.ModuleList([m.blocks[1], m.blocks[0], m.blocks[2]])),
    "emptied": lambda m: setattr(m, "blocks", nn.ModuleList()),
    "removed container": lambda m: delattr(m, "blocks"),
    "identity": lambda m: m.blocks.__setitem__(0, nn.Identity()),
}


@pytest.mark.parametrize("edit", EDITS)
def test_edited_model_is_refused(edit: str) -> None:
    x, _ = toys.batch()
    for prepare in (lambda m: m.train(), lambda m: m.eval(), lambda m: (m.eval(), setattr(m.cyclic, "exit", 2))):
        model = wrap_cyclic(toys.make(), 2)
        EDITS[edit](model)
        prepare(model)
        with pytest.raises(StackError, match="edited|wrapped|blocks"):
            model(x)


def test_pruned_timm_model_is_refused() -> None:
    timm = pytest.importorskip("timm")
    x = torch.randn(2, 3, 32, 32)
    for mode in ("train", "eval", "exit"):
        model = wrap_cyclic(timm.create_model("test_vit", img_size=32), 2)
        model.prune_intermediate_layers([2], prune_norm=False, prune_head=False)
        if mode != "train":
            model.eval().cyclic.exit = {"eval": 1, "exit": 2}[mode]
        with pytest.raises(StackError, match="edited|wrapped"):
            model(x)
        unwrap_cyclic(model)
        assert len(wrap_cyclic(model.train(), 2)(x)) == 2
