"""Multi-view PPT against the single-view model, attention written out by hand, and hand-computed rays and rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("timm")

from cycledistill import unwrap_cyclic, wrap_cyclic
from cycledistill.integrations.human36m.data.cameras import Camera, ring_of_cameras
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.multiview.config import MultiViewConfig
from cycledistill.integrations.human36m.multiview.detection import decode_joints, joint_detection_rate
from cycledistill.integrations.human36m.multiview.model import (
    MultiViewPPT,
    create_multiview,
    merge_views,
    split_keypoints,
)
from cycledistill.integrations.human36m.multiview.rays import patch_rays, ray_directions
from cycledistill.prune.wrap import unwrap_pruning

SMALL = {
    "num_keypoints": 3, "image_size": (32, 32), "backbone": "none", "patch_size": (8, 8), "dim": 16, "depth": 5,
    "heads": 2, "prune_layers": (1, 2), "keep": 0.5,
}  # fmt: skip


def made(seed: int = 0, **overrides: object) -> MultiViewPPT:
    """A small model with weights large enough that nothing hides."""
    torch.manual_seed(seed)
    model = create_multiview(**{**SMALL, "ray_encoding": False, **overrides}).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.2
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.data = centre + spread * torch.randn(parameter.shape, generator=generator)
    return model


def seen(count: int, batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(batch, 3, 32, 32, generator=generator) for _ in range(count)]


def looks(count: int, batch: int = 2) -> dict[str, list[Tensor]]:
    generator = torch.Generator().manual_seed(8)
    rays = [torch.randn(batch, 16, 3, generator=generator) for _ in range(count)]
    return {"rays": rays, "centers": [torch.randn(batch, 3, generator=generator) for _ in range(count)]}


def by_hand(block: torch.nn.Module, x: Tensor, heads: int) -> Tensor:
    """One layer, head by head, with the softmax written out."""
    dim = x.shape[-1]
    normed = torch.nn.functional.layer_norm(x, (dim,), block.norm1.weight, block.norm1.bias, 1e-5)
    queries, keys, values = (normed @ block.attn.qkv.weight.T).split(dim, dim=-1)
    mixed = []
    for own in torch.arange(dim).split(dim // heads):
        scores = torch.exp(queries[..., own] @ keys[..., own].mT / math.sqrt(dim))
        mixed.append(scores / scores.sum(dim=-1, keepdim=True) @ values[..., own])
    x = x + torch.cat(mixed, dim=-1) @ block.attn.proj.weight.T + block.attn.proj.bias
    normed = torch.nn.functional.layer_norm(x, (dim,), block.norm2.weight, block.norm2.bias, 1e-5)
    hidden = normed @ block.mlp.fc1.weight.T + block.mlp.fc1.bias
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    return x + hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias


def kept_of_view(model: MultiViewPPT, view: Tensor) -> tuple[Tensor, list[list[int]]]:
    """Tokens of one view in front of the fused layers, and which patches they are, from the model's hooks."""
    entered: list[Tensor] = []
    hook = model.blocks[model.config.alone].register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    model([view])
    hook.remove()
    return entered[0], model.pruning.index.tolist()


@torch.no_grad()
def test_fused_layers_attend_over_the_kept_tokens_of_all_views_with_their_positions_and_rays() -> None:
    model, views, places = made(ray_encoding=True, fused_layers=2), seen(3), looks(3)
    joints = model.config.num_keypoints
    alone = made(fused_layers=2)  # without rays: what a view is before it meets the others does not depend on them
    assert not alone.load_state_dict(model.state_dict(), strict=False).missing_keys
    got = model(views, **places)
    tables = []
    tokens = []
    for number, view in enumerate(views):
        state, kept = kept_of_view(alone, view)
        direction = places["rays"][number] - places["centers"][number][:, None]
        direction = direction / direction.square().sum(-1, keepdim=True).sqrt()
        code = direction @ model.pos_3d_linear.weight.T + model.pos_3d_linear.bias + model.pos_embedding
        assert state.shape[1] - joints == 4 == len(kept[0])  # 16 -> 8 -> 4
        tokens.append(state)
        tables.append(torch.stack([code[sample, index] for sample, index in enumerate(kept)]))
    for sample in range(2):
        first = torch.cat([state[sample, :joints] for state in tokens])
        x = torch.cat([first, *(state[sample, joints:] for state in tokens)])
        pos = torch.cat([torch.zeros_like(first), *(table[sample] for table in tables)])
        for block in model.blocks[-2:]:
            x = by_hand(block, (x + pos)[None], heads=2)[0]
        for number, maps in enumerate(got):
            expected = model.mlp_head(x[None, number * joints : (number + 1) * joints])[0]
            torch.testing.assert_close(maps[sample], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_one_view_is_the_single_view_model() -> None:
    fused, apart = made(fused_layers=2), made(fused_layers=0)
    apart.load_state_dict(fused.state_dict())
    for one in seen(2):
        torch.testing.assert_close(fused([one])[0], apart([one])[0], rtol=1e-5, atol=1e-6)
    both = fused(seen(2))
    assert not torch.allclose(both[0], fused([seen(2)[0]])[0], atol=1e-3)  # two views do see each other


@pytest.mark.slow
@torch.no_grad()
def test_a_view_is_the_single_view_ppt_of_the_pose_models() -> None:
    """Against another implementation in this project, which the published code's golden values have passed."""
    pytest.importorskip("torchvision")
    from cycledistill.integrations.coco.models.registry import create_pose_model

    torch.manual_seed(0)
    other = create_pose_model("ppt_s_original", image_size=(256, 256), patch_size=(4, 4)).eval()
    for module in other.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    ours = create_multiview(ray_encoding=False).eval()
    ours.load_state_dict(other.state_dict())
    view = torch.randn(1, 3, 256, 256)
    expected = other(view)
    torch.testing.assert_close(ours([view])[0], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert set(ours.pruning.index[0].tolist()) <= set(range(256))
    assert ours.pruning.index.shape == (1, 89)


@torch.no_grad()
def test_keeping_all_tokens_is_exact() -> None:
    views = seen(2)
    pruned, plain = made(keep=1.0), made(prune_layers=())
    plain.load_state_dict(pruned.state_dict())
    assert all(map(torch.equal, pruned(views), plain(views)))
    pruned.pruning.keep = 0.5
    assert not torch.equal(pruned(views)[0], plain(views)[0])
    assert all(map(torch.equal, unwrap_pruning(pruned)(views), plain(views)))


@torch.no_grad()
def test_samples_and_the_order_of_views() -> None:
    model, views, places = made(ray_encoding=True), seen(3), looks(3)
    straight = model(views, **places)
    back = model(views[::-1], **{name: entries[::-1] for name, entries in places.items()})
    for one, other in zip(straight, back[::-1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    single = model([view[1:] for view in views], **{name: [e[1:] for e in entries] for name, entries in places.items()})
    torch.testing.assert_close(single[2], straight[2][1:], rtol=1e-4, atol=1e-5)


def test_a_loss_on_one_view_reaches_the_others_only_through_fusion() -> None:
    for fused, reached in ((2, True), (0, False)):
        model, views = made(fused_layers=fused), [view.requires_grad_() for view in seen(2)]
        model(views)[0].square().sum().backward()
        assert bool(views[1].grad is not None and views[1].grad.any()) is reached


def test_training_moves_the_ray_code_and_leaves_the_table() -> None:
    model = made(ray_encoding=True).train()
    sum(maps.square().mean() for maps in model(seen(2), **looks(2))).backward()
    missing = [name for name, each in model.named_parameters() if each.requires_grad and each.grad is None]
    assert missing == []
    assert model.pos_3d_linear.weight.grad.abs().sum() > 0
    assert not model.pos_embedding.requires_grad


def test_cycles_of_the_single_view_layers() -> None:
    model, views = made(), seen(2)
    with torch.no_grad():
        before = model(views)
    wrap_cyclic(model, cycles=2, blocks="blocks[0:3]")
    with torch.no_grad():
        assert all(map(torch.equal, model(views), before))
    out = model.train()(views)
    assert len(out) == 2
    assert all(map(torch.equal, out[0], before))
    assert not torch.equal(out[1][0], before[0])
    unwrap_cyclic(model)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.usefixtures("cuda_in_use")
def test_compiled_whole() -> None:
    model, views, places = made(ray_encoding=True), seen(2), looks(2)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for one, other in zip(compiled(views, **places), model(views, **places), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_state_dict_of_the_published_model() -> None:
    keys = create_multiview().state_dict().keys()
    assert len(keys) == 236
    assert {"pos_3d_linear.weight", "pos_3d_linear.bias"} <= keys


def test_merged_tokens_stand_as_published() -> None:
    tokens = torch.arange(2 * 3 * 5).view(6, 5, 1)  # two samples in three views, of two keypoints and three patches
    merged = merge_views(tokens, views=3, keypoints=2)
    assert merged[1, :, 0].tolist() == [5, 6, 15, 16, 25, 26, 7, 8, 9, 17, 18, 19, 27, 28, 29]
    assert torch.equal(split_keypoints(merged, views=3, keypoints=2), tokens[:, :2])


# A camera at (1, 2, 3) that looks along the world's x axis, up being y: its x is the world's z, its y points down.
CAMERA = Camera(
    "side", np.array([[0.0, 0, 1], [0, -1, 0], [1, 0, 0]]), np.array([1.0, 2, 3]), np.array([100.0, 50]),
    np.array([8.0, 4]), (16, 8),
)  # fmt: skip


def test_rays_by_hand() -> None:
    rays = patch_rays(CAMERA, grid=(1, 2), patch=(8, 8))
    # Middles of the two patches: (3.5, 3.5) and (11.5, 3.5); in the plane (-.045, -.01) and (.035, -.01).
    assert rays == pytest.approx(np.array([[2, 2.01, 2.955], [2, 2.01, 3.035]]))
    cut = np.array(
        [[2.0, 0, -4], [0, 2, -2]]
    )  # twice as large, from (2, 1): the middles are (3.75, 2.75), (7.75, 2.75)
    cropped = patch_rays(CAMERA, grid=(1, 2), patch=(8, 8), crop=cut)
    assert cropped == pytest.approx(np.array([[2, 2.025, 2.9575], [2, 2.025, 2.9975]]))


@pytest.mark.parametrize(
    "sizes", [(16, (8, 8)), ((16, 16), 8), ((0, 4), (8, 8)), ((4, 4, 4), (8, 8)), ((2.0, 2), (8, 8))]
)
def test_grids_and_patches_are_pairs(sizes: tuple[object, object]) -> None:
    with pytest.raises(LiftingDataError, match=r"(grid|patch)=.*: two whole numbers above 0"):
        patch_rays(CAMERA, *sizes)


def test_rays_meet_what_the_camera_sees() -> None:
    camera = ring_of_cameras(np.array([0.3, 1.0, -0.2]), 3, first_angle=0.4)[1]
    rays = patch_rays(camera, grid=(4, 4), patch=(250, 250))
    pixels = camera.project(camera.to_camera(camera.position + 7.5 * (rays - camera.position)))
    middles = np.arange(4) * 250 + 124.5
    assert pixels == pytest.approx(np.stack([np.tile(middles, 4), np.repeat(middles, 4)], -1))


def test_directions_have_length_one() -> None:
    rays, centers = torch.tensor([[[3.0, 4, 1], [0, 0, 1]]]), torch.tensor([[0.0, 0, 1]])
    assert torch.equal(ray_directions(rays, centers), torch.tensor([[[0.6, 0.8, 0], [0, 0, 0]]]))


@pytest.mark.parametrize(
    ("crop", "message"),
    [(np.eye(3), r"crop of shape \(3, 3\): \(2, 3\)"), (np.ones((2, 3)), "cannot be undone"),
     (np.array([[1.0, 0, np.nan], [0, 1, 0]]), "finite")],
)  # fmt: skip
def test_crops_that_cannot_be_undone(crop: np.ndarray, message: str) -> None:
    with pytest.raises(LiftingDataError, match=message):
        patch_rays(CAMERA, (1, 2), (8, 8), crop)


def test_detection_rate_by_hand() -> None:
    target = torch.zeros(2, 3, 2)
    predicted = torch.tensor([[[12.8, 0.0], [0, 12.81], [7, 7]], [[-9, -9], [0, 0], [30, 0]]])
    assert joint_detection_rate(predicted, target).tolist() == [1.0, 0.5, 0.5]  # 12.8 counts, |(-9, -9)| = 12.73 too
    assert joint_detection_rate(predicted, target, head_size=10).tolist() == [0.0, 0.5, 0.0]
    mask = torch.tensor([[True, True, False], [True, False, True]])
    assert joint_detection_rate(predicted, target, mask=mask).tolist() == [1.0, 0.0, 0.0]
    with pytest.raises(ValueError, match=r"shapes \(2, 3, 2\) and \(2, 2, 2\)"):
        joint_detection_rate(predicted, target[:, :2])
    with pytest.raises(ValueError, match="ndarray is given; tensors"):
        joint_detection_rate(predicted.numpy(), target)
    with pytest.raises(ValueError, match="head_size=0"):
        joint_detection_rate(predicted, target, head_size=0)
    with pytest.raises(ValueError, match=r"mask of shape \(2,\)"):
        joint_detection_rate(predicted, target, mask=torch.ones(2))


def test_joints_at_the_maxima_a_quarter_towards_the_larger_neighbour() -> None:
    maps = torch.zeros(1, 3, 16, 24)
    maps[0, 0, 9, 5] = 1
    maps[0, 1, 4, 20], maps[0, 1, 4, 21] = 1, 0.9
    maps[0, 2, 3, 8], maps[0, 2, 2, 8], maps[0, 2, 4, 8] = 0.5, 0.2, 0.1
    found, scores = decode_joints(maps)
    assert found[0].tolist() == [[5, 9], [20.25, 4], [8, 2.75]]
    assert scores[0].tolist() == [1, 1, 0.5]
    for wrong in (maps[0], [maps], maps.numpy()):
        with pytest.raises(ValueError, match=r"heatmaps: .*\(B, K, H, W\) is expected"):
            decode_joints(wrong)


def test_maxima_at_the_border_stay() -> None:
    """Against the decoder of the pose models, which was held against the published code."""
    pytest.importorskip("torchvision")
    from cycledistill.integrations.coco.evaluation.decode import decode_heatmaps

    maps = torch.rand(2, 50, 6, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(decode_joints(maps)[0], decode_heatmaps(maps, method="quarter")[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": []}, r"no view is given; a list with one tensor \(B, 3, 32, 32\) for each view"),
        ({"views": None}, r"views: None is given; a list with one tensor \(B, 3, 32, 32\)"),
        ({"views": 3}, "views: one int is given; a list"),
        ({"views": "front"}, "views: one str is given; a list"),
        ({"views": dict(enumerate(seen(2)))}, r"views: one dict is given; .*list\(views.values\(\)\)"),
        ({"views": np.zeros((2, 3, 32, 32))}, r"one ndarray \(2, 3, 32, 32\) is given; a list"),
        ({"views": [np.zeros((2, 3, 32, 32))] * 2}, r"views\[0\] is one ndarray \(2, 3, 32, 32\): .*from_numpy"),
        ({"views": [1, 2]}, r"views\[0\] is one int: a tensor \(B, 3, 32, 32\) is expected"),
        ({"views": [seen(1)[0], None]}, r"views\[1\] is None: a tensor"),
        ({"views": torch.zeros(2, 3, 32, 32)}, r"one Tensor \(2, 3, 32, 32\) is given; a list .*; \[views\] is a list"),
        ({"views": torch.zeros(2, 2, 3, 32, 32)}, r"one Tensor \(2, 2, 3, 32, 32\) .*; list\(views\)"),
        ({"views": [torch.zeros(2, 3, 32, 32), torch.zeros(1, 3, 32, 32)]}, r"views\[1\] has shape \(1, 3, 32, 32\)"),
        ({"views": [torch.zeros(2, 3, 32, 40)] * 2}, r"views\[0\] .* \(2, 3, 32, 32\) is expected"),
        ({"views": [torch.tensor(1.0)] * 2}, r"views\[0\] has shape \(\): \(B, 3, 32, 32\)"),
        ({"views": [view.double() for view in seen(2)]}, r"views\[0\] is torch.float64: torch.float32, .*\.to\("),
        ({"views": [view.to(torch.uint8) for view in seen(2)]}, r"views\[0\] is torch.uint8"),
        ({"views": [seen(1)[0], seen(1)[0].to("meta")]}, r"views\[1\] is on meta, .*\.to\('cpu'\)"),
        ({"rays": None}, "this model encodes the rays"),
        ({"centers": None}, "this model encodes the rays"),
        ({"rays": looks(1)["rays"]}, r"rays: 1 entries for 2 views; one tensor \(B, 16, 3\) for each view"),
        ({"rays": torch.zeros(2, 16, 3)}, "rays: one Tensor .*; .rays. is a list"),
        ({"rays": np.zeros((2, 2, 16, 3))}, "rays: one ndarray"),
        ({"rays": [np.zeros((2, 16, 3))] * 2}, r"rays\[0\] is one ndarray \(2, 16, 3\): .*from_numpy.*float32"),
        ({"rays": [torch.zeros(2, 15, 3)] * 2}, r"rays\[0\] has shape \(2, 15, 3\): \(2, 16, 3\)"),
        ({"rays": [ray.double() for ray in looks(2)["rays"]]}, r"rays\[0\] is torch.float64: torch.float32"),
        ({"rays": [ray.to("meta") for ray in looks(2)["rays"]]}, r"rays\[0\] is on meta"),
        ({"centers": [torch.zeros(2, 2)] * 2}, r"centers\[0\] has shape \(2, 2\): \(2, 3\)"),
        ({"centers": [torch.zeros(3)] * 2}, r"centers\[0\] has shape \(3,\): \(2, 3\)"),
        ({"centers": [torch.zeros(2, 3, dtype=torch.int64)] * 2}, r"centers\[0\] is torch.int64"),
        ({"centers": {"a": 1}}, "centers: one dict is given"),
    ],
)  # fmt: skip
def test_bad_views(change: dict[str, object], message: str) -> None:
    model = made(ray_encoding=True)
    with pytest.raises(ValueError, match=message):
        model(**{"views": seen(2), **looks(2), **change})


@torch.no_grad()
def test_mixed_precision_takes_what_it_casts() -> None:
    model, views, places = made(ray_encoding=True), seen(2), looks(2)
    with torch.autocast("cpu", torch.bfloat16):
        model([views[0].bfloat16(), views[1]], **places)
    model.bfloat16()([view.bfloat16() for view in views], **{k: [e.bfloat16() for e in v] for k, v in places.items()})
    with pytest.raises(ValueError, match="torch.float32: torch.bfloat16"):
        model(views, **places)


def test_rays_for_a_model_without_their_code() -> None:
    with pytest.raises(ValueError, match="without ray encoding: build it with ray_encoding=True"):
        made()(seen(2), **looks(2))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": 0}, "depth=0"),
        ({"image_size": (250, 256)}, "the height 250 is not divisible by 16"),
        ({"image_size": 256}, "image_size=256: height and width"),
        ({"dim": 190}, "dim=190 is not divisible by heads=8"),
        ({"dim": 6, "heads": 2}, "divisible by 4"),
        ({"keep": 0}, "keep=0: a fraction"),
        ({"fused_layers": 12}, "fused_layers=12: a whole number from 0 to 11"),
        ({"prune_layers": (3, 10)}, r"10 is none of the layers on single views, 0 to 9"),
        ({"prune_layers": 3}, r"prune_layers=3: numbers of layers, each once, are expected, as \(3, 6, 9\)"),
        ({"prune_layers": ("a",)}, r"prune_layers=\('a',\): numbers"),
        ({"prune_layers": "369"}, "prune_layers='369': numbers"),
        ({"prune_layers": None}, r"prune_layers=None: .*\(\) prunes nothing"),
        ({"prune_layers": (3.0, 6)}, "prune_layers=.3.0, 6.: numbers"),
        ({"prune_layers": (3, 3)}, "each once"),
        ({"prune_layers": (-1,)}, "-1 is none of the layers"),
        ({"fused_layers": 0}, "set ray_encoding=False"),
        ({"backbone": "hrnet"}, '"stem", "none" or "features"'),
        ({"in_channels": 17}, "the stem takes 3"),
        ({"head_hidden": 0}, "head_hidden=0"),
    ],
)
def test_bad_configurations(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiViewConfig(**fields)


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="no option 'fused_layer'; the nearest is 'fused_layers'"):
        create_multiview(fused_layer=2)
