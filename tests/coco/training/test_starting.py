"""What a run starts from: weights of its own joints whole, of other joints those that serve."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from cycledistill.integrations.coco import CheckpointError, create_pose_model, joints_of, save_pose_weights
from cycledistill.integrations.coco.data.joints import COCO, CROWDPOSE, JointSet
from cycledistill.integrations.coco.recipe import RecipeError, load_recipe
from cycledistill.integrations.coco.train import train
from cycledistill.integrations.coco.trained import load_trained
from cycledistill.integrations.coco.training.build import create_model
from cycledistill.integrations.coco.training.starting import load_starting_weights
from tests.coco.figures import write_dots
from tests.coco.training.test_joints import TINY

SIZES: dict[str, Any] = {"image_size": (64, 32), "backbone": "none", "patch_size": (16, 16), "dim": 16, "depth": 2}


def coco_model(position: str = "sine-full", **others: Any) -> Any:
    model: Any = create_pose_model("sdpose_s_v1", 17, **SIZES, heads=2, position=position, **others)
    model.joints = COCO.to_dict()
    return model


def recipe_from(weights: object, *more: str) -> Any:
    return load_recipe(None, [*TINY, "data.joints=crowdpose", ("model.weights", str(weights)), *more])  # type: ignore


def started(weights: object, *more: str) -> Any:
    recipe = recipe_from(weights, *more)
    torch.manual_seed(1)
    model = create_model(recipe)
    load_starting_weights(model, recipe)
    return model


@pytest.mark.parametrize("position", ["sine-full", "learnable"])
def test_tokens_of_joints_with_the_same_names_are_kept(
    position: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, file = coco_model(position), tmp_path / "coco.safetensors"
    save_pose_weights(source, file)
    option = f"model.options={{position: {position}, image_size: [64, 32], backbone: none, patch_size: [16, 16], "
    option += "dim: 16, depth: 2, heads: 2}"
    with caplog.at_level(logging.INFO):
        model = started(file, "model.new_joints=by_name", option)
    shared = [name for name in CROWDPOSE.names if name in COCO.names]
    assert len(shared) == 12 and "tokens kept: 12 (left_shoulder" in caplog.text
    assert "tokens new: 2 (top_head, neck)" in caplog.text and "tokens not used: 5 (nose, " in caplog.text
    torch.manual_seed(1)
    fresh = create_model(recipe_from(file, option))
    names = ["keypoint_token", *(["pos_embedding"] if position == "learnable" else [])]
    for name, mine in model.state_dict().items():
        theirs = source.state_dict()[name]
        if name not in names:
            assert torch.equal(mine, theirs), name
            continue
        for joint, word in enumerate(CROWDPOSE.names):
            wanted = theirs[:, COCO.names.index(word)] if word in shared else fresh.state_dict()[name][:, joint]
            assert torch.equal(mine[:, joint], wanted), (name, word)
        assert torch.equal(mine[:, 14:], theirs[:, 17:])
    assert joints_of(model) == CROWDPOSE


def test_random_keeps_all_but_the_tokens_and_nothing_said_refuses(tmp_path: Path) -> None:
    source, file = coco_model(), tmp_path / "coco.safetensors"
    save_pose_weights(source, file)
    model = started(file, "model.new_joints=random")
    assert torch.equal(model.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)
    own, theirs = model.keypoint_token.detach(), source.keypoint_token.detach()
    assert not any(torch.equal(one, other) for one in own[0] for other in theirs[0])
    with pytest.raises(CheckpointError, match=r"17 joints \(coco\), and 14 \(crowdpose\) .* model.new_joints=by_name"):
        started(file)
    with pytest.raises(RecipeError, match="model.new_joints='random': expected model.weights beside it"):
        load_recipe(None, ["model.new_joints=random"])


def test_as_many_joints_of_other_names_are_other_joints(tmp_path: Path) -> None:
    source, file = coco_model(), tmp_path / "beast.safetensors"
    source.joints = COCO.to_dict() | {"names": [f"part {index}" for index in range(17)], "pck": "bbox", "name": "beast"}
    save_pose_weights(source, file)
    with pytest.raises(CheckpointError, match=r"other joints: joint 0 is 'part 0' \(beast\), and here 'nose' \(coco\)"):
        started(file, "data.joints=coco")
    with pytest.raises(CheckpointError, match=r"by_name: no joint of coco .* is in the weights of beast"):
        started(file, "data.joints=coco", "model.new_joints=by_name")
    with pytest.raises(CheckpointError, match="all but the joints must be the same"):
        started(file, "data.joints=coco", "model.new_joints=random", "model.options.depth=1")
    with pytest.raises(CheckpointError, match="the weights are of other joints: joint 0"):
        load_trained(file, recipe=recipe_from(file, "data.joints=coco"))


def test_weights_that_do_not_say_their_joints_are_of_those_of_their_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = coco_model()
    source.joints = None
    save_pose_weights(source, tmp_path / "old.safetensors")
    assert torch.equal(started(tmp_path / "old.safetensors", "data.joints=coco").keypoint_token, source.keypoint_token)
    assert started(tmp_path / "old.safetensors", "model.new_joints=by_name").config.num_keypoints == 14
    five: Any = create_pose_model("sdpose_s_v1", 5, **SIZES, heads=2)
    save_pose_weights(five, tmp_path / "five.safetensors")
    own = "data.joints={names: [a, b, c, d, e], sigmas: [1, 1, 1, 1, 1]}"
    assert torch.equal(started(tmp_path / "five.safetensors", own).keypoint_token, five.keypoint_token)
    assert "does not say of which joints it is" in caplog.text
    with pytest.raises(CheckpointError, match="weights of 5 joints that do not say which; 14 are asked for"):
        started(tmp_path / "five.safetensors")


@pytest.mark.slow
def test_a_run_goes_on_from_a_run_and_from_a_published_folder(tmp_path: Path) -> None:
    root = write_dots(tmp_path / "dots", pictures=2)
    train(load_recipe(None, [*TINY, f"data.root={root}", f"run.output={tmp_path / 'run'}"]))
    first = load_trained(tmp_path / "run")
    assert torch.equal(started(tmp_path / "run", "data.joints=coco").keypoint_token, first.keypoint_token)
    first.save_pretrained(tmp_path / "published")
    for weights in (tmp_path / "run", tmp_path / "published"):
        model = started(weights, "model.new_joints=by_name")
        torch.testing.assert_close(
            model.keypoint_token[:, 0], first.keypoint_token[:, COCO.names.index("left_shoulder")]
        )
    file = next((tmp_path / "run").glob("checkpoints/*/model.safetensors"))
    for alone in (load_trained(file), load_trained(tmp_path / "published")):  # nothing says of which model but they
        assert joints_of(alone) == COCO and alone.cyclic.cycles == first.cyclic.cycles
        images = torch.randn(1, 3, 64, 32)
        assert torch.equal(alone(images), first(images))


def test_a_file_alone_is_enough_and_what_it_says_is_checked(tmp_path: Path) -> None:
    own = JointSet("claw", ("base", "l", "r"), ((1, 2),), (0.1, 0.1, 0.1))
    model: Any = create_pose_model("sdpose_s_v1_ppt", 3, **SIZES, heads=2, cycles=3, prune_layers=(1,), keep=0.5)
    model.joints = own.to_dict()
    save_pose_weights(model, tmp_path / "claw.safetensors", "mine")
    found: Any = load_trained(tmp_path / "claw.safetensors")
    images = torch.randn(2, 3, 64, 32)
    assert torch.equal(found(images), model.eval()(images)) and joints_of(found) == own and found.name == "mine"
    assert (found.cyclic.cycles, found.pruning.layers, found.pruning.keep) == (3, (1,), 0.5)
    save_pose_weights(model, tmp_path / "claw.pth")
    with pytest.raises(CheckpointError, match="holds weights only, and does not say of which model"):
        load_trained(tmp_path / "claw.pth")
    model.joints = {"names": ["a"]}
    save_pose_weights(model, tmp_path / "broken.safetensors")
    with pytest.raises(CheckpointError, match=r"broken.safetensors: the model .* names of 3 joints is expected"):
        load_trained(tmp_path / "broken.safetensors")


@pytest.mark.parametrize("name", ["nothing.safetensors", "runs/nothing.pth", "runs/a/checkpoints"])
def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cycledistill.integrations.coco.training.starting.find_files", lambda _: pytest.fail("the hub"))
    with pytest.raises(CheckpointError, match=f"model.weights={name}: there is no such file or folder"):
        started(name)
