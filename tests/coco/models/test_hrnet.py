"""HRNet against timm's, which is written independently and shares the names of the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from cycledistill.integrations.coco import CheckpointError, create_pose_model, load_imagenet_backbone
from cycledistill.recipes.weights.files import write_weights

timm = pytest.importorskip("timm")


@pytest.fixture(scope="module")
def hrnet_w32() -> nn.Module:
    """timm's HRNet with weights and statistics at which every branch counts."""
    torch.manual_seed(0)
    model = timm.create_model("hrnet_w32").eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


@pytest.fixture(scope="module")
def file(hrnet_w32: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "hrnet_w32.safetensors"
    write_weights(hrnet_w32.state_dict(), path)
    return path


def stage3_of(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = model.stage3.register_forward_hook(lambda _, args, out: seen.append(out[0]))
    with torch.no_grad():
        model(images)
    handle.remove()
    return seen[0]


@pytest.mark.slow
def test_features_equal_those_of_timm(hrnet_w32: nn.Module, file: Path) -> None:
    model = create_pose_model("tokenpose_b", image_size=(128, 96)).eval()
    load_imagenet_backbone(model, file)
    images = torch.randn(2, 3, 128, 96)
    want = stage3_of(hrnet_w32, images)
    with torch.no_grad():
        got = model.backbone(images)
    assert got.shape == (2, 32, 32, 24)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * want.abs().max().item())


def test_the_stem_takes_its_part(hrnet_w32: nn.Module, file: Path) -> None:
    model = create_pose_model("sdpose_s_v1", image_size=(128, 96)).eval()
    load_imagenet_backbone(model, file)
    assert torch.equal(model.backbone.layer1[3].conv2.weight, hrnet_w32.layer1[3].conv2.weight)


def test_a_narrow_first_stage_is_refused_with_the_reason_and_left_alone(file: Path) -> None:
    model = create_pose_model("sdpose_b_narrow", image_size=(128, 96))
    before = model.backbone.conv1.weight.clone()
    with pytest.raises(CheckpointError, match=r"of another shape: layer1.0.conv1.weight.*stage1_width is 32.*need 64"):
        load_imagenet_backbone(model, file)
    assert torch.equal(model.backbone.conv1.weight, before)


def test_another_width_is_refused(file: Path) -> None:
    with torch.device("meta"):
        model = create_pose_model("tokenpose_l_d6")
    with pytest.raises(CheckpointError, match="does not fit the backbone 'hrnet_w48'"):
        load_imagenet_backbone(model, file)


@pytest.mark.slow
def test_nothing_is_skipped_but_by_name(hrnet_w32: nn.Module, tmp_path: Path) -> None:
    state = hrnet_w32.state_dict()
    model = create_pose_model("tokenpose_b", image_size=(128, 96))
    path = tmp_path / "file.pth"
    write_weights({**state, "stage5.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"1 unknown: stage5\.weight"):
        load_imagenet_backbone(model, path)
    write_weights({name: tensor for name, tensor in state.items() if name != "layer1.2.bn1.bias"}, path)
    with pytest.raises(CheckpointError, match=r"1 missing: layer1\.2\.bn1\.bias"):
        load_imagenet_backbone(model, path)


@pytest.mark.slow
def test_old_files_may_lack_the_batch_counters(hrnet_w32: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    state = {name: each for name, each in hrnet_w32.state_dict().items() if "num_batches" not in name}
    write_weights(state, path)
    model = create_pose_model("tokenpose_b", image_size=(128, 96))
    load_imagenet_backbone(model, path)
    assert torch.equal(model.backbone.stage3[3].fuse_layers[0][2][0].weight, state["stage3.3.fuse_layers.0.2.0.weight"])


def test_a_model_without_backbone_has_nothing_to_load(file: Path) -> None:
    with torch.device("meta"):
        model = create_pose_model("tokenpose_t")
    with pytest.raises(CheckpointError, match="has no backbone"):
        load_imagenet_backbone(model, file)
