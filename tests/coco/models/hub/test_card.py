"""The model card: counted costs, given results, and what is not known."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("huggingface_hub")

from huggingface_hub import ModelCard

from cycledistill.cost.report import cost
from cycledistill.integrations.coco import TokenPose, create_pose_model
from cycledistill.recipes.errors import RecipeError
from tests.coco.figures import SIZE, write_dots
from tests.coco.models.hub.published import small


@pytest.mark.slow
def test_the_card_states_counted_costs_and_given_results(tmp_path: Path) -> None:
    model = create_pose_model("sdpose_s_v1")
    report = cost(model, torch.zeros(1, 3, 256, 192))
    fields = {
        "results": {"1 cycle": {"AP": 0.6231, "persons": 12}, "2 cycles": {"AP": 0.61}},
        "evaluation": "On pictures of ours.", "training": "For a day.", "license": "apache-2.0", "tags": ["dots"],
        "datasets": ["user/dots"],
    }  # fmt: skip
    card = model.generate_model_card(**fields)
    text = card.text
    assert f"{report.parameters:,} parameters" in text and report.parameters == 6_669_888
    one, two = report.exits
    assert f"| 1 cycle | {one.total / 1e9:.4g} | {one.weights / 1e9:.4g} |" in text
    assert f"| 2 cycles | {two.total / 1e9:.4g} | {two.weights / 1e9:.4g} |" in text
    assert f"costs {report.training_step_ratio:.2f} times" in text
    assert "one picture of 256 x 192" in text
    assert "|  | 1 cycle | 2 cycles |\n|---|---|---|\n| AP | 0.6231 | 0.61 |\n| persons | 12 |  |" in text
    for part in ("On pictures of ours.", "For a day.", "distillation `sdpose`", "SDPose, CVPR 2024"):
        assert part in text
    found = card.data.to_dict()
    assert {"dots", "human-pose-estimation", "pytorch_model_hub_mixin"} <= set(found["tags"])
    assert (found["license"], found["datasets"]) == ("apache-2.0", ["user/dots"])
    assert (found["library_name"], found["pipeline_tag"]) == ("cycledistill", "keypoint-detection")


def test_the_card_says_what_is_not_known(written: Path) -> None:
    card = ModelCard.load(written / "README.md")
    assert "No results were given with these weights." in card.text
    assert "How the weights were trained was not stated." in card.text
    assert "license" not in card.data.to_dict()
    assert "More Information Needed" not in card.text


def test_a_card_that_is_there_stays(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "README.md").write_text("mine", encoding="utf-8")
    small().save_pretrained(folder)
    assert (folder / "README.md").read_text(encoding="utf-8") == "mine"
    assert "is kept as it is: delete it" in caplog.text


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"result": {}}, "unknown field 'model_card_kwargs.result'. Did you mean 'results'"),
        ({"results": 0.7}, "results=0.7: figures by name"),
        ({"results": {"AP": float("nan")}}, r"results\['value'\]\['AP'\]=nan: a finite number"),
        ({"results": {"1 cycle": {"AP": "high"}}}, r"results\['1 cycle'\]\['AP'\]='high'"),
        ({"tags": "pose"}, "tags='pose': a list of words"),
    ],
)
def test_a_wrong_field_of_the_card_stops_before_anything_is_written(
    fields: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=reason):
        small().save_pretrained(tmp_path / "never", model_card_kwargs=fields)
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
def test_a_run_fills_the_card(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("pycocotools")
    from cycledistill.integrations.coco.recipe import load_recipe
    from cycledistill.integrations.coco.train import train
    from cycledistill.integrations.coco.trained import load_trained, recorded_card

    dots = write_dots(tmp_path / "secret" / "set")
    network = {"image_size": list(SIZE), "backbone": "none", "patch_size": [8, 8], "dim": 16, "depth": 2, "heads": 2}
    recipe = load_recipe(
        {
            "model": {"name": "sdpose_s_v1", "options": network},
            "data": {
                "root": str(dots), "train_annotations": str(dots / "annotations/train.json"), "detections": None,
                "train_images": "pictures", "val_annotations": str(dots / "annotations/val.json"), "batch_size": 3,
                "val_images": "pictures", "workers": 0,
            },
            "schedule": {"epochs": 1, "milestones": [1]}, "ema": {"enabled": True},
            "evaluate": {"every": 1, "exits": [1, 2], "batch_size": 8},
            "run": {"output": str(tmp_path / "run"), "device": "cpu", "progress": False},
        }
    )  # fmt: skip
    measured = train(recipe)
    for ema, key in ((False, "exits"), (True, "ema_exits")):
        given = recorded_card(tmp_path / "run", ema)
        figures = {name: measured[key][exit] for exit, name in ((1, "1 cycle"), (2, "2 cycles"))}
        assert figures["1 cycle"].pop("AP_interval") is figures["2 cycles"].pop("AP_interval") is None  # three pictures
        assert given["results"] == figures
        assert "val.json, persons in annotated boxes" in given["evaluation"]
        assert f"{measured['step']} steps, 1 whole epochs on train.json" in given["training"]
        assert ("average" in given["training"]) is ema
        assert "secret" not in str(given)  # a card is public: of files the names alone
    model = load_trained(tmp_path / "run")
    caplog.set_level(logging.ERROR)
    model.save_pretrained(tmp_path / "out", model_card_kwargs=recorded_card(tmp_path / "run"))
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"| AP | {measured['exits'][1]['AP']:.4g} | {measured['exits'][2]['AP']:.4g} |" in card
    assert TokenPose.from_pretrained(tmp_path / "out").name == "sdpose_s_v1"

    train(
        load_recipe(recipe.to_dict(), {"run.output": str(tmp_path / "short"), "run.max_steps": 1, "evaluate.every": 9})
    )
    stored = next((tmp_path / "short" / "checkpoints").glob("*/recipe.json"))
    stored.write_text(json.dumps(json.loads(stored.read_text()) | {"metrics": {}}))  # as one saved between evaluations
    assert recorded_card(tmp_path / "short")["results"] == {}
