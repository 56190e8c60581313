"""What pruning refuses, why, and that the model is then as it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("timm")

import timm
from timm.models import vision_transformer

from cycledistill import StackError, unwrap_pruning, wrap_cyclic, wrap_pruning
from cycledistill.plugin.handle import PRUNE_STATE
from tests.prune.oracle import images, vit


def assert_refused(model: nn.Module, match: str, *args: Any, **kwargs: Any) -> None:
    """The call fails, and leaves no class, attribute or mark behind."""
    classes, attributes = [type(m) for m in model.modules()], set(vars(model))
    with pytest.raises(StackError, match=match):
        wrap_pruning(model, *args, **kwargs)
    assert [type(m) for m in model.modules()] == classes
    assert set(vars(model)) == attributes
    assert not any(PRUNE_STATE in vars(m) for m in model.modules())


@pytest.mark.parametrize("keep", [0, 0.0, -0.1, 1.01, float("nan"), "0.7", None, True])
def test_keep_out_of_range(keep: Any) -> None:
    assert_refused(vit(), "above 0 and at most 1", (1,), keep)
    model = wrap_pruning(vit(), (1,))
    with pytest.raises(StackError, match="above 0 and at most 1"):
        model.pruning.keep = keep
    assert model.pruning.keep == 0.7


@pytest.mark.parametrize("layers", [(), (1, 1), (1.0,), "1", 1, (True,), None])
def test_layers_that_are_none(layers: Any) -> None:
    assert_refused(vit(), "different whole numbers", layers)


@pytest.mark.parametrize("layers", [(3, 6, 9), (4,), (-1, 1)])
def test_layers_outside(layers: Any) -> None:
    assert_refused(vit(), "lie outside the stack blocks, whose 4 blocks are numbered 0 to 3", layers)


def test_layers_may_come_in_any_order_and_number_within_the_stack() -> None:
    x = images()
    a, b = wrap_pruning(vit(), (2, 1), 0.5), None
    b = wrap_pruning(copy.deepcopy(unwrap_pruning(copy.deepcopy(a))), [0, 1], 0.5, blocks="blocks[1:4]")
    assert a.pruning.layers == (1, 2)
    assert b.pruning.layers == (0, 1)
    assert torch.equal(a(x), b(x))


@pytest.mark.parametrize(
    "query", [slice(None), slice(0, -1), slice(3, 3), slice(0, 4, 2), slice(0, 17), slice(-2, 1), 5]
)
def test_query_slices(query: Any) -> None:
    assert_refused(vit(), "slice", (1,), query=query)


def test_query_names() -> None:
    assert_refused(vit(), "no such token group", (1,), query="keypoint")
    assert_refused(vit(class_token=False, global_pool="avg"), "no prefix tokens", (1,))
    model = vit(class_token=False, global_pool="avg")
    model.token_groups = {"keypoint": slice(0, 4), "visual": slice(4, None)}
    assert_refused(model, 'query="keypoint"', (1,))
    assert wrap_pruning(model, (1,), query="keypoint").pruning.query == slice(0, 4)


def test_wrapped_twice_and_nothing_to_unwrap() -> None:
    model = wrap_pruning(vit(), (1,))
    for each in (model, nn.Sequential(model)):
        with pytest.raises(StackError, match="already wrapped by wrap_pruning"):
            wrap_pruning(each, (1,))
    assert model(images()).shape == (3, 7)
    unwrap_pruning(model)
    with pytest.raises(StackError, match="nothing to undo"):
        unwrap_pruning(model)


@pytest.mark.parametrize(
    "how", ["blocks unwrapped", "one block unwrapped", "block replaced", "block removed", "block added"]
)
def test_blocks_that_are_pruned_no_more_are_refused_and_not_run_whole(how: str) -> None:
    model = wrap_pruning(vit(), (1,), 0.5)
    copied = copy.deepcopy(model)
    assert model(images()).shape == copied(images()).shape == (3, 7)
    for each in (model, copied):
        if how == "blocks unwrapped":
            unwrap_pruning(each.blocks)
        elif how == "one block unwrapped":
            unwrap_pruning(each.blocks[1])
        elif how == "block replaced":
            each.blocks[2] = vit().blocks[2]
        elif how == "block removed":
            del each.blocks[3]
        else:
            each.blocks.append(vit().blocks[3])
        for enter in (each, each.forward_features):
            with pytest.raises(StackError, match=r"not those that were pruned.*unwrap_pruning\(model\)"):
                enter(images())
        unwrap_pruning(each)
        assert each(images()).shape == (3, 7)


def test_models_in_other_hands() -> None:
    assert_refused(torch.compile(vit(), backend="eager"), "compile", (1,))
    assert_refused(nn.DataParallel(vit()), r"wrap_pruning\(model\.module\)", (1,))
    model = vit()
    model.pruning = 3
    assert_refused(model, "attribute of its own", (1,))
    with pytest.raises(StackError, match=r"torch\.nn\.Module"):
        wrap_pruning("vit", (1,))  # type: ignore[type-var]
    with pytest.raises(StackError, match=r"jit\.script"), pytest.warns(FutureWarning):
        torch.jit.script(wrap_pruning(vit(), (1,)))


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("beit_base_patch16_224", "attn.qkv once, as a module"),
        ("eva02_tiny_patch14_224", "attn.qkv"),
        ("vit_relpos_base_patch16_clsgap_224", "needs the full grid"),
        ("xcit_nano_12_p16_224", "the prefix is not in the stack"),
        ("cait_xxs24_224", "the prefix is not in the stack"),
        ("vit_base_patch16_siglip_224", "no prefix tokens"),
        ("mixer_s32_224", "no prefix tokens"),
        ("swin_tiny_patch4_window7_224", "single stack"),
        ("hiera_tiny_224", r"for example wrap_pruning\(model, blocks="),
    ],
)
def test_timm_models_that_are_not_served(name: str, match: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert_refused(model, match, (1,))


@pytest.mark.parametrize("block", ["ResPostBlock", "ParallelScalingBlock", "ParallelThingsBlock"])
def test_timm_blocks_that_are_not_served(block: str) -> None:
    model = vit(block_fn=getattr(vision_transformer, block))
    assert_refused(model, "block 1", (1,))


class Interleaved(nn.Module):
    """Attention whose projection returns keys in front of queries, which no one can see from outside."""

    def __init__(self, old: Any) -> None:
        super().__init__()
        self.num_heads, self.scale, self.qkv, self.proj = old.num_heads, old.scale, old.qkv, old.proj

    def forward(self, x: Tensor, attn_mask: Any = None, is_causal: bool = False) -> Tensor:
        batch, number, _ = x.shape
        k, q, v = self.qkv(x).reshape(batch, number, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        return self.proj(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))


class Mixing(nn.Module):
    """An MLP that looks at its neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv1d(24, 24, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x.transpose(1, 2)).transpose(1, 2)


def test_attention_that_cannot_be_read_is_refused_by_its_numbers() -> None:
    model = vit()
    model.blocks[1].attn = Interleaved(model.blocks[1].attn)
    assert_refused(model, "not plain softmax attention", (1,))
    cait = timm.create_model("cait_xxs24_224", depth=2)
    assert_refused(cait, "not plain softmax attention", (1,), query=slice(0, 1))


class RunsElsewhere(nn.Linear):
    """A layer with kernels for other devices only."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            raise NotImplementedError
        return super().forward(x)


def test_a_block_whose_copy_does_not_run_is_not_checked_and_the_log_names_the_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", "cycledistill.prune.checks")
    model = vit()
    model.blocks[1].attn.proj.__class__ = RunsElsewhere
    wrap_pruning(model, (1,))
    (record,) = caplog.records
    assert record.levelname == "DEBUG"
    assert "block 1 of blocks is not checked, no copy runs: NotImplementedError()" in record.getMessage()


def test_a_check_that_fails_itself_is_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Tensor:
        raise KeyError("qkv")

    monkeypatch.setattr("cycledistill.prune.checks.scoring_attention", broken)
    wrap_pruning(vit(), (1,))
    (record,) = caplog.records
    assert record.levelname == "WARNING" and record.exc_info is not None
    assert "block 1 of blocks is not checked, the check failed: KeyError('qkv')" in record.getMessage()


def test_an_mlp_that_mixes_tokens_is_refused() -> None:
    model = vit().float()
    model.blocks[1].mlp = Mixing()
    assert_refused(model, "mix tokens", (1,))


def test_a_head_that_needs_the_grid_is_refused() -> None:
    model = vit()
    model.norm = nn.Sequential(nn.LayerNorm(24).double(), nn.Flatten(1), nn.Unflatten(1, (17, 24)))
    assert_refused(model, "needs the full grid", (1,))


def test_too_few_tokens_at_run_time() -> None:
    model = vit()
    model.patch_embed.img_size = None  # nothing is known at wrap time
    del model.num_classes
    wrap_pruning(model, (1,), query=slice(0, 17))
    with pytest.raises(StackError, match="never dropped"):
        model(images())


def test_a_replica_of_data_parallel_is_refused() -> None:
    replica = wrap_pruning(vit(), (1,)).blocks[1]
    replica._is_replica = True  # as torch marks the copies it makes for its threads
    with pytest.raises(StackError, match="DistributedDataParallel"):
        replica(torch.randn(2, 17, 24, dtype=torch.float64))


def test_causal_attention_is_refused() -> None:
    model = wrap_pruning(vit(), (1,))
    with pytest.raises(StackError, match="causally"):
        model.blocks[1](torch.randn(2, 17, 24, dtype=torch.float64), is_causal=True)
    assert model(images()).shape == (3, 7)


@pytest.mark.slow
def test_maps_on_the_full_grid_are_refused_while_tokens_are_dropped() -> None:
    """Where the numbers divide, 64 kept tokens of 192 channels would fill a grid of 256 with scrambled maps."""
    plain, x = vit().eval(), images()
    want = plain.forward_intermediates(x, intermediates_only=True)
    for wrap in (lambda m: m, lambda m: wrap_cyclic(m, 2)):
        model = wrap(wrap_pruning(copy.deepcopy(plain), (1,), keep=0.5)).eval()
        for method in (model.forward_intermediates, model.get_intermediate_layers):
            with pytest.raises(StackError, match=r"grid of patches.*keep = 1\.0"):
                method(x)
        model.pruning.keep = 1.0
        got = model.forward_intermediates(x, intermediates_only=True)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
        unwrap_pruning(model)
        model.forward_intermediates(x)
