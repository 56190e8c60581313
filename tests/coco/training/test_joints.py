"""Joints of a recipe: read from their file once, kept by the run, and used wherever the model is."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from cycledistill.integrations.coco import joints_of
from cycledistill.integrations.coco.data.images import PoseDataError
from cycledistill.integrations.coco.recipe import RecipeError, load_recipe
from cycledistill.integrations.coco.train import train
from cycledistill.integrations.coco.trained import load_trained, stored_recipe
from cycledistill.integrations.coco.training.joints import with_joints
from cycledistill.integrations.coco.training.sources import open_training, open_validation
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.checkpoint import find_checkpoint
from tests.coco.figures import write_dots

NAMES = ["base", "L_tip", "R_tip", "L_root", "R_root"]
TINY = [
    "model.name=sdpose_s_v1",
    "model.options={image_size: [64, 32], backbone: none, patch_size: [16, 16], dim: 16, depth: 2, heads: 2}",
    "data.train_annotations=annotations/train.json",
    "data.train_images=pictures",
    "data.val_annotations=annotations/val.json",
    "data.val_images=pictures",
    "data.detections=null",
    "data.batch_size=4",
    "data.workers=0",
    "evaluate.exits=[1]",
    "run.device=cpu",
    "run.max_steps=1",
    "run.progress=false",
]


@pytest.fixture
def claws(tmp_path: Path) -> Path:
    """A data set of five joints that only its own category knows."""
    return name_joints(write_dots(tmp_path / "claws", joints=5, pictures=2), NAMES)


def name_joints(root: Path, names: list[str], parts: tuple[str, ...] = ("train", "val")) -> Path:
    for part in parts:
        file = root / "annotations" / f"{part}.json"
        data = json.loads(file.read_text())
        data["categories"] = [{"id": 1, "name": "claw", "keypoints": names, "skeleton": [[1, 2], [1, 3]]}]
        file.write_text(json.dumps(data))
    return root


def recipe_of(root: Path, *more: str) -> Any:
    return load_recipe(None, [*TINY, f"data.root={root}", f"run.output={root.parent / 'run'}", *more])


def test_a_run_with_auto_keeps_the_files_joints_and_its_model_has_them(claws: Path) -> None:
    summary = train(recipe_of(claws, "data.joints=auto"))
    assert "pck" in summary["exits"][1]
    kept = stored_recipe(claws.parent / "run").data
    assert stored_recipe(find_checkpoint(claws.parent / "run") / "model.safetensors").data == kept
    assert kept.joint_set.names == tuple(NAMES) and kept.joint_set.flip_pairs == ((1, 2), (3, 4))
    model = load_trained(claws.parent / "run")
    assert joints_of(model) == kept.joint_set and joints_of(model).limbs == ((0, 1), (0, 2))
    (claws / "annotations" / "train.json").unlink()
    assert with_joints(stored_recipe(claws.parent / "run")).data.joint_set == kept.joint_set  # no file is needed


def test_joints_are_read_before_they_are_used_and_files_that_disagree_are_named(claws: Path) -> None:
    recipe = recipe_of(claws, "data.joints=auto")
    with pytest.raises(RecipeError, match=r"data.joints='auto': with_joints\(recipe\) reads them"):
        _ = recipe.data.joint_set
    with pytest.raises(RecipeError, match="data.joints: joints 'own': sigmas: 1 for 5"):
        recipe_of(claws, f"data.joints={{names: {NAMES}, sigmas: [0.1]}}")
    with pytest.raises(RecipeError, match="data.joints='none.yaml': none.yaml: there is no such file"):
        with_joints(recipe_of(claws, "data.joints=none.yaml"))
    ready = with_joints(recipe)
    assert len(open_training(ready.data, (64, 32)).persons) == 4
    name_joints(claws, [*NAMES[:4], "R_claw"], ("val",))
    with pytest.raises(PoseDataError, match="data.val_annotations .* has 'R_claw' as joint 4, where claw has"):
        open_validation(ready.data, (64, 32))
    name_joints(claws, [], ("train",))
    with pytest.raises(RecipeError, match=r"data.joints='auto' of data.train_annotations .* no category"):
        with_joints(recipe)


@pytest.mark.slow
def test_a_run_does_not_go_on_with_joints_in_another_order(claws: Path) -> None:
    recipe = recipe_of(claws, "data.joints=auto")
    train(recipe)
    before = stored_recipe(claws.parent / "run")
    name_joints(claws, [NAMES[0], *NAMES[2:0:-1], *NAMES[3:]])
    more = ["run.max_steps=2", "augment.flip_probability=0"]
    with pytest.raises(CheckpointError, match="other joints: joint 1 is 'L_tip' .* and here 'R_tip'"):
        train(recipe_of(claws, "data.joints=auto", *more), resume="auto")
    assert stored_recipe(claws.parent / "run") == before
    heads = "model.options={image_size: [64, 32], backbone: none, patch_size: [16, 16], dim: 16, depth: 2, heads: 4}"
    name_joints(claws, NAMES)
    with pytest.raises(CheckpointError, match="of another network .*heads"):
        train(recipe_of(claws, "data.joints=auto", heads), resume="auto")


def test_a_file_of_animals_is_not_trained_on_as_persons(tmp_path: Path) -> None:
    animals = "eye_l eye_r nose neck tail a_l b_l c_l a_r b_r c_r d_l e_l f_l d_r e_r f_r".split()
    root = name_joints(write_dots(tmp_path / "beasts", pictures=2), animals)
    with pytest.raises(
        PoseDataError,
        match=r"data.train_annotations .* has 'eye_l' as joint 0, where coco has 'nose'.*data.joints=auto",
    ):
        train(recipe_of(root))


def test_one_field_of_a_known_set_is_changed_by_its_key(claws: Path) -> None:
    changed = recipe_of(claws, "data.joints.pck=bbox").data.joint_set
    assert changed.pck == "bbox" and len(changed) == 17
    auto = with_joints(recipe_of(claws, "data.joints=auto", "data.joints.flip_pairs=[[L_tip, R_tip]]"))
    assert auto.data.joint_set.flip_pairs == ((1, 2),)


def test_names_without_left_and_right_are_warned_of_where_pictures_are_mirrored(
    claws: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name_joints(claws, ["1", "2", "3", "4", "5"])  # as CVAT writes them
    with caplog.at_level(logging.WARNING):
        with_joints(recipe_of(claws, "data.joints=auto"))
    assert "no two names (1, 2, 3, 4, ...) are left and right of each other" in caplog.text
    assert "give data.joints.flip_pairs, or set augment.flip_probability=0 and evaluate.flip=false" in caplog.text
    for quiet in (["augment.flip_probability=0", "evaluate.flip=false"], ["data.joints.flip_pairs=[]"]):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            with_joints(recipe_of(claws, "data.joints=auto", *quiet))
        assert "left and right" not in caplog.text
