"""Damaged files: cut, with bytes turned or missing; refused by name, or read as far as their format can tell."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from cycledistill.integrations.coco.data.images import ImageStore, PoseDataError
from cycledistill.integrations.human36m.data.npz import read_tree
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.checkpoint import read_recipe, read_state
from cycledistill.recipes.weights.files import read_weights, write_torch, write_weights
from tests.faults.damage import one_damaged
from tests.faults.kinds import ERROR, RIGHT, Kind

WEIGHTS = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.ones(3, dtype=torch.float64)}


def _picture(file: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(file)


def _shapes(found: Any) -> None:
    assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())


def _size(pixels: Any) -> None:
    assert pixels.ndim == 3 and pixels.shape[2] == 3


def _json(file: Path) -> None:
    recipe = {"command": "toy", "recipe": {"run": {"seed": 0}}, "metrics": {"exits": {"1": {"AP": 0.5}}}, "step": 3}
    file.write_text(json.dumps(recipe))


FORMATS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any], Callable[[Any], None], type[Exception]]] = {
    "a.safetensors": (lambda file: write_weights(WEIGHTS, file), read_weights, _shapes, CheckpointError),
    "a.pth": (lambda file: write_weights(WEIGHTS, file), read_weights, _shapes, CheckpointError),
    "state.pt": (lambda file: write_torch({"a": WEIGHTS, "b": [1]}, file), read_state, len, CheckpointError),
    "recipe.json": (_json, lambda file: read_recipe(file.parent), len, CheckpointError),
    "a.png": (_picture, lambda file: ImageStore(file.parent).read(file.name), _size, PoseDataError),
    "a.jpg": (_picture, lambda file: ImageStore(file.parent).read(file.name), _size, PoseDataError),
    "a.npz": (
        lambda file: np.savez_compressed(file, **{"positions_3d/S1/Walking": np.ones((5, 32, 3))}),
        lambda file: read_tree(file, "positions_3d"),
        len,
        LiftingDataError,
    ),
}
"""Name -> how it is written, how it is read, what is true of anything read, the documented error."""


@functools.cache
def whole(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        FORMATS[name][0](file)
        return file.read_bytes()


def check_file(case: tuple[str, int]) -> str:
    name, number = case
    _, read, look, error = FORMATS[name]
    what, data = one_damaged(whole(name), number)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(data)
        try:
            found = read(file)
        except error as refused:
            assert str(file) in str(refused) or name in str(refused), (what, str(refused))
            assert "weights_only=False" not in str(refused)
            return ERROR
        look(found)
        assert file.read_bytes() == data
    return RIGHT


FILES = [Kind("damaged files", st.tuples(st.sampled_from(sorted(FORMATS)), st.integers(0, 2**32)), check_file)]
