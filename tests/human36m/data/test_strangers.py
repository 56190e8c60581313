"""npz and JSON files from strangers: read, or refused by the documented error that names the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cycledistill.integrations.human36m.data.cameras import read_cameras
from cycledistill.integrations.human36m.data.cmu import load_cmu
from cycledistill.integrations.human36m.data.h36m import Human36M
from cycledistill.integrations.human36m.data.npz import read_tree
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.lift import prepare
from tests.faults.damage import damaged, odd_documents
from tests.human36m.data.tool_files import TOOLS

CAMERA = {
    "orientation": [1, 0, 0, 0],
    "translation": [1, 2, 3],
    "focal_length": [1100, 1100],
    "center": [500, 500],
    "res_w": 1000,
    "res_h": 1000,
    "id": "5",
}
KEYPOINTS: dict[str, Any] = {"keypoints": [[[1.0, 2.0, 0.5]] * 17] * 3, "width": 100, "height": 100}
ENTRIES: list[Any] = [{"image_id": f"f_{n}.jpg", "keypoints": [1.0, 2.0, 0.5] * 17} for n in range(3)]
ODD_ARRAYS = [
    np.float32(3), np.zeros((0, 17, 3)), np.zeros((5, 17)), np.array(["a"]), np.zeros((5, 3, 3)), np.zeros(5),
    np.zeros((5, 17, 3), complex), np.full((5, 17, 3), np.nan), np.zeros((5, 17, 3), "M8[s]"), np.zeros((5, 17, 1)),
    np.zeros((5, 17, 2), bool), np.zeros((2, 17, 2)), np.zeros((5, 17, 3), [("a", float)]), np.zeros((5, 17, 4)),
]  # fmt: skip


def refused_or_read(read: Callable[[], object], path: Path, what: object) -> None:
    try:
        read()
    except LiftingDataError as error:
        assert path.name in str(error) or "S1/Walking" in str(error) or "joints" in str(error), (what, str(error))


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_a_damaged_npz_is_read_or_refused(tmp_path: Path, write: Any) -> None:
    file = tmp_path / "a.npz"
    write(file, **{"positions_3d/S1/Walking": np.random.default_rng(0).random((5, 32, 3))})
    for what, data in damaged(file.read_bytes(), flips=120):
        file.write_bytes(data)
        refused_or_read(lambda: read_tree(file, "positions_3d"), file, what)


def test_cameras_with_any_value_anywhere(tmp_path: Path) -> None:
    file = tmp_path / "cameras.json"
    for what, document in odd_documents({"S1": [CAMERA]}):
        file.write_text(json.dumps(document))
        refused_or_read(lambda: read_cameras(file), file, what)


@pytest.mark.parametrize("document", [KEYPOINTS, ENTRIES, KEYPOINTS["keypoints"]], ids=["object", "results", "list"])
def test_keypoints_with_any_value_anywhere(tmp_path: Path, document: Any) -> None:
    keypoints_of_any_value(tmp_path, document)


TOOLS_OF_JSON = ("mmpose_demonstration", "coco_annotations", "alphapose_open", "yolo_json")


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS_OF_JSON)
def test_a_tools_file_with_any_value_anywhere(tmp_path: Path, tool: str) -> None:
    keypoints_of_any_value(tmp_path, json.loads(TOOLS[tool](np.ones((2, 17, 3), np.float32), tmp_path).read_text()))


def keypoints_of_any_value(tmp_path: Path, document: Any) -> None:
    file = tmp_path / "keypoints.json"
    for what, changed in odd_documents(document):
        file.write_text(json.dumps(changed))
        refused_or_read(lambda: prepare(file, fill=True, confidence=True), file, what)
        refused_or_read(lambda: prepare(file, width=100, height=100), file, what)


@pytest.mark.parametrize("odd", ODD_ARRAYS, ids=lambda array: f"{array.dtype} {array.shape}")
def test_arrays_of_any_form(tmp_path: Path, odd: Any) -> None:
    file = tmp_path / "a.npz"
    good = {"positions_3d/S1/Walking": np.random.default_rng(0).random((5, 17, 3)) + np.array([0, 0, 5])}
    good2 = {"positions_2d/S1/Walking/0": np.random.default_rng(0).random((5, 17, 2)) * 1000}
    (tmp_path / "cameras.json").write_text(json.dumps({"S1": [CAMERA]}))
    for three, two in (({next(iter(good)): odd}, good2), (good, {next(iter(good2)): odd})):
        np.savez(tmp_path / "a.npz", **three)
        np.savez(tmp_path / "b.npz", **two)
        with pytest.raises(LiftingDataError):  # made-up poses fit no made-up keypoints, so even whole ones are refused
            Human36M(tmp_path / "a.npz", tmp_path / "b.npz", tmp_path / "cameras.json").clips(["S1"])
    np.savez(file, **{"train/walk/a": odd})
    refused_or_read(lambda: load_cmu(file, "train"), file, odd.shape)
    np.savez(file, keypoints=odd, width=100, height=100)
    refused_or_read(lambda: prepare(file), file, odd.shape)


@pytest.mark.parametrize("names", [("S1", "S1/Walking"), ("S1/Walking", "S1")], ids=str)
def test_an_array_that_is_a_folder_too_is_named(tmp_path: Path, names: tuple[str, ...]) -> None:
    np.savez(tmp_path / "a.npz", **{f"positions_3d/{name}": np.zeros((5, 17, 3)) for name in names})
    with pytest.raises(LiftingDataError, match=r"a\.npz: positions_3d/S1.* (lies below|other arrays lie below it)"):
        read_tree(tmp_path / "a.npz", "positions_3d")
