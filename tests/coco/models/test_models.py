"""What the pose models are made of, what they refuse, and that the library's plug-ins find what they need."""

from __future__ import annotations

import copy
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import nn

from cycledistill import StackError, wrap_cyclic
from cycledistill.integrations.coco import (
    HeatmapLoss,
    TokenPose,
    TokenPoseConfig,
    create_pose_model,
    list_pose_models,
    pose_model_config,
)
from cycledistill.integrations.coco.models.position import SINE_EPS, sine_positions
from cycledistill.integrations.coco.models.transformer import split_patches

SMALL: dict[str, Any] = {"image_size": (64, 48), "depth": 3, "dim": 32, "heads": 4}

# total and trainable parameters, tensors in the state dict, at 256x192 with 17 keypoints
PARAMETERS = {
    "tokenpose_t": (5_865_600, 5_816_448, 144),
    "tokenpose_s_v1": (6_669_888, 6_620_736, 234),
    "tokenpose_s_v1_original": (6_669_888, 6_620_736, 234),
    "tokenpose_s_v2": (6_374_976, 6_227_520, 234),
    "tokenpose_s_v2_original": (6_374_976, 6_227_520, 234),
    "tokenpose_b": (13_514_368, 13_465_216, 1074),
    "tokenpose_b_narrow": (13_195_136, 13_145_984, 1074),
    "tokenpose_l_d6": (20_864_928, 20_815_776, 1004),
    "tokenpose_l_d6_plain": (20_349_216, 20_300_064, 1008),
    "tokenpose_l_d24": (27_531_552, 27_482_400, 1202),
    "sdpose_t": (4_447_680, 4_398_528, 168),
    "sdpose_s_v1": (6_669_888, 6_620_736, 234),
    "sdpose_s_v2": (6_374_976, 6_227_520, 234),
    "sdpose_b": (13_514_368, 13_465_216, 1074),
    "sdpose_b_narrow": (13_195_136, 13_145_984, 1074),
    "sdpose_reg": (5_413_060, 5_363_908, 230),
    "sdpose_s_v1_ppt": (6_669_888, 6_620_736, 234),
    "distilpose_s": (5_413_253, 5_364_101, 230),
    "ppt_s": (6_669_888, 6_620_736, 234),
    "ppt_s_original": (6_669_888, 6_620_736, 234),
    "ppt_b": (13_514_368, 13_465_216, 1074),
    "ppt_b_narrow": (13_195_136, 13_145_984, 1074),
    "ppt_l_d6": (20_349_216, 20_300_064, 1008),
}


@pytest.mark.parametrize("field", ["backbone", "position", "head", "scale"])
def test_a_choice_is_taken_where_its_type_has_it(field: str) -> None:
    """The types are what type checkers, recipes and the checks go by: one list, not two that drift apart."""
    hint = get_type_hints(TokenPoseConfig)[field]
    choices = get_args(hint) if get_origin(hint) is Literal else get_args(get_args(hint)[0])
    assert len(choices) >= 2
    for choice in choices:
        assert getattr(TokenPoseConfig(**{field: choice}), field) == choice
    with pytest.raises(ValueError, match=".*".join([f"{field}='other'", *choices])):
        TokenPoseConfig(**{field: "other"})


def test_every_listed_model_has_a_checked_size() -> None:
    assert list_pose_models() == sorted(PARAMETERS)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name: str) -> None:
    with torch.device("meta"):
        model = create_pose_model(name)
    total = sum(each.numel() for each in model.parameters())
    trainable = sum(each.numel() for each in model.parameters() if each.requires_grad)
    assert (total, trainable, len(model.state_dict())) == PARAMETERS[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("tokenpose_t", (1, 17, 64, 48)),
        ("tokenpose_l_d24", (1, 17, 64, 48)),
        ("sdpose_b", (1, 17, 64, 48)),
        ("distilpose_s", (1, 17, 5)),
        ("sdpose_reg", (1, 17, 4)),
    ],
)
def test_outputs(name: str, shape: tuple[int, ...]) -> None:
    model = create_pose_model(name).eval()
    with torch.no_grad():
        out = model(torch.randn(1, 3, 256, 192))
    assert out.shape == shape
    assert out.isfinite().all()


def test_keypoints_and_image_size_are_options() -> None:
    model = create_pose_model("sdpose_t", num_keypoints=14, image_size=(128, 96), cycles=2).train()
    out = model(torch.randn(2, 3, 128, 96))
    assert [each.shape for each in out.outputs] == [(2, 14, 32, 24)] * 2
    assert out.tokens[0].shape == (2, 14 + 64, 192)


@pytest.mark.parametrize(
    ("name", "near"),
    [("sdpose_s_v3", "sdpose_s_v1"), ("SDPose-S-V1", "sdpose_s_v1"), ("tokenpose", "tokenpose_t"), ("vit", "ppt_b")],
)
def test_unknown_names_come_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ValueError, match="is no pose model") as refusal:
        create_pose_model(name)
    assert near in str(refusal.value)


def test_unknown_options_come_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="no option 'stage_width'; the nearest is 'stage1_width'"):
        create_pose_model("sdpose_b", stage_width=32)
    with pytest.raises(ValueError, match="no option 'xyzzy'; it has .*depth"):
        create_pose_model("sdpose_b", xyzzy=32)
    with pytest.raises(ValueError, match="'xyzzy' is no pose model; known: .*sdpose_b"):
        create_pose_model("xyzzy")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": (250, 192)}, "height 250 is not divisible by 16.*nearest height that is: 256"),
        ({"image_size": (256, 190)}, "width 190 is not divisible by 12.*nearest width that is: 192"),
        ({"image_size": 256}, "height and width"),
        ({"image_size": (256, 192.0)}, "height and width"),
        ({"backbone": "none", "patch_size": (16, 11)}, "width 192 is not divisible by 11"),
        ({"backbone": "hrnet_w32", "patch_size": (2, 3), "image_size": (264, 192)}, "divisible by 16, not 264"),
        ({"backbone": "resnet"}, "'stem' or 'hrnet_w32'"),
        ({"num_keypoints": 0}, "num_keypoints=0"),
        ({"depth": True}, "depth=True"),
        ({"heads": 7}, "dim=192 is not divisible by heads=7"),
        ({"dim": 190, "heads": 10}, "divisible by 4"),
        ({"depth": 7, "readouts": 3}, "depth=7 is not divisible by readouts=3"),
        ({"scale": "heads"}, '"head_dim", "dim" or a number'),
        ({"scale": 0}, '"head_dim", "dim" or a number'),
        ({"position": "rotary"}, "'sine-full' or 'sine'"),
        ({"head": "boxes"}, "'heatmap' or 'token_reg'"),
        ({"head_hidden": -1}, "head_hidden=-1"),
    ],
)
def test_configs_that_cannot_be_built_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenPoseConfig(**fields)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cycles": 0}, "cycles=0"),
        ({"distill": "teacher"}, "unknown preset"),
        ({"keep": 0.0, "prune_layers": (1,)}, "keep=0.0"),
        ({"keep": 1.5, "prune_layers": (1,)}, "keep=1.5"),
        ({"prune_layers": (3, 6, 9)}, "6 is outside the 6 layers"),
    ],
)
def test_plugins_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_pose_model("sdpose_t", **options)


@pytest.mark.parametrize("shape", [(2, 3, 48, 64), (2, 1, 64, 48), (3, 64, 48), (2, 3, 64, 49)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    model = TokenPose(TokenPoseConfig(**SMALL))
    with pytest.raises(ValueError, match=r"\(B, 3, 64, 48\) is expected"):
        model(torch.zeros(shape))


def test_a_config_read_from_lists_equals_one_of_tuples() -> None:
    assert TokenPoseConfig(image_size=[256, 192], patch_size=[2, 2]) == TokenPoseConfig(patch_size=(2, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("sdpose_s_v1", 24**-0.5),
        ("tokenpose_s_v1_original", 192**-0.5),
        ("ppt_s_original", 192**-0.5),
        ("ppt_s", 24**-0.5),
        ("tokenpose_t", 12**-0.5),
        ("tokenpose_l_d24", 16**-0.5),
    ],
)
def test_attention_scales(name: str, scale: float) -> None:
    with torch.device("meta"):
        model = create_pose_model(name)
    assert {block.attn.scale for block in model.blocks} == {scale}


def test_what_no_figure_shows() -> None:
    model = create_pose_model("sdpose_b")
    norms = [each for each in model.modules() if isinstance(each, nn.LayerNorm)]
    assert {each.eps for each in norms} == {1e-5}
    assert {(each.eps, each.momentum) for each in model.modules() if isinstance(each, nn.BatchNorm2d)} == {(1e-5, 0.1)}
    assert SINE_EPS == 1e-6
    # Two norms a layer and two in the head: none behind the stack.
    assert len(norms) == 2 * model.config.depth + 2
    assert all(block.attn.qkv.bias is None for block in model.blocks)
    assert not any(isinstance(each, nn.Dropout) for each in model.modules())


def test_initial_weights() -> None:
    model = create_pose_model("sdpose_b")
    for name, parameter in model.named_parameters():
        if name.startswith("backbone") and parameter.ndim == 4:
            assert parameter.std().item() == pytest.approx(0.001, rel=0.1), name
        elif name == "keypoint_token" or (parameter.ndim == 2 and "norm" not in name):
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05), name
        elif name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.ndim == 1:
            assert (parameter == 1).all(), name


def test_sine_table_against_the_formula_term_by_term() -> None:
    rows, columns, dim = 3, 5, 24
    table = sine_positions(rows, columns, dim)
    assert table.shape == (1, rows * columns, dim)
    half = dim // 2
    for row in range(rows):
        for column in range(columns):
            for channel in range(dim):
                place, count = (row, rows) if channel < half else (column, columns)
                j = channel % half
                angle = torch.tensor((place + 1) / (count + 1e-6) * 2 * torch.pi / 10000 ** (2 * (j // 2) / half))
                want = angle.sin() if j % 2 == 0 else angle.cos()
                assert table[0, row * columns + column, channel].item() == pytest.approx(want.item(), abs=1e-6)


def test_patches_run_row_by_row_with_channels_fastest() -> None:
    model = TokenPose(TokenPoseConfig(**SMALL | {"backbone": "none", "patch_size": (16, 12)}))
    images = torch.randn(2, 3, 64, 48)
    patches = split_patches(model.backbone(images), model.config.patch_size)
    assert patches.shape == (2, 16, 16 * 12 * 3)
    want = images[1, :, 16:32, 36:48].permute(1, 2, 0).flatten()  # second row, last column
    assert torch.equal(patches[1, 4 + 3], want)


def seen_positions(model: TokenPose) -> list[torch.Tensor | None]:
    """The positions that each layer was given in one training forward, cycle after cycle."""
    seen: list[torch.Tensor | None] = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    model.train()(torch.randn(2, 3, *model.config.image_size))
    return seen


def test_positions_are_added_again_in_front_of_every_layer_but_the_first_of_each_cycle() -> None:
    model = wrap_cyclic(TokenPose(TokenPoseConfig(**SMALL)), 2, blocks="blocks")
    seen = seen_positions(model)
    assert [each is None for each in seen] == [True, False, False] * 2
    assert seen[1] is not None
    assert not seen[1][:, :17].any()
    assert torch.equal(seen[1][:, 17:], model.pos_embedding)


def test_each_part_of_tokenpose_l_starts_without_positions() -> None:
    model = TokenPose(TokenPoseConfig(**SMALL | {"depth": 6, "readouts": 3}))
    assert [each is None for each in seen_positions(model)] == [True, False] * 3


@pytest.mark.parametrize("position", ["sine", "learnable"])
def test_positions_that_are_added_once(position: str) -> None:
    model = TokenPose(TokenPoseConfig(**SMALL | {"position": position}))
    assert model.pos_embedding.requires_grad == (position == "learnable")
    assert model.pos_embedding.shape[1] == (16 + 17 if position == "learnable" else 16)
    assert seen_positions(model) == [None] * 3


def test_attention_is_that_of_a_softmax_written_out() -> None:
    attention = TokenPose(TokenPoseConfig(**SMALL | {"scale": "dim"})).blocks[0].attn
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.3)
    tokens = torch.randn(2, 33, 32)
    queries, keys, values = (part.unflatten(-1, (4, 8)).transpose(1, 2) for part in attention.qkv(tokens).split(32, -1))
    weights = (queries @ keys.mT * 32**-0.5).softmax(dim=-1)  # scaled by the whole width, not by that of a head
    by_hand = attention.proj((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(by_hand, attention(tokens))


def test_the_first_and_last_third_reach_the_head_of_tokenpose_l() -> None:
    model = TokenPose(TokenPoseConfig(**SMALL | {"readouts": 3})).eval()
    inputs: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []
    model.mlp_head.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    for block in model.blocks:
        block.register_forward_hook(lambda _, args, out: outputs.append(out))
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 48))
    assert torch.equal(inputs[0], torch.cat([each[:, :17] for each in outputs], dim=-1))


@pytest.mark.parametrize("name", ["tokenpose_s_v1", "tokenpose_t", "tokenpose_b"])
def test_the_bare_call_finds_the_stack_and_the_token_groups(name: str) -> None:
    overrides = {} if name == "tokenpose_t" else {"image_size": (128, 96)}
    model = wrap_cyclic(create_pose_model(name, **overrides), 2, "sdpose")
    assert (model.cyclic.stack.path, model.cyclic.stack.depth) == ("blocks", 12)
    out = model.train()(torch.randn(2, 3, *model.config.image_size))
    assert set(out.losses) == {"token_keypoint", "token_visual"}
    visual = 256 if name == "tokenpose_t" else 64
    assert out.tokens[0].shape == (2, 17 + visual, 192)


def test_tokenpose_l_needs_the_path_which_the_refusal_names() -> None:
    with torch.device("meta"):
        model = create_pose_model("tokenpose_l_d6")
    with pytest.raises(StackError, match='blocks="blocks": 6 x TokenBlock'):
        wrap_cyclic(model, 2)


def test_cycles_of_tokenpose_l_each_read_all_thirds() -> None:
    config = TokenPoseConfig(**SMALL | {"readouts": 3})
    model = wrap_cyclic(TokenPose(config), 2, blocks="blocks").train()
    model.backbone.eval()
    images = torch.randn(2, 3, 64, 48)
    out = model(images)
    # By hand: the same layers again on the raw output, no positions in front of the first of each part.
    tokens, read = out.tokens[0], []
    for block in copy.deepcopy(model.blocks):
        tokens = block(tokens, None)
        read.append(tokens[:, :17])
    torch.testing.assert_close(model.mlp_head(torch.cat(read, dim=-1)), out[1])


def test_state_dicts_hold_the_frozen_table() -> None:
    model = create_pose_model("sdpose_s_v1", image_size=(128, 96))
    assert "pos_embedding" in model.state_dict()
    assert not model.pos_embedding.requires_grad


def test_heatmap_loss_by_hand() -> None:
    predicted, target = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    weight = torch.tensor([[1.0, 0.0, 1.0], [0.5, 1.0, 0.0]])
    want = sum((predicted[b, k] - target[b, k]).square().sum() * weight[b, k] for b in range(2) for k in range(3)) / (
        2 * 3 * 4 * 5
    )
    loss = HeatmapLoss()
    torch.testing.assert_close(loss(predicted, target, weight), want)
    torch.testing.assert_close(loss(predicted, target, weight[..., None]), want)
    torch.testing.assert_close(loss(predicted, target), (predicted - target).square().mean())
    with pytest.raises(ValueError, match="differ in shape"):
        loss(predicted, target[:, :2], weight)
    with pytest.raises(ValueError, match="target weights of shape"):
        loss(predicted, target, weight[:, :2])


def test_overrides_reach_the_network_and_the_plugins() -> None:
    config = pose_model_config("sdpose_b", 14, stage1_width=32, cycles=3, distill="exits")
    assert (config.network.stage1_width, config.network.num_keypoints) == (32, 14)
    assert (config.cycles, config.distill) == (3, "exits")
    assert pose_model_config("sdpose_b").network.stage1_width == 64
