"""The calls that a refusal proposes work."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import Tensor, nn

from cycledistill import StackError, wrap_cyclic
from tests import toys
from tests.cycle.refused import Between, TwoWidths, refused


def proposals(message: str) -> list[str]:
    """The blocks= arguments of the calls a message proposes (what stands after its listing of candidates)."""
    return re.findall(r'blocks="([^"]+)"', message)


def works(model: nn.Module, path: str, x: Tensor) -> bool:
    model = copy.deepcopy(model)
    try:
        return len(wrap_cyclic(model, 2, blocks=path)(x)) == 2
    except StackError:
        return False


def test_every_candidate_in_a_refusal_works() -> None:
    model = toys.make(toys.TwoStageViT)
    paths = proposals(refused(model, "Candidates"))
    assert sorted(set(paths)) == ["stages.0", "stages.1"]
    assert all(works(model, path, toys.batch()[0]) for path in paths)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "pit_ti_224", "pvt_v2_b0", "mvitv2_tiny", "convit_tiny", "hiera_tiny_224"]
)
def test_every_candidate_of_a_timm_model_works(name: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name)
        x = torch.randn(1, 3, 224, 224)
    paths = set(proposals(refused(model, "Candidates")))
    assert len(paths) >= 1
    for path in sorted(paths):
        assert works(model, path, x), f'the refusal lists blocks="{path}", and that call does not work'


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "efficientnet_b0"])
def test_the_call_proposed_for_a_convolutional_network_works(name: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name)
        x = torch.randn(2, 3, 224, 224)
    (path,) = proposals(refused(model, "no attention stack"))
    assert works(model, path, x)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "path"), [("convit_tiny", "blocks"), ("hiera_tiny_224", "blocks"), ("mvitv2_tiny", "stages.2.blocks")]
)
def test_the_call_proposed_for_a_broken_path_works(name: str, path: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name)
        x = torch.randn(1, 3, 224, 224)
    others = [p for p in proposals(refused(model, "blocks", blocks=path)) if p != path]
    assert others, "no call is proposed, though this model has stacks that work"
    for other in others:
        assert works(model, other, x), f'the refusal proposes blocks="{other}", and that call does not work'


@pytest.mark.parametrize("cls", [Between, TwoWidths])
def test_the_call_proposed_at_the_first_forward_works(cls: type[nn.Module]) -> None:
    """Here no probe ran. No call need be proposed, but one that is must work."""
    model = toys.make(cls)
    x, _ = toys.batch()
    with pytest.raises(StackError) as caught:
        wrap_cyclic(copy.deepcopy(model), 2, blocks="blocks")(x)
    for path in set(proposals(str(caught.value))) - {"blocks"}:
        assert works(model, path, x), f'the refusal proposes blocks="{path}", and that call does not work'
