"""Arguments of `wrap_cyclic` that do not fit are refused by name."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from cycledistill import Distill, StackError, wrap_cyclic
from tests import toys
from tests.cycle.refused import refused


@pytest.mark.parametrize("cycles", [0, -1, 2.0, 1.5, "2", None, True])
def test_cycles_that_are_no_count(cycles: object) -> None:
    message = refused(toys.make(), re.escape(repr(cycles)), cycles=cycles)
    assert "cycles" in message


@pytest.mark.parametrize("name", ["sdpos", "", "SDPose", 3, 0.5])
def test_unknown_preset(name: object) -> None:
    message = refused(toys.make(), re.escape(repr(name)), (ValueError, TypeError), distill=name)
    assert "preset" in message
    if isinstance(name, str):
        assert all(repr(preset) in message for preset in ("sdpose", "exits", "elt", "mct"))


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0)])
def test_weights_of_the_wrong_length(weights: tuple[float, ...]) -> None:
    message = refused(toys.make(), r"task_weights", ValueError, distill=Distill(task_weights=weights))
    assert re.search(rf"{len(weights)}\b.*2 cycles", message)


def test_weights_of_the_wrong_length_after_a_change_of_cycles() -> None:
    model = wrap_cyclic(toys.make(), 2, distill=Distill(task_weights=(1.0, 0.5)))
    with pytest.raises(ValueError, match=r"task_weights.*3 cycles"):
        model.cyclic.cycles = 3
        model(toys.batch()[0])
    model.cyclic.cycles = 2
    assert model(toys.batch()[0]).task_weights == (1.0, 0.5)


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("layers", "layers"),
        ("block", "blocks"),  # the nearest name
        ("encoder.blocks", "encoder"),
        ("blocks.7", "blocks.7"),
        ("head", "(?i)leaf|holds no blocks"),
        ("blocks.0.norm1", "(?i)leaf|holds no blocks"),
        ("blocks[2:2]", "blocks"),
        ("blocks[1:9]", "3 blocks"),
        ("blocks[3:1]", "3 blocks"),
        ("blocks[-2:]", r"blocks\[-2:\]"),
        ("blocks[::2]", r"blocks\[::2\]"),
        ("blocks[1]", r"blocks\[1\]"),
        ("", "path"),
        ("cls_token", "cls_token"),
        ("num_classes", "num_classes"),
    ],
)
def test_path_that_names_no_stack(path: str, match: str) -> None:
    refused(toys.make(), match, blocks=path)


@pytest.mark.parametrize("path", [None, 3, ["blocks"], nn.ModuleList()])
def test_path_of_another_type(path: object) -> None:
    refused(toys.make(), "blocks", (StackError, TypeError), blocks=path)


def test_empty_container() -> None:
    refused(toys.make(depth=0), "(?i)leaf|no blocks|holds no", blocks="blocks")
    refused(toys.make(depth=0), "(?i)no stack|no attention stack")


@pytest.mark.parametrize(
    ("groups", "match"),
    [
        ({"a": slice(0, 9)}, "out of range|5 tokens"),
        ({"a": slice(5, None)}, "empty|out of range"),
        ({"a": slice(0, 3), "b": slice(2, 5)}, "overlap"),
        ({"a": slice(3, 2)}, "empty|out of range"),
    ],
)
def test_token_groups_that_do_not_fit_are_refused_at_the_forward(groups: dict[str, slice], match: str) -> None:
    model = wrap_cyclic(toys.make(), 2, tokens=groups)
    with pytest.raises(StackError, match=match) as caught:
        model(toys.batch()[0])
    assert "'a'" in str(caught.value)


@pytest.mark.parametrize(
    "groups", [{}, {"a": 3}, {"a": slice(0, 4, 2)}, {1: slice(0, 1)}, [slice(0, 1)], "prefix", {"a": slice("x", None)}]
)
def test_token_groups_of_another_type(groups: object) -> None:
    refused(toys.make(), "tokens", (StackError, TypeError), tokens=groups)


def test_token_groups_that_do_not_fit_are_refused_at_once_where_the_shape_is_known() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_vit", img_size=32)
    refused(model, "out of range|5 tokens", tokens={"a": slice(0, 17)})
    refused(model, "overlap", tokens={"a": slice(0, 3), "b": slice(1, 5)})


def test_token_groups_on_another_layout() -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("samvit_base_patch16", img_size=64)
    refused(model, r"\(B, N, C\)", tokens={"a": slice(0, 1)})
    two_states = wrap_cyclic(toys.make(toys.TwoStateViT), 2, blocks="blocks", tokens={"a": slice(0, 1)})
    with pytest.raises(StackError, match=r"tokens"):
        two_states(toys.batch()[0])


def test_weight_for_a_group_that_does_not_exist() -> None:
    scheme = Distill(token_weight={"keypoint": 0.1})
    message = refused(toys.make(), "keypoint", ValueError, distill=scheme, tokens={"query": slice(0, 1)})
    assert "query" in message


@pytest.mark.parametrize("thing", [None, "vit", torch.zeros(3), toys.ToyViT])
def test_things_that_are_no_module(thing: object) -> None:
    with pytest.raises((StackError, TypeError), match="Module"):
        wrap_cyclic(thing, 2)


def test_near_names_are_proposed() -> None:
    message = refused(toys.make(), "blcks", blocks="blcks")
    assert "'blocks'" in message


def test_the_handle_has_no_other_settings() -> None:
    model = wrap_cyclic(toys.make(), 2)
    with pytest.raises(AttributeError, match="'exits'.*cycles, exit and distill"):
        model.cyclic.exits = 2
    with pytest.raises(StackError, match="cycles="):
        model.cyclic.cycles = 2**70
