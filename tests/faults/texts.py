"""Text from strangers: annotations, recipes, configs of published models; refused, or read as others read it."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import json
import logging
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hypothesis import strategies as st

from cycledistill.integrations.coco import TokenPose
from cycledistill.integrations.coco.data.annotations import annotated_persons, detected_persons
from cycledistill.integrations.coco.data.images import PoseDataError
from cycledistill.integrations.coco.data.joints import COCO
from cycledistill.integrations.coco.evaluation import load_ground_truth
from cycledistill.recipes.errors import CheckpointError, RecipeError
from cycledistill.recipes.reading.texts import parse_yaml
from tests.faults.kinds import ERROR, RIGHT, Kind
from tests.faults.odd import PLAIN, changed
from tests.recipes.run.toy import ToyRecipe, load_recipe

SIZE = (64, 48)


def annotations() -> dict[str, Any]:
    box = {"bbox": [1, 2, 10, 10], "area": 50.0, "iscrowd": 0, "num_keypoints": 17, "keypoints": [1.0, 2.0, 2] * 17}
    document = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 20, "height": 30} for n in (1, 2)],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, **box} for n in (1, 2)],
        "categories": [{"id": 1, "name": "person"}],
    }
    found: dict[str, Any] = json.loads(json.dumps(document))  # nothing in it stands in two places
    return found


def check_annotations(document: Any) -> str:
    """Persons are whole: finite crops, 17 joints, a picture that the file names; entries as they were give the same."""
    found = [{"image_id": n, "category_id": 1, "bbox": [1, 2, 10, 10], "score": 0.5} for n in (1, 2)]
    results, before = set(), copy.deepcopy(document)
    readers = (annotated_persons, lambda *rest: detected_persons(found, *rest), _ground_truth)
    for read, error in zip(readers, (PoseDataError, PoseDataError, ValueError), strict=True):
        try:
            persons = read(document, COCO, SIZE)
        except error as refused:
            assert str(refused)
            results.add(ERROR)
            continue
        results.add(RIGHT)
        names = {str(picture.get("file_name")) for picture in document["images"]}
        for person in persons:
            assert np.isfinite([*person.center, *person.scale]).all(), person
            assert person.file_name in names, person
    assert repr(document) == repr(before)  # what is read is left as it was
    if repr(document) == repr(annotations()):
        left, top, right, bottom = 1, 2, 10, 11  # the last pixels of the box, as COCO's readers count
        first = annotated_persons(document, COCO, SIZE)[0]
        assert first.center.tolist() == [(left + right) / 2, (top + bottom) / 2]
    return ERROR if ERROR in results else RIGHT


def _ground_truth(document: Any, *_: Any) -> list[Any]:
    with contextlib.redirect_stdout(io.StringIO()):
        load_ground_truth(document, COCO)
    return []


RECIPE = {
    "model": {"name": "toy"},
    "cyclic": {"cycles": 2, "distill": {"preset": "sdpose", "token_weight": 0.01}},
    "data": {"batch_size": 3, "workers": 0},
    "optim": {"lr": 0.001, "clip": 1.0},
    "schedule": {"epochs": 2},
    "ema": {"enabled": True, "decay": 0.9},
    "run": {"device": "cpu", "precision": "fp32", "save_every_steps": 2},
}
TOKENS = "2026-13-45|0b_|.inf|-.nan|!!python/object:os.system|&a [*a]|*b|1e400|0x_|12:30:45|{}|[]|{|'|? a|<<: 1".split(
    "|"
)
TOKENS += "=|~|!!binary aGk=|!!set {a}|2026-01-01|1_000|on".split("|")
TEXTS = st.one_of(
    changed(RECIPE).map(json.dumps),
    changed(RECIPE, st.sampled_from(TOKENS)).map(lambda data: json.dumps(data).replace('"', "")),
    st.lists(st.sampled_from([*TOKENS, "optim:", "  lr: ", "\n", "run", ": ", "- ", "#", "1"]), max_size=8).map(
        "".join
    ),
    st.text(max_size=30),
)


def check_recipe(text: str) -> str:
    """Read, it has what a plain YAML reader finds, defaults elsewhere, and gives itself when it is read again."""
    try:
        data = parse_yaml(text, "a.yaml", RecipeError)
        if data is not None and not isinstance(data, dict):
            return RIGHT if _alike(data, yaml.safe_load(text)) else "no"
        recipe = load_recipe(data or {})
    except RecipeError as refused:
        assert str(refused)
        return ERROR
    given, whole = yaml.safe_load(text) or {}, recipe.to_dict()
    for section, keys in whole.items():
        usual = vars(type(getattr(recipe, section))() if section in given else getattr(ToyRecipe(), section))
        for key, value in keys.items():
            said = (given.get(section) or {}).get(key, usual[key])
            if isinstance(value, float):
                assert math.isclose(value, float(said))
            elif key != "compile":  # true and false are words of its own
                assert _alike(value, said), (section, key)
    assert load_recipe(json.loads(json.dumps(whole))).to_dict() == whole
    return RIGHT


def _alike(value: Any, other: Any) -> bool:
    return json.dumps(value) == json.dumps(other)


NETWORK = {
    "num_keypoints": 2, "image_size": [64, 48], "backbone": "none", "stage1_width": 8, "patch_size": [16, 12],
    "dim": 16, "depth": 2, "heads": 2, "mlp_ratio": 2, "scale": "head_dim", "position": "sine-full", "readouts": 1,
    "head": "heatmap", "head_hidden": 8,
}  # fmt: skip
CONFIG = {"network": NETWORK, "cycles": 2, "distill": {"token_weight": 0.01}, "prune_layers": [0], "keep": 0.5}


@functools.cache
def published() -> tuple[dict[str, Any], bytes]:
    """The config and the weights of a model that was published."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "README.md").touch()  # making a card takes time
        TokenPose.from_hub_config(copy.deepcopy(CONFIG)).save_pretrained(folder)
        return json.loads(Path(folder, "config.json").read_text()), Path(folder, "model.safetensors").read_bytes()


def check_config(changes: dict[str, Any]) -> str:
    """A model that is loaded says of itself what the config said, and computes numbers."""
    config = published()[0] | changes
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "config.json").write_text(json.dumps(config))
            Path(folder, "model.safetensors").write_bytes(published()[1])
            model = TokenPose.from_pretrained(folder)
    except CheckpointError as refused:
        assert "config.json" in str(refused)
        return ERROR
    finally:
        logging.disable(logging.NOTSET)
    said = json.loads(json.dumps(model.hub_config()))
    for name, value in config["network"].items():
        assert said["network"][name] == value, name
    assert said.get("cycles") == config["cycles"]
    if model.config.image_size == tuple(NETWORK["image_size"]):
        with torch.no_grad():
            assert torch.isfinite(model(torch.ones(1, 3, *model.config.image_size))).all()
    return RIGHT


ODD_CONFIG = PLAIN.filter(lambda value: not isinstance(value, float) or abs(value) < 100 or not math.isfinite(value))

TEXT_KINDS = [
    Kind("annotations of persons", changed(annotations()), check_annotations),
    Kind("YAML recipes", TEXTS, check_recipe),
    Kind("configs of published models", changed(CONFIG, ODD_CONFIG), check_config),
]
