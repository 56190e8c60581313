"""Every pose golden: published code's results for known weights, through our converter and our model."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cycledistill import CycleLoss, CycleOutput, Distill, unwrap_cyclic
from cycledistill.integrations.coco import HeatmapLoss, TokenPose, create_pose_model
from cycledistill.integrations.coco.losses.targets import heatmap_targets
from cycledistill.integrations.coco.weights.key_map import from_official

GOLDEN = Path(__file__).parents[2] / "golden"
CYCLIC = {"sdpose_t": 3, "sdpose_s_v1": 2}
PARAMETERS = {
    "keypoint_token": "keypoint_token",
    "patch_bias": "patch_to_embedding.bias",
    "l0_qkv": "blocks.0.attn.qkv.weight",
    "stem_conv1": "backbone.conv1.weight",
}


@cache
def golden(case: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{case}.npz") as file:
        return {name: file[name] for name in file.files}


def official_state(fill: Any, case: str, model: TokenPose) -> dict[str, torch.Tensor]:
    filled = fill.weights(case)
    table = model.pos_embedding.detach()
    return {key: table if value is None else torch.from_numpy(np.asarray(value)) for key, value in filled.items()}


def filled_model(fill: Any, case: str, name: str, **overrides: Any) -> TokenPose:
    model = create_pose_model(name, **overrides)
    model.load_state_dict(from_official(official_state(fill, case, model), model.config).model, strict=True)
    return model


def trained(model: TokenPose, images: torch.Tensor) -> CycleOutput:
    """A training forward with BatchNorm in eval mode, as the goldens were made."""
    model.train()
    model.backbone.eval()
    return model(images)


def assert_close(got: torch.Tensor | float, want: np.ndarray, name: str) -> None:
    """Within 1e-5 of the largest value; the goldens' own gate is 1e-4."""
    want = np.asarray(want, dtype=np.float64)
    error = np.abs(np.asarray(torch.as_tensor(got).detach(), dtype=np.float64) - want).max() / np.abs(want).max()
    assert error < 1e-5, f"{name}: {error:.1e}"


def assert_heatmaps(maps: torch.Tensor, case: str, prefix: str) -> None:
    want = golden(case)
    assert_close(maps[:, ::4, ::8, ::8], want[f"{prefix}_hm_slice"], "slice")
    assert_close(maps.sum((2, 3)), want[f"{prefix}_hm_sum"], "sum")
    assert_close(maps.abs().sum((2, 3)), want[f"{prefix}_hm_abssum"], "sum of magnitudes")
    assert np.array_equal(maps.flatten(2).argmax(-1).numpy(), want[f"{prefix}_hm_argmax"])


@pytest.fixture(scope="module")
def images(fill: Any) -> torch.Tensor:
    return torch.from_numpy(fill.image())


@pytest.fixture(scope="module")
def target(fill: Any) -> tuple[torch.Tensor, torch.Tensor]:
    joints, visible = map(torch.from_numpy, fill.joints())
    return heatmap_targets(joints, visible[..., 0], (256, 192), (64, 48))


@pytest.mark.parametrize(
    ("case", "name", "prefix"),
    [
        ("tokenpose_s", "tokenpose_s_v1_original", "out"),
        ("sdpose_s_v1", "tokenpose_s_v1", "c1"),
        ("sdpose_s_v1", "sdpose_s_v1", "c1"),
        ("sdpose_t", "sdpose_t", "c1"),
        ("ppt_s_sdpose_repo", "ppt_s", "out"),
    ],
)
def test_eval_gives_the_first_cycles_heatmaps(
    fill: Any, images: torch.Tensor, case: str, name: str, prefix: str
) -> None:
    model = filled_model(fill, case, name).eval()
    with torch.no_grad():
        assert_heatmaps(model(images), case, prefix)


@pytest.mark.parametrize("case", CYCLIC)
def test_every_cycle_tokens_and_features(fill: Any, images: torch.Tensor, case: str) -> None:
    model, want = filled_model(fill, case, case), golden(case)
    with torch.no_grad():
        features = model.backbone.eval()(images)
        out = trained(model, images)
    assert_close(features[:, ::16, ::8, ::8], want["feat_slice"], "features")
    assert_close(model.pos_embedding[:, ::8], want["pos_embedding"], "sine table")
    assert len(out) == CYCLIC[case]
    for cycle, (maps, tokens) in enumerate(zip(out.outputs, out.tokens, strict=True), start=1):
        assert_heatmaps(maps, case, f"c{cycle}")
        keypoint, visual = tokens[:, model.token_groups["keypoint"]], tokens[:, model.token_groups["visual"]]
        assert_close(keypoint, want[f"c{cycle}_kpt"], f"keypoint tokens of cycle {cycle}")
        assert_close(visual[:, :: visual.shape[1] // 16], want[f"c{cycle}_vis_slice"], f"visual tokens of {cycle}")
        assert_close(visual.mean(-1), want[f"c{cycle}_vis_mean"], f"mean visual tokens of {cycle}")


@pytest.mark.parametrize("case", CYCLIC)
def test_losses_of_the_sdpose_preset(fill: Any, images: torch.Tensor, target: Any, case: str) -> None:
    model, want = filled_model(fill, case, case), golden(case)
    with torch.no_grad():
        out = trained(model, images)
        parts = CycleLoss(HeatmapLoss()).parts(out, *target)
    per_cycle = [parts[f"task_{cycle}"] for cycle in range(1, CYCLIC[case] + 1)]
    assert_close(torch.stack(per_cycle), want["loss_hm_per_cycle"], "heatmap loss of each cycle")
    assert_close(sum(per_cycle), want["loss_heatmap_loss"], "heatmap loss")
    assert_close(parts["token_visual"], want["loss_vis_dist_loss"], "visual token loss")
    assert_close(parts["token_keypoint"], want["loss_kpt_dist_loss"], "keypoint token loss")
    assert set(parts) == {*(f"task_{cycle}" for cycle in range(1, len(out) + 1)), "token_visual", "token_keypoint"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["heatmap", "tokens_nodetach", "tokens_detach"])
@pytest.mark.parametrize("case", CYCLIC)
def test_gradients(fill: Any, images: torch.Tensor, target: Any, case: str, kind: str) -> None:
    # Weight 1, as in the goldens. A callable, for the library refuses to detach the teacher of a plain MSE.
    scheme = Distill(token_weight=1.0, token_loss=lambda s, t: F.mse_loss(s, t), detach=kind == "tokens_detach")
    # In double precision: some processors' float32 kernels are off by 3e-4 in the stem's gradients.
    model, want = filled_model(fill, case, case, distill=scheme).double(), golden(case)
    out = trained(model, images.double())
    parts = CycleLoss(HeatmapLoss()).parts(out, *(each.double() for each in target))
    terms = [term for name, term in parts.items() if name.startswith("task" if kind == "heatmap" else "token")]
    sum(terms[1:], terms[0]).backward()
    last = {"lastff_w2": f"blocks.{model.config.depth - 1}.mlp.fc2.weight"}
    for name, own in (PARAMETERS | last).items():
        gradient = model.get_parameter(own).grad
        flat = torch.zeros(model.get_parameter(own).numel()) if gradient is None else gradient.flatten()
        want_slice, want_norm = want[f"grad_{kind}_{name}"], want[f"grad_{kind}_{name}_norm"]
        assert_close(flat[:: max(1, flat.numel() // 64)][:64], want_slice, name)
        assert_close(flat.norm(), want_norm, f"norm of {name}")


def test_attached_and_detached_teachers_differ() -> None:
    want = golden("sdpose_s_v1")
    assert want["grad_tokens_nodetach_keypoint_token_norm"] < 0.6 * want["grad_tokens_detach_keypoint_token_norm"]


@pytest.mark.slow
def test_unwrapped_model_is_the_plain_tokenpose(fill: Any, images: torch.Tensor) -> None:
    cyclic = filled_model(fill, "sdpose_s_v1", "sdpose_s_v1").eval()
    plain = create_pose_model("tokenpose_s_v1").eval()
    plain.load_state_dict(cyclic.state_dict(), strict=True)
    with torch.no_grad():
        in_cycles, alone = cyclic(images), plain(images)
    assert torch.equal(in_cycles, alone)
    assert type(unwrap_cyclic(cyclic)) is TokenPose
    assert list(cyclic.state_dict()) == list(plain.state_dict())


@pytest.mark.slow
def test_sdpose_with_ppt_prunes_in_the_first_cycle_alone(fill: Any, images: torch.Tensor) -> None:
    case = "ppt_s_sdpose_repo"
    model, want = filled_model(fill, case, "sdpose_s_v1_ppt"), golden(case)
    with torch.no_grad():
        out = trained(model, images)
    for cycle, (maps, tokens) in enumerate(zip(out.outputs, out.tokens, strict=True), start=1):
        assert tokens.shape == (2, 17 + 89, 192)
        assert_heatmaps(maps, case, f"comb_c{cycle}")
        assert_close(tokens[:, :17], want[f"comb_c{cycle}_kpt"], f"keypoint tokens of cycle {cycle}")
    assert_close(out.losses["token_visual"] / 5e-6, want["comb_raw_mse_vis"], "visual token loss")
    assert_close(out.losses["token_keypoint"] / 5e-6, want["comb_raw_mse_kpt"], "keypoint token loss")
