"""Multi-view weights: the authors' names and back, and a start from a single-view PPT-S of the pose models."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

pytest.importorskip("timm")
pytest.importorskip("torchvision")

from cycledistill.commands.frame import main
from cycledistill.integrations.coco.data.joints import COCO
from cycledistill.integrations.coco.models.registry import create_pose_model
from cycledistill.integrations.coco.models.tokenpose import TokenPose
from cycledistill.integrations.coco.weights.key_map import FORMATS
from cycledistill.integrations.coco.weights.key_map import to_official as pose_to_official
from cycledistill.integrations.coco.weights.loading import save_pose_weights
from cycledistill.integrations.human36m.data.skeleton import JOINTS
from cycledistill.integrations.human36m.multiview.config import MultiViewConfig
from cycledistill.integrations.human36m.multiview.key_map import (
    multiview_from_official,
    multiview_names,
    multiview_to_official,
)
from cycledistill.integrations.human36m.multiview.model import MultiViewPPT, create_multiview
from cycledistill.integrations.human36m.multiview.start import COCO_TOKENS, start_from_coco
from cycledistill.integrations.human36m.multiview.weights import load_multiview_weights, save_multiview_weights
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.files import read_weights, write_weights

NETWORK: dict[str, Any] = {"image_size": (64, 64), "stage1_width": 4, "dim": 16, "depth": 4, "heads": 2}
SMALL = {**NETWORK, "prune_layers": (1, 2), "fused_layers": 1}
OPTIONS = [f"--option={name}={list(value) if isinstance(value, tuple) else value}" for name, value in SMALL.items()]
FRESH = ["pos_3d_linear.weight", "pos_3d_linear.bias"]


def filled(model: torch.nn.Module, seed: int = 0) -> Any:
    """Weights so large that nothing hides; the fixed table and counters stay."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and name != "pos_embedding":
            spread = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.2
            tensor.copy_(spread * torch.randn(tensor.shape, generator=generator) + ("var" in name))
            if "var" in name:
                tensor.abs_()
    return model.eval()


def made(seed: int = 0, **options: Any) -> MultiViewPPT:
    return filled(create_multiview(**{**SMALL, **options}), seed)


def coco(**options: Any) -> TokenPose:
    fields = {**NETWORK, "patch_size": (4, 4), "prune_layers": (1, 2), **options}
    return filled(create_pose_model("ppt_s_original", **fields), seed=5)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_names_of_the_published_model() -> None:
    names = multiview_names(MultiViewConfig())
    assert len(set(names.values())) == len(names) == 236
    assert set(names.values()) >= {
        "features.keypoint_token", "features.pos_embedding", "features.pos_3d_linear.weight", "features.conv1.weight",
        "features.patch_to_embedding.bias", "features.layer1.0.downsample.1.running_var", "features.mlp_head.3.bias",
        "features.transformer.layers.11.0.norm.weight", "features.transformer.layers.10.0.fn.to_qkv.weight",
        "features.transformer.layers.0.0.fn.to_out.0.bias", "features.transformer.layers.0.1.fn.norm.bias",
        "features.transformer.layers.0.1.fn.fn.net.0.weight", "features.transformer.layers.0.1.fn.fn.net.3.bias",
    }  # fmt: skip


def test_names_are_those_of_the_single_view_files() -> None:
    """The authors' two code bases agree on names; those of the single-view one stand in another integration."""
    config = create_pose_model("ppt_s_original", image_size=(256, 256), patch_size=(4, 4)).config
    names = multiview_names(MultiViewConfig(ray_encoding=False))
    assert names == {name: FORMATS["ppt-s"].to_official(name, config) for name in names}


def test_there_and_back_loses_nothing() -> None:
    model = made()
    ours = dict(model.state_dict())
    theirs = multiview_to_official(ours, model.config)
    assert all(name.startswith("features.") for name in theirs)
    assert same(multiview_from_official(theirs, model.config), ours)


def test_every_wrong_tensor_is_named() -> None:
    model = made()
    theirs = multiview_to_official(model.state_dict(), model.config)
    theirs["features.extra"] = torch.zeros(1)
    del theirs["features.transformer.layers.2.1.fn.norm.bias"]
    theirs["features.mlp_head.1.weight"] = torch.zeros(3, 16)
    with pytest.raises(CheckpointError) as refusal:
        multiview_from_official(theirs, model.config)
    for part in (
        "1 missing: features.transformer.layers.2.1.fn.norm.bias",
        "1 unknown: features.extra",
        "features.mlp_head.1.weight (3, 16), expected (",
    ):
        assert part in str(refusal.value)
    ours = dict(model.state_dict())
    ours["blocks.9.norm1.weight"] = ours.pop("blocks.1.norm1.weight")
    with pytest.raises(CheckpointError, match=r"1 missing: blocks\.1\.norm1.*1 unknown: blocks\.9\.norm1"):
        multiview_to_official(ours, model.config)


def test_files_that_need_another_way_say_which() -> None:
    model, plain = made(), made(ray_encoding=False)
    with_rays = multiview_to_official(model.state_dict(), model.config)
    without = multiview_to_official(plain.state_dict(), plain.config)
    with pytest.raises(CheckpointError, match=r"unknown: features\.pos_3d.*build the model with ray_encoding=True"):
        multiview_from_official(with_rays, plain.config)
    with pytest.raises(CheckpointError, match=r"missing: features\.pos_3d.*start_from_coco .--from-coco"):
        multiview_from_official(without, model.config)
    with pytest.raises(CheckpointError, match="names already: load_multiview_weights"):
        multiview_from_official(model.state_dict(), model.config)
    with pytest.raises(CheckpointError, match="backbone='none': the authors' files"):
        multiview_names(MultiViewConfig(backbone="none"))


@pytest.mark.parametrize("file", ["ours.safetensors", "ours.pth", "theirs.pth"])
def test_files_are_loaded_whole(file: str, tmp_path: Path) -> None:
    model, other, path = made(), made(seed=1), tmp_path / file
    if file.startswith("ours"):
        save_multiview_weights(model, path)
    else:
        named = multiview_to_official(model.state_dict(), model.config)
        torch.save({"state_dict": {f"module.{name}": each for name, each in named.items()}}, path)
    load_multiview_weights(other, path)
    assert same(other.state_dict(), model.state_dict())


def test_weights_of_another_network_leave_the_model_as_it_was(tmp_path: Path) -> None:
    model, path = made(), tmp_path / "four.safetensors"
    before = {name: each.clone() for name, each in model.state_dict().items()}
    save_multiview_weights(made(seed=1, heads=4), path)
    with pytest.raises(CheckpointError, match="four.safetensors: .*heads=4 there, 2 here"):
        load_multiview_weights(model, path)
    save_multiview_weights(made(seed=1, num_keypoints=3), path)
    with pytest.raises(CheckpointError, match=r"keypoint_token \(1, 3, 16\), expected \(1, 17, 16\)"):
        load_multiview_weights(model, path)
    assert same(model.state_dict(), before)


@pytest.mark.parametrize("form", ["ours", "theirs"])
def test_a_start_from_coco(form: str, tmp_path: Path) -> None:
    single, model, path = coco(), made(), tmp_path / "coco.safetensors"
    rays = {name: model.state_dict()[name].clone() for name in FRESH}
    if form == "ours":
        save_pose_weights(single, path)
    else:
        write_weights(pose_to_official(single.state_dict(), single.config, "ppt-s"), path)
    assert start_from_coco(model, path) == FRESH
    expected = {**single.state_dict(), **rays}
    expected["keypoint_token"] = torch.stack([single.keypoint_token[0, keypoint] for keypoint in COCO_TOKENS])[None]
    assert same(model.state_dict(), {name: expected[name] for name in model.state_dict()})


@torch.no_grad()
def test_a_start_with_the_same_joints_predicts_what_the_single_view_model_does(tmp_path: Path) -> None:
    single, path = coco(), tmp_path / "coco.safetensors"
    save_pose_weights(single, path)
    model = made(ray_encoding=False)
    assert start_from_coco(model, path, tokens=range(17)) == []
    view = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model([view])[0], single(view), rtol=1e-4, atol=1e-4)


def test_tokens_stand_for_human36ms_joints() -> None:
    """By the names of both lists: left stays left, and what COCO lacks starts from something near it."""
    pairs = zip(JOINTS, (COCO.names[token] for token in COCO_TOKENS), strict=True)
    told = {joint: keypoint for joint, keypoint in pairs if keypoint.startswith(("left", "right"))}
    limbs = {joint: keypoint for joint, keypoint in told.items() if joint.startswith(("left", "right"))}
    assert len(limbs) == 12
    assert all(joint == keypoint for joint, keypoint in limbs.items())


def test_another_size_keeps_the_table_and_what_does_not_fit_of_the_head(tmp_path: Path) -> None:
    single, model, path = coco(image_size=(96, 64)), made(), tmp_path / "coco.safetensors"
    before = {name: each.clone() for name, each in model.state_dict().items()}
    save_pose_weights(single, path)
    fresh = start_from_coco(model, path)
    assert fresh == [*(f"mlp_head.{layer}" for layer in ("1.weight", "1.bias", "2.weight", "2.bias", "3.weight",
                     "3.bias")), *FRESH]  # fmt: skip
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in (*fresh, "pos_embedding"))
    assert torch.equal(after["mlp_head.0.weight"], single.state_dict()["mlp_head.0.weight"])
    assert torch.equal(after["blocks.3.mlp.fc1.weight"], single.state_dict()["blocks.3.mlp.fc1.weight"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "head_dim"}, "scale='head_dim', and that of the multi-view model 'dim'"),
        ({"heads": 4}, "heads=4; this model needs 2"),
        ({"position": "sine"}, "position='sine'; this model needs 'sine-full'"),
        ({"position": "learnable"}, r"pos_embedding \(1, 33, 16\), expected \(1, 16, 16\)"),
        ({"patch_size": (4, 2)}, r"patch_to_embedding.weight \(16, 128\), expected \(16, 256\)"),
        ({"depth": 5}, r"unknown: blocks\.4\."),
        ({"num_keypoints": 14}, "tokens of 14 keypoints, 0 to 13; wanted: 16"),
    ],
)
def test_a_start_that_does_not_fit(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    model, path = made(), tmp_path / "coco.safetensors"
    before = {name: each.clone() for name, each in model.state_dict().items()}
    save_pose_weights(coco(**options), path)
    with pytest.raises(CheckpointError, match=rf"coco\.safetensors: .*{message}"):
        start_from_coco(model, path)
    assert same(model.state_dict(), before)


def test_a_multi_view_file_is_no_start(tmp_path: Path) -> None:
    model, path = made(), tmp_path / "multi.pth"
    for state in (model.state_dict(), multiview_to_official(model.state_dict(), model.config)):
        write_weights(state, path)
        with pytest.raises(CheckpointError, match="of a multi-view model already: load_multiview_weights"):
            start_from_coco(model, path)


@pytest.mark.parametrize("tokens", [(0, 1), 17, range(-1, 16), ["a"] * 17])
def test_tokens_are_one_keypoint_a_joint(tokens: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="for each of the model's 17 joints the number of a keypoint"):
        start_from_coco(made(), tmp_path / "none.pth", tokens)


def test_a_file_that_does_not_tell_its_scale_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "coco.pth"
    save_pose_weights(coco(), path)
    with caplog.at_level(logging.WARNING):
        start_from_coco(made(), path)
    assert "coco.pth does not say how its attention is scaled" in caplog.text
    caplog.clear()
    single = coco()
    write_weights(pose_to_official(single.state_dict(), single.config, "ppt-s"), path)
    start_from_coco(made(), path)  # the authors' code has one scale
    assert not caplog.records


def test_the_command_converts_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = made()
    theirs, ours, again = tmp_path / "theirs.pth", tmp_path / "ours.safetensors", tmp_path / "again.pth"
    torch.save(multiview_to_official(model.state_dict(), model.config), theirs)
    assert main(["convert", "multiview", str(theirs), str(ours), *OPTIONS]) == 0
    assert f"{ours}: {len(model.state_dict())} tensors" in capsys.readouterr().out
    assert same(read_weights(ours), dict(model.state_dict()))
    with safe_open(ours, "pt") as file:
        assert file.metadata()["model"] == "multiview_ppt"
    assert main(["convert", "multiview", str(ours), str(again), "--to", "ppt", *OPTIONS]) == 0
    assert same(read_weights(again), read_weights(theirs))


def test_the_command_starts_from_coco(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    single, first, second = tmp_path / "coco.safetensors", tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    save_pose_weights(coco(), single)
    for out in (first, second):
        assert main(["convert", "multiview", str(single), str(out), "--from-coco", *OPTIONS]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("drawn anew: pos_3d_linear.weight, pos_3d_linear.bias")
    assert same(read_weights(first), read_weights(second))
    model = made()
    load_multiview_weights(model, first)
    assert torch.equal(
        model.state_dict()["keypoint_token"], coco().state_dict()["keypoint_token"][:, list(COCO_TOKENS)]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "coco.safetensors: .*names already"),
        (["--to", "ppt"], r"coco.safetensors: .*2 missing: pos_3d_linear.*--from-coco"),
        (["--to", "ppt", "--from-coco"], "leave out --to ppt"),
        (["--option", "dept=3"], "no option 'dept'; the nearest is 'depth'"),
    ],
)
def test_the_command_on_bad_input(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    single, out = tmp_path / "coco.safetensors", tmp_path / "out.safetensors"
    save_pose_weights(coco(), single)
    assert main(["convert", "multiview", str(single), str(out), *arguments, *OPTIONS]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not out.exists()
