"""Token groups: what is taken by default, what a model declares, what the user names."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cycledistill import Distill, StackError, wrap_cyclic
from tests import toys
from tests.oracle import assert_same

ONE = Distill(token_weight=1.0)


def names(model: nn.Module, *args: Tensor) -> list[str]:
    return list(model(*args).losses)


def test_one_group_where_nothing_is_declared() -> None:
    assert names(wrap_cyclic(toys.make(), 2, distill=ONE), toys.batch()[0]) == ["token_all"]


def test_named_groups_cover_what_they_name() -> None:
    groups = {"head": slice(0, 1), "mid": slice(2, 3), "tail": slice(-2, None)}
    out = wrap_cyclic(toys.make(), 2, distill=ONE, tokens=groups)(toys.batch()[0])
    for name, group in groups.items():
        want = (out.tokens[0][:, group] - out.tokens[1][:, group]).square().mean()
        assert_same(out.losses[f"token_{name}"], want, rtol=1e-12)
    assert list(out.losses) == ["token_head", "token_mid", "token_tail"]


def test_a_model_may_declare_its_groups() -> None:
    class Declares(toys.ToyViT):
        token_groups = {"query": slice(0, 1), "visual": slice(1, None)}  # noqa: RUF012

    model = wrap_cyclic(toys.make(Declares), 2, distill=ONE)
    assert names(model, toys.batch()[0]) == ["token_query", "token_visual"]
    other = wrap_cyclic(toys.make(Declares), 2, distill=ONE, tokens={"first": slice(0, 1)})
    assert names(other, toys.batch()[0]) == ["token_first"]


def test_declared_groups_that_do_not_fit_are_refused() -> None:
    class Declares(toys.ToyViT):
        token_groups = {"query": slice(0, 17)}  # noqa: RUF012

    with pytest.raises(StackError, match="'query'"):
        wrap_cyclic(toys.make(Declares), 2, distill=ONE)(toys.batch()[0])


def test_timm_prefix_and_patches() -> None:
    timm = pytest.importorskip("timm")
    model = wrap_cyclic(timm.create_model("test_vit", img_size=32), 2, distill=ONE)
    out = model(torch.randn(1, 3, 32, 32))
    assert out.tokens[0].shape == (1, 5, 64)
    for name, group in (("prefix", slice(0, 1)), ("patch", slice(1, None))):
        want = (out.tokens[0][:, group] - out.tokens[1][:, group]).square().mean()
        assert_same(out.losses[f"token_{name}"], want, rtol=1e-5)


@pytest.mark.parametrize(("size", "built"), [(48, 32), (32, 48)])
def test_dynamic_image_sizes_keep_training(size: int, built: int) -> None:
    """The number of patches a model declares is that of the size it was built for; other sizes come in training."""
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_vit", img_size=built, dynamic_img_size=True)
    wrap_cyclic(model, 2, distill=ONE)
    first = names(model, torch.randn(1, 3, built, built))
    other = names(model, torch.randn(1, 3, size, size))
    again = names(model, torch.randn(1, 3, built, built))
    assert first == other == again == ["token_prefix", "token_patch"]


def test_groups_do_not_depend_on_which_size_came_first() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_vit", img_size=32, dynamic_img_size=True)
    wrap_cyclic(model, 2, distill=ONE)
    assert names(model, torch.randn(1, 3, 48, 48)) == ["token_prefix", "token_patch"]


def test_patch_dropout_takes_tokens_away_and_training_goes_on() -> None:
    timm = pytest.importorskip("timm")
    model = wrap_cyclic(timm.create_model("test_vit", img_size=64, patch_drop_rate=0.5), 2, distill=ONE)
    out = model(torch.randn(2, 3, 64, 64))
    assert out.tokens[0].shape[1] == 1 + 8
    assert sum(float(v.detach()) for v in out.losses.values()) > 0


def test_partial_stack_groups() -> None:
    timm = pytest.importorskip("timm")
    model = wrap_cyclic(timm.create_model("test_vit", img_size=32), 2, distill=ONE, blocks="blocks[2:4]")
    assert names(model, torch.randn(1, 3, 32, 32)) == ["token_prefix", "token_patch"]


def test_channels_last_state_has_the_one_group() -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("swin_tiny_patch4_window7_224")
        wrap_cyclic(model, 2, distill=ONE, blocks="layers.2.blocks")
        out = model(torch.randn(1, 3, 224, 224))
    assert list(out.losses) == ["token_all"] and out.tokens[0].ndim == 4
