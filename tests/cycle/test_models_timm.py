"""The acceptance table: 40 timm names that wrap by a bare call, wrap by the path given, or are refused."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from cycledistill import CycleOutput, StackError, wrap_cyclic
from cycledistill.stack.find import find_stacks
from tests.oracle import (
    Truth,
    assert_differ,
    assert_same,
    assert_same_gradients,
    calm,
    gradients,
    scramble,
    snapshot,
)

timm = pytest.importorskip("timm")
SIZE = 64


class Row(NamedTuple):
    name: str
    cls: str
    path: str
    depth: int
    groups: tuple[str, ...] = ("prefix", "patch")
    size: int = SIZE  # of the test image; the model is built for it where it lets us
    blocks: int = 0  # how many are run against the truth, where there are many equal ones: fewer


ALL = ("all",)
# One of each kind for a quick look: prefix and patches, no prefix, two states, a path of a part, stages.
SMALL = {
    "test_vit",
    "deit_tiny_distilled_patch16_224",
    "xcit_nano_12_p16_224",
    "crossvit_tiny_240",
    "convit_tiny",
    "pvt_v2_b0",
    "levit_128s",
}


def marked(rows: list[Row]) -> list[Any]:
    """The rows as parameters. A model of full size takes a second or more to build, and longer to run."""
    return [pytest.param(row, id=row.name, marks=[] if row.name in SMALL else [pytest.mark.slow]) for row in rows]


@cache
def on_meta(name: str) -> nn.Module:
    """A model of a name without data; copy it to wrap it."""
    with torch.device("meta"):
        return timm.create_model(name)


AUTO = [
    Row("vit_tiny_patch16_224", "VisionTransformer", "blocks", 12),
    Row("deit_tiny_patch16_224", "VisionTransformer", "blocks", 12, blocks=3),
    Row("deit_tiny_distilled_patch16_224", "VisionTransformerDistilled", "blocks", 12, blocks=3),
    Row("deit3_small_patch16_224", "VisionTransformer", "blocks", 12, blocks=3),
    Row("vit_small_patch14_dinov2", "VisionTransformer", "blocks", 12, size=56, blocks=3),
    Row("vit_small_patch14_reg4_dinov2", "VisionTransformer", "blocks", 12, size=56, blocks=3),
    Row("vit_base_patch16_siglip_224", "VisionTransformer", "blocks", 12, ALL, blocks=3),
    Row("vit_base_patch16_clip_224", "VisionTransformer", "blocks", 12, blocks=3),
    Row("vit_base_patch16_xp_224", "VisionTransformer", "blocks", 12, blocks=3),
    Row("vit_small_r26_s32_224", "VisionTransformer", "blocks", 12, blocks=3),
    Row("eva02_tiny_patch14_224", "Eva", "blocks", 12, size=56, blocks=3),
    Row("vit_small_patch16_rope_mixed_224", "Eva", "blocks", 12, blocks=3),
    Row("vit_small_patch16_dinov3", "Eva", "blocks", 12, blocks=3),
    Row("beit_base_patch16_224", "Beit", "blocks", 12, blocks=3),
    Row("cait_xxs24_224", "Cait", "blocks", 24, ALL, blocks=3),
    Row("xcit_nano_12_p16_224", "Xcit", "blocks", 12, ALL, blocks=3),
    Row("vit_relpos_small_patch16_224", "VisionTransformerRelPos", "blocks", 12, ALL, blocks=3),
    Row("naflexvit_base_patch16_gap", "NaFlexVit", "blocks", 12, ALL, blocks=3),  # declares no number of patches
    Row("samvit_base_patch16", "VisionTransformerSAM", "blocks", 12, ALL, blocks=3),
    Row("qwen3_vit_88m", "Qwen3VitClassifier", "encoder.blocks", 12, ALL, blocks=3),
    Row("gemma4_vit_167m", "Gemma4VitClassifier", "encoder.blocks", 16, ALL, blocks=3),
    Row("mixer_s16_224", "MlpMixer", "blocks", 8, ALL),
    Row("tnt_s_legacy_patch16_224", "TNT", "blocks", 12, ALL, blocks=3),
    Row("crossvit_tiny_240", "CrossVit", "blocks", 3, ALL, size=240),
    Row("test_vit", "VisionTransformer", "blocks", 6),
]
STAGED = [
    Row("convit_tiny", "ConVit", "blocks[0:10]", 10),
    Row("swin_tiny_patch4_window7_224", "SwinTransformer", "layers.3.blocks", 2),
    Row("swinv2_tiny_window8_256", "SwinTransformerV2", "layers.3.blocks", 2),
    Row("pvt_v2_b0", "PyramidVisionTransformerV2", "stages.3.blocks", 2),
    Row("pit_ti_224", "PoolingVisionTransformer", "transformers.2.blocks", 4),
    Row("levit_128s", "LevitDistilled", "stages.2.blocks", 4, size=128),
    Row("hiera_tiny_224", "Hiera", "blocks[4:10]", 6),
    Row("volo_d1_224", "VOLO", "network[2:5]", 3),
    Row("maxvit_tiny_tf_224", "MaxxVit", "stages.2.blocks[1:5]", 4),
    Row("mvitv2_tiny", "MultiScaleVit", "stages.2.blocks[1:5]", 4),
]
# What the refusal of a bare call must list besides; the table's paths but for ConVit's, whose run of equal names
# differs.
LISTED = {"convit_tiny": "blocks[10:12]"}
REFUSED = [
    ("resnet18", "layer1", "no attention stack"),
    ("efficientnet_b0", "blocks.5[1:4]", "no attention stack"),
    ("convnext_atto", "stages.3.blocks", "no attention stack"),
    ("regnetx_002", None, "no (attention )?stack"),
    ("vgg11", None, "no (attention )?stack"),
]


def build(row: Row) -> nn.Module:
    torch.manual_seed(0)
    shallow = {"depth": row.blocks} if row.blocks else {}
    try:
        model = timm.create_model(row.name, img_size=row.size, num_classes=7, **shallow)
    except TypeError:  # convolutional stems take any size and no argument
        model = timm.create_model(row.name, num_classes=7, **shallow)
    return scramble(calm(model))


def rope_by_depth(model: nn.Module, times: int) -> Callable[[], None]:
    """Mixed rope has one embedding a block: the truth repeats them as it repeats the blocks."""
    original = model.rope.get_embed
    model.rope.get_embed = lambda *args, **kwargs: _repeat(original(*args, **kwargs), times)
    return lambda: model.rope.__dict__.pop("get_embed")


def _repeat(embed: Any, times: int) -> Any:
    return embed.repeat(times, *([1] * (embed.ndim - 1))) if isinstance(embed, torch.Tensor) else list(embed) * times


def class_token_after_ten(model: nn.Module, times: int) -> Callable[[], None]:
    """ConVit counts blocks to know where its class token comes in."""
    first = model.local_up_to_layer
    model.local_up_to_layer = first * times
    return lambda: setattr(model, "local_up_to_layer", first)


ADJUST = {"vit_small_patch16_rope_mixed_224": rope_by_depth, "convit_tiny": class_token_after_ten}


def task(output: Any) -> torch.Tensor:
    parts = output if isinstance(output, tuple) else (output,)
    return sum(nn.functional.cross_entropy(part, torch.tensor([0, 3])[: part.shape[0]]) for part in parts)


def check_against_truth(row: Row, model: nn.Module, blocks: str, cycles: int = 2) -> CycleOutput:
    """Eval bits, training outputs, gradients of the task and the class, keys and depth of one row of the table."""
    x = torch.randn(2, 3, row.size, row.size)
    keys, base_class = list(model.state_dict()), type(model)
    truth = Truth(model, row.path, adjust=ADJUST.get(row.name))
    with torch.no_grad():
        plain = copy.deepcopy(model.eval())(x)
    truth.model.train()
    wrap_cyclic(model, cycles, distill="sdpose", blocks=blocks)
    assert type(model).__name__ == base_class.__name__ == row.cls
    assert (model.cyclic.stack.path, model.cyclic.stack.depth) == (row.path, row.blocks or row.depth)
    assert list(model.state_dict()) == keys
    with torch.no_grad():
        assert_same(model(x), plain, what="eval")
    model.train()
    np.random.seed(0)
    out = model(x)
    want = [_seeded(truth, k, x) for k in range(1, cycles + 1)]
    assert len(out) == cycles
    for k in range(cycles):
        assert_same(out[k], want[k], what=f"cycle {k + 1}")
    assert_differ(out[0], out[1])
    sum(task(output) for output in out.outputs).backward()
    sum(task(output) for output in want).backward()
    assert_same_gradients(gradients(model), truth.gradients(), rtol=1e-4)
    return out


def _seeded(truth: Truth, times: int, x: torch.Tensor) -> Any:
    np.random.seed(0)
    return truth(times, x)


@pytest.mark.slow
@pytest.mark.parametrize("row", marked(AUTO))
def test_bare_call_equals_the_truth(row: Row) -> None:
    out = check_against_truth(row, build(row), "auto")
    assert list(out.losses) == [f"token_{group}" for group in row.groups]


THREE = ("test_vit", "tnt_s_legacy_patch16_224", "xcit_nano_12_p16_224")


@pytest.mark.slow
@pytest.mark.parametrize("row", marked([row for row in AUTO if row.name in THREE]))
def test_three_cycles_equal_the_truth(row: Row) -> None:
    check_against_truth(row, build(row), "auto", cycles=3)


@pytest.mark.parametrize("row", marked(STAGED))
def test_bare_call_of_a_staged_model_lists_the_candidates(row: Row) -> None:
    model = on_meta(row.name)
    before = snapshot(model)
    with pytest.raises(StackError) as refusal:
        wrap_cyclic(model, 2)
    assert snapshot(model) == before
    message = str(refusal.value)
    listed = LISTED.get(row.name, row.path)
    line = next((line for line in message.splitlines() if f'"{listed}"' in line), None)
    assert line is not None, f"{listed} is not among the candidates of: {message}"
    assert "%" in line and re.search(r"\b\d+ x \w+", line), f"no depth, class or share in: {line}"
    assert "state (" in line, f"no shape in: {line}"


@pytest.mark.parametrize("row", marked(STAGED))
def test_staged_model_by_path_equals_the_truth(row: Row) -> None:
    check_against_truth(row, build(row), row.path)


@pytest.mark.parametrize("row", marked(STAGED))
def test_staged_model_without_a_probe_is_refused_before_a_wrong_result(row: Row) -> None:
    """Built for a size it does not declare, a model cannot be probed: then the first training forward must refuse."""
    model = build(row)
    model.pretrained_cfg, model.default_cfg = {}, {}
    if hasattr(model, "patch_embed"):
        model.patch_embed.img_size = None
    with pytest.raises(StackError):
        wrap_cyclic(model, 2)(torch.randn(2, 3, row.size, row.size))


def test_convit_as_a_whole_is_refused_naming_block_10() -> None:
    with torch.device("meta"):
        model = timm.create_model("convit_tiny")
    before = snapshot(model)
    with pytest.raises(StackError, match=r"block 10 does not receive the output of block 9") as refusal:
        wrap_cyclic(model, 2, blocks="blocks")
    assert snapshot(model) == before
    assert 'blocks="blocks[0:10]"' in str(refusal.value)


def test_convit_as_a_whole_is_refused_in_the_first_forward_where_no_probe_runs() -> None:
    """Built for 64 px, the size the model declares elsewhere is wrong: only the forward can tell."""
    model = build(STAGED[0])
    model.pretrained_cfg = {}
    model.patch_embed.img_size = None
    with pytest.raises(StackError, match=r"block 10 does not receive the output of block 9"):
        wrap_cyclic(model, 2, blocks="blocks")(torch.randn(2, 3, 64, 64))


def test_hiera_as_a_whole_is_refused_for_its_shapes() -> None:
    with torch.device("meta"):
        model = timm.create_model("hiera_tiny_224")
    with pytest.raises(StackError, match=r"\(1, 3136, 96\) to \(1, 49, 768\)"):
        wrap_cyclic(model, 2, blocks="blocks")


@pytest.mark.parametrize(("name", "path", "reason"), REFUSED, ids=[row[0] for row in REFUSED])
def test_networks_without_attention_are_refused(name: str, path: str | None, reason: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    before = snapshot(model)
    with pytest.raises(StackError, match=reason):
        wrap_cyclic(model, 2)
    assert snapshot(model) == before
    if path is not None:
        assert path in [stack.path for stack in find_stacks(model)]


@pytest.mark.parametrize(("name", "path"), [(name, path) for name, path, _ in REFUSED if path])
def test_networks_without_attention_cycle_by_an_explicit_path(name: str, path: str) -> None:
    row = Row(name, type(timm.create_model(name)).__name__, path, {"layer1": 2, "blocks.5[1:4]": 3}.get(path, 2))
    check_against_truth(row, build(row), path)


@pytest.mark.parametrize("row", marked(AUTO + STAGED))
def test_stack_report_on_meta(row: Row) -> None:
    model = on_meta(row.name)
    stacks = {stack.path: stack for stack in find_stacks(model)}
    assert LISTED.get(row.name, row.path) in stacks
    stack = stacks[LISTED.get(row.name, row.path)]
    blocks = stack.modules(model)
    parameters = {id(p): p.numel() for block in blocks for p in block.parameters()}
    total = sum(p.numel() for p in model.parameters())
    assert (stack.depth, stack.block) == (len(blocks), type(blocks[0]).__name__)
    assert row in STAGED or stack.depth == row.depth
    assert stack.parameters == sum(parameters.values())
    assert stack.share == pytest.approx(stack.parameters / total)
    assert stack.attention == (row.name not in ("mixer_s16_224", "vit_base_patch16_xp_224"))  # inline in the latter
    assert stack.shape is not None and stack.shape[-1] > 1


@pytest.mark.slow
@pytest.mark.parametrize("blocks", ["auto", "parallel_blocks"])
def test_only_some_of_the_states_chain(blocks: str) -> None:
    """CoaT encodes positions between its parallel blocks: one state of four is handed on, so cycling would be wrong."""
    with torch.device("meta"):
        model = timm.create_model("coat_tiny")
    before = snapshot(model)
    with pytest.raises(StackError, match="parallel_blocks|Candidates"):
        wrap_cyclic(model, 2, blocks=blocks)
    assert snapshot(model) == before


@pytest.mark.slow
def test_serial_blocks_with_modules_shared_with_later_parts() -> None:
    """CoaT's serial blocks share position encodings with parts after them: no note may answer there."""
    row = Row("coat_tiny", "CoaT", "serial_blocks4", 2)
    check_against_truth(row, build(row), row.path)
