"""Official files in our names and back: nothing lost, nothing guessed, no code run."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from cycledistill import wrap_cyclic
from cycledistill.commands.frame import main
from cycledistill.integrations.coco import (
    CheckpointError,
    RLELoss,
    TokenPose,
    TokenPoseConfig,
    create_pose_model,
    load_pose_weights,
    pose_model_config,
    save_pose_weights,
)
from cycledistill.integrations.coco.weights.key_map import FORMATS, from_official, to_official
from cycledistill.integrations.coco.weights.suggest import model_shapes
from cycledistill.recipes.weights.files import read_weights, write_weights

# A model of each kind of file, and a few names that such a file holds.
FILES = {
    "sdpose": ("sdpose_s_v1", "keypoint_head.tokenpose.transformer_layer1.layers.11.0.fn.fn.to_qkv.weight"),
    "sdpose-tokenpose": ("tokenpose_b_narrow", "keypoint_head.tokenpose.transformer.layers.11.1.fn.norm.bias"),
    "distilpose": ("distilpose_s", "keypoint_head.tokenhead.transformer.layers.0.1.fn.fn.net.3.weight"),
    "tokenpose-s": ("tokenpose_s_v1_original", "features.transformer.layers.3.0.fn.fn.to_out.0.bias"),
    "tokenpose": ("tokenpose_b", "transformer.transformer.layers.3.0.fn.fn.to_out.0.bias"),
    "ppt-s": ("ppt_s_original", "features.transformer.layers.3.0.fn.to_out.0.bias"),
    "ppt": ("ppt_l_d6", "transformer.transformer.layers.5.0.norm.weight"),
}


def state_of(config: TokenPoseConfig) -> dict[str, torch.Tensor]:
    """Weights of a model, every tensor different from every other."""
    state = {name: torch.full(shape, float(index)) for index, (name, shape) in enumerate(model_shapes(config).items())}
    return {name: each.long() if name.endswith("num_batches_tracked") else each for name, each in state.items()}


def official(name: str, layout: str, **overrides: Any) -> dict[str, torch.Tensor]:
    config = pose_model_config(name, **overrides).network
    return to_official(state_of(config), config, layout)


@pytest.fixture(scope="module")
def small() -> TokenPoseConfig:
    return TokenPoseConfig(image_size=(64, 48), depth=2)


@pytest.mark.parametrize("layout", FORMATS)
def test_there_and_back_loses_nothing(layout: str) -> None:
    name, sample = FILES[layout]
    config = pose_model_config(name).network
    ours = state_of(config)
    theirs = to_official(ours, config, layout)
    assert sample in theirs
    assert len(theirs) == len(ours)
    back = from_official(theirs, config)
    assert (back.format, back.loss) == (layout, {})
    assert all(torch.equal(back.model[name], ours[name]) for name in ours)
    assert set(back.model) == set(ours)


@pytest.mark.parametrize(
    ("case", "name", "layout"),
    [
        ("sdpose_t", "sdpose_t", "sdpose"),
        ("sdpose_s_v1", "sdpose_s_v1", "sdpose"),
        ("ppt_s_sdpose_repo", "ppt_s", "sdpose"),
        ("tokenpose_s", "tokenpose_s_v1_original", "tokenpose-s"),
    ],
)
def test_names_are_exactly_those_of_the_published_code(fill: Any, case: str, name: str, layout: str) -> None:
    theirs = {key: tuple(shape) for key, shape in fill.manifest()[case]["keys"]}
    assert {key: tuple(tensor.shape) for key, tensor in official(name, layout).items()} == theirs


def test_three_stacks_of_tokenpose_l() -> None:
    theirs = official("tokenpose_l_d6", "tokenpose")
    assert "transformer.transformer3.layers.1.0.fn.norm.weight" in theirs
    config = pose_model_config("tokenpose_l_d6").network
    back, ours = from_official(theirs, config).model, state_of(config)
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_tokenpose_t_has_no_backbone() -> None:
    theirs = official("tokenpose_t", "tokenpose")
    assert len(theirs) == 144
    assert all(name.startswith("transformer.") for name in theirs)


def test_the_flow_of_sdpose_reg_goes_to_the_loss() -> None:
    config = pose_model_config("sdpose_reg").network
    ours, loss = state_of(config), RLELoss()
    for parameter in loss.parameters():
        torch.nn.init.normal_(parameter)
    theirs = to_official(ours, config, "distilpose", loss.state_dict())
    assert len(theirs) == 305
    assert "keypoint_head.kpt_loss.flow_model.s.5.4.bias" in theirs
    back = from_official(theirs, config)
    assert set(back.model) == set(ours)
    fresh = RLELoss()
    fresh.load_state_dict(back.loss, strict=True)
    assert torch.equal(fresh.flow_model.t[2][0].weight, loss.flow_model.t[2][0].weight)
    with pytest.raises(CheckpointError, match=r"hold no loss.*distilpose"):
        to_official(ours, config, "sdpose", loss.state_dict())


def test_every_unknown_name_is_named() -> None:
    theirs = official("sdpose_s_v1", "sdpose") | {"keypoint_head.extra.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"1 of 235 names are unknown.*keypoint_head\.extra\.weight"):
        from_official(theirs, pose_model_config("sdpose_s_v1").network)


def test_every_missing_name_is_named() -> None:
    theirs = official("sdpose_s_v1", "sdpose")
    del theirs["keypoint_head.tokenpose.mlp_head.1.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: mlp_head\.1\.bias"):
        from_official(theirs, pose_model_config("sdpose_s_v1").network)


@pytest.mark.parametrize(
    ("saved", "layout", "loaded", "seen", "fits"),
    [
        ("sdpose_s_v2", "sdpose", "sdpose_s_v1", "patch_to_embedding.weight (192, 1024)", "sdpose_s_v2"),
        ("sdpose_t", "sdpose", "sdpose_s_v1", "66 missing: blocks.6.norm1.weight", "sdpose_t"),
        ("sdpose_b_narrow", "sdpose", "sdpose_b", "backbone.layer1.0.conv1.weight (32, 64, 1, 1)", "sdpose_b_narrow"),
        ("sdpose_s_v1", "sdpose", "sdpose_b", "of another shape", "sdpose_s_v1"),
        ("tokenpose_b", "tokenpose", "tokenpose_t", "names are unknown", "tokenpose_b"),
        ("distilpose_s", "distilpose", "sdpose_reg", "mlp_head.1.weight (5, 192)", "distilpose_s"),
    ],
)
def test_another_variants_file_is_refused_and_told(saved: str, layout: str, loaded: str, seen: str, fits: str) -> None:
    with pytest.raises(CheckpointError) as refusal:
        from_official(official(saved, layout), pose_model_config(loaded).network)
    message = str(refusal.value)
    assert seen in message
    assert fits in message.split("the weights fit ")[1].split(" or ")


def test_another_number_of_keypoints_is_told() -> None:
    with pytest.raises(CheckpointError, match=r"the weights fit .*sdpose_s_v1.*num_keypoints=14"):
        from_official(official("sdpose_s_v1", "sdpose", num_keypoints=14), pose_model_config("sdpose_s_v1").network)


def test_another_image_size_is_told() -> None:
    theirs = official("sdpose_s_v1", "sdpose", image_size=(384, 288))
    with pytest.raises(CheckpointError, match=r"the weights fit .*sdpose_s_v1.*image_size=\(384, 288\)"):
        from_official(theirs, pose_model_config("sdpose_s_v1").network)


@pytest.mark.parametrize(
    ("saved", "layout", "loaded"),
    [("tokenpose_s_v1_original", "tokenpose-s", "tokenpose_s_v1"), ("ppt_s_original", "ppt-s", "ppt_s")],
)
def test_the_attention_scale_that_no_weight_shows_is_checked(saved: str, layout: str, loaded: str) -> None:
    theirs = official(saved, layout)
    with pytest.raises(CheckpointError, match="attention scale 'dim', and this one has 'head_dim'.*_original"):
        from_official(theirs, pose_model_config(loaded).network)
    config = pose_model_config(loaded).network
    with pytest.raises(CheckpointError, match="attention scale"):
        to_official(state_of(config), config, layout)
    assert from_official(theirs, replace(config, scale="dim")).format == layout


def test_an_unknown_format_is_refused(small: TokenPoseConfig) -> None:
    with pytest.raises(CheckpointError, match=r"'mmpose' is no format; known: sdpose"):
        to_official(state_of(small), small, "mmpose")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_models_load_what_they_saved(tmp_path: Path, small: TokenPoseConfig, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    model = wrap_cyclic(TokenPose(small), 2, blocks="blocks")
    save_pose_weights(model, path, "mine")
    fresh = TokenPose(small)
    assert load_pose_weights(fresh, path) == {}
    for name, tensor in model.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor), name


def test_safetensors_files_tell_what_they_are_of(tmp_path: Path, small: TokenPoseConfig) -> None:
    save_pose_weights(TokenPose(small), tmp_path / "a.safetensors", "mine")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["model"] == "mine"
    assert TokenPoseConfig(**json.loads(metadata["config"])) == small


@pytest.mark.slow
def test_a_training_checkpoint_of_the_published_code_loads(tmp_path: Path) -> None:
    model = create_pose_model("sdpose_t")
    theirs = to_official(create_pose_model("sdpose_t").state_dict(), model.config, "sdpose")
    inside = {f"module.{name}": tensor for name, tensor in theirs.items()}
    torch.save({"meta": {"epoch": 300, "config": "text"}, "state_dict": inside}, tmp_path / "epoch_300.pth")
    load_pose_weights(model, tmp_path / "epoch_300.pth")
    assert torch.equal(model.blocks[5].mlp.fc2.weight, theirs[
        "keypoint_head.tokenpose.transformer_layer1.layers.5.1.fn.fn.net.3.weight"
    ])  # fmt: skip


@pytest.mark.slow
def test_a_refused_file_leaves_the_model_alone(tmp_path: Path, small: TokenPoseConfig) -> None:
    model = TokenPose(small)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    write_weights(state_of(replace(small, num_keypoints=14)), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth: .*keypoint_token \(1, 14, 192\), expected \(1, 17, 192\)"):
        load_pose_weights(model, tmp_path / "other.pth")
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "ran"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": Evil(trace)}, path)
    with pytest.raises(CheckpointError, match=r"holds a pickled \S+ beside tensors, which could run code"):
        read_weights(path)
    assert not trace.exists()
    raw = tmp_path / "raw.pth"
    raw.write_bytes(pickle.dumps(Evil(trace), protocol=2))
    with pytest.raises(CheckpointError, match="could run code|no PyTorch checkpoint"):
        read_weights(raw)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("left", [0, 10, 0.5, -1])
def test_truncated_files_are_refused(tmp_path: Path, small: TokenPoseConfig, suffix: str, left: float) -> None:
    path = tmp_path / f"cut{suffix}"
    save_pose_weights(TokenPose(small), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(left * len(data)) if isinstance(left, float) else left])
    with pytest.raises(CheckpointError, match="truncated|broken"):
        read_weights(path)


@pytest.mark.parametrize("name", ["text.pth", "text.safetensors"])
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("not weights at all, but a page of text that someone saved\n" * 20)
    with pytest.raises(CheckpointError, match=r"truncated|broken|no PyTorch"):
        read_weights(tmp_path / name)
    with pytest.raises(CheckpointError, match="there is no such file"):
        read_weights(tmp_path / "absent.pth")
    torch.save({"epoch": 3, "state_dict": {"a": 1}}, tmp_path / "numbers.pth")
    with pytest.raises(CheckpointError, match="a dict of tensors"):
        read_weights(tmp_path / "numbers.pth")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pth"
    write_weights({"a": torch.ones(1)}, path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_weights({"a": torch.zeros(1)}, path)
    monkeypatch.undo()
    assert read_weights(path)["a"].item() == 1
    assert [each.name for each in tmp_path.iterdir()] == ["model.pth"]
    with pytest.raises(CheckpointError, match="ending in"):
        write_weights({"a": torch.ones(1)}, tmp_path / "model.bin")
    with pytest.raises(CheckpointError, match="there is no folder"):
        write_weights({"a": torch.ones(1)}, tmp_path / "sub" / "model.pth")


@pytest.mark.slow
def test_the_command_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = official("sdpose_b", "sdpose", num_keypoints=14, stage1_width=32)
    source, ours, again = tmp_path / "in.pth", tmp_path / "ours.safetensors", tmp_path / "again.pth"
    torch.save({"state_dict": theirs}, source)
    options = ["--model", "sdpose_b", "--option", "stage1_width=32"]
    assert main(["convert", "coco", str(source), str(ours), *options]) == 0
    assert "1074 tensors, read as sdpose" in capsys.readouterr().out
    load_pose_weights(create_pose_model("sdpose_b_narrow", num_keypoints=14), ours)
    assert main(["convert", "coco", str(ours), str(again), *options, "--to", "sdpose"]) == 0
    back = torch.load(again, weights_only=True)
    assert list(back) != []
    assert set(back) == set(theirs)
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.items())


def test_the_command_writes_the_loss_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = pose_model_config("sdpose_reg").network
    torch.save(to_official(state_of(config), config, "distilpose", RLELoss().state_dict()), tmp_path / "reg.pth")
    out = tmp_path / "reg.safetensors"
    assert main(["convert", "coco", str(tmp_path / "reg.pth"), str(out), "--model", "sdpose_reg"]) == 0
    assert "75 tensors of RLELoss" in capsys.readouterr().out
    loss = tmp_path / "reg.loss.safetensors"
    RLELoss().load_state_dict(load_file(loss), strict=True)
    back = tmp_path / "back.pth"
    arguments = [str(out), str(back), "--model", "sdpose_reg", "--to", "distilpose", "--loss", str(loss)]
    assert main(["convert", "coco", *arguments]) == 0
    assert len(torch.load(back, weights_only=True)) == 305


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "sdpose_s_v2"], "of another shape"),
        (["--model", "sdpose_s"], "is no pose model; nearest"),
        (["--model", "sdpose_t", "--option", "depht=6"], "the nearest is 'depth'"),
        (["--model", "sdpose_t", "--option", "depth"], "KEY=VALUE is expected"),
        (["--model", "sdpose_t", "--loss", "x.pth"], "--loss goes with --to"),
    ],
)
def test_bad_input_to_the_command_ends_in_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    torch.save(official("sdpose_t", "sdpose"), tmp_path / "in.pth")
    out = tmp_path / "out.safetensors"
    assert main(["convert", "coco", str(tmp_path / "in.pth"), str(out), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["convert", "coco", str(tmp_path / "absent.pth"), str(tmp_path / "out.pth"), "--model", "sdpose_t"]
    assert main(words) == 2
    assert "there is no such file" in capsys.readouterr().err


def test_converted_weights_predict_the_same_under_both_names(fill: Any) -> None:
    model = create_pose_model("sdpose_t").eval()
    filled = fill.weights("sdpose_t")
    table = model.pos_embedding.detach()
    theirs = {key: table if v is None else torch.from_numpy(np.asarray(v)) for key, v in filled.items()}
    first = from_official(theirs, model.config).model
    second = from_official(to_official(first, model.config, "sdpose-tokenpose"), model.config)
    assert second.format == "sdpose-tokenpose"
    assert all(torch.equal(second.model[name], tensor) for name, tensor in first.items())
