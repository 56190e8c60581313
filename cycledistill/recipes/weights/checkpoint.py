"""Checkpoints that are whole or not there.

One checkpoint is one folder, ``step-00000500/``: ``model.safetensors`` (keys of the plain model),
``ema.safetensors`` where there is an average, ``state.pt`` (optimiser, scaler, position; tensors and numbers only,
read by ``torch.load(weights_only=True)``) and ``recipe.json`` (command, model, cycles, distillation, the
whole recipe, metrics). It is written under another name, synced to disk and renamed, so that a run killed at any moment
leaves its last complete checkpoint.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cycledistill.files import atomic_folder, atomic_write, clear_unfinished
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.reading.guard import RECIPE
from cycledistill.recipes.reading.plain import is_finite
from cycledistill.recipes.reading.texts import read_json
from cycledistill.recipes.weights.files import read_torch, write_torch, write_weights
from cycledistill.recipes.weights.fitting import mismatch

_logger = logging.getLogger(__name__)

Weights = Mapping[str, Tensor]

KINDS = {"model": "as trained", "ema": "exponential moving average"}
"""File of a checkpoint, without its ending -> which weights are in it, as a word in the file."""


class CheckpointStore:
    """The checkpoints of a run: the last ``keep`` and the best.

    Args:
        folder: Where they are; made when the first is saved.
        keep: How many of the latest stay.
        best_by: Keys down to a number in the recipe's ``metrics``; the checkpoint where it is highest stays as well.
    """

    def __init__(self, folder: Path, keep: int = 2, best_by: Sequence[str] = ()):
        self.folder, self.keep, self.best_by = folder, keep, tuple(best_by)

    def save(
        self,
        step: int,
        weights: Weights,
        ema: Weights | None,
        state: dict[str, Any],
        recipe: dict[str, Any],
        metadata: Mapping[str, str] | None = None,
    ) -> Path:
        """Write a checkpoint and drop those no longer kept; returns its folder. ``metadata``: of the files of weights.

        Raises:
            CheckpointError: It cannot be written (a full disk, say), or JSON cannot hold the recipe; those written
                before are untouched.
        """
        path, text = self.folder / f"step-{step:08d}", _recipe_text(recipe, step)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            words = {"format": "pt", **(metadata or {}), "step": str(step)}
            atomic_folder(path, lambda folder: _fill(folder, weights, ema, state, text, words))
            self._prune()
        except OSError as error:
            raise CheckpointError(
                f"the checkpoint of step {step} cannot be written to {self.folder}: {error}. {self.after_making_room()}"
            ) from error
        return path

    def record(self, step: int, metrics: dict[str, Any]) -> None:
        """Add to the checkpoint of a step what was measured of it, and drop those no longer kept.

        Raises:
            CheckpointError: It cannot be written; the checkpoint is as it was.
        """
        path = self.folder / f"step-{step:08d}"
        text = _recipe_text({**read_recipe(path), "metrics": metrics}, step)
        try:
            clear_unfinished(path / "recipe.json")
            atomic_write(path / "recipe.json", lambda file: file.write_text(text, encoding="utf-8"), sync=True)
            self._prune()
        except OSError as error:
            raise CheckpointError(
                f"what was measured cannot be added to {path}: {error}. The checkpoint is as it was: make room, and go "
                "on from it with --resume, which measures it again."
            ) from error

    def complete(self) -> list[Path]:
        """Every complete checkpoint, oldest first."""
        if not self.folder.is_dir():
            return []
        for old in self.folder.glob(".old-step-*"):  # killed between the two renames of atomic_folder
            name = self.folder / old.name.removeprefix(".old-")
            if not name.exists():
                with contextlib.suppress(OSError):  # another process did it
                    os.replace(old, name)
        return sorted(path for path in self.folder.glob("step-*") if (path / "recipe.json").is_file())

    def last(self) -> Path | None:
        """The latest complete checkpoint, if any."""
        return next(reversed(self.complete()), None)

    def last_in_words(self) -> str:
        """What is left of a run that ends before its time, for a message: the last checkpoint, where there is one."""
        last = self.last()
        return "no checkpoint was saved" if last is None else f"the last checkpoint is {last}"

    def after_making_room(self) -> str:
        """What to do where a run's disk is full."""
        how = "start again" if self.last() is None else "go on from it with --resume"
        return f"Make room there, and {how}: {self.last_in_words()}."

    def best(self) -> Path | None:
        """The complete checkpoint with the highest number under ``best_by``, if one was evaluated.

        One that cannot be read, or has no finite number there, is not it; of the former a warning tells.
        """
        if not self.best_by:
            return None
        scored = [(self._score(path), path) for path in self.complete()]
        found = [(score, path) for score, path in scored if score is not None]
        return max(found)[1] if found else None

    def _score(self, path: Path) -> float | None:
        try:
            found: Any = read_recipe(path).get("metrics")
        except CheckpointError as error:  # a damaged one must not end a run that does not need it
            _logger.warning("not considered for the best checkpoint: %s", error)
            return None
        for key in self.best_by:
            found = found.get(key) if isinstance(found, dict) else None
        return float(found) if is_finite(found) else None

    def _prune(self) -> None:
        kept = {*self.complete()[-self.keep :], self.best()}
        for path in self.complete():
            if path not in kept:
                os.replace(path, self.folder / f".gone-{path.name}")  # never half a checkpoint under its own name
        for path in (p for mark in ("old", "new", "gone") for p in self.folder.glob(f".{mark}-*")):
            shutil.rmtree(path, ignore_errors=True)


def store_of(output: str | Path, keep: int = 2, best_by: Sequence[str] = ()) -> CheckpointStore:
    """The checkpoints of the run in a folder; the rest as for `CheckpointStore`."""
    return CheckpointStore(Path(output) / "checkpoints", keep, best_by)


def find_checkpoint(where: str | Path) -> Path:
    """The checkpoint folder meant by a path: itself, or the latest in a run's folder.

    Raises:
        CheckpointError: There is none.
    """
    path = Path(where)
    if (path / "recipe.json").is_file():
        return path
    for store in (CheckpointStore(path), store_of(path)):
        found = store.last()
        if found:
            return found
    if not path.exists():
        beside = sorted(each.name for each in path.parent.iterdir()) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=1)
        raise CheckpointError(
            f"{path} does not exist: there is no such file or folder."
            + (f" Did you mean {str(path.parent / near[0])!r}?" if near else "")
        )
    raise CheckpointError(
        f"{path} holds no complete checkpoint: expected a folder such as RUN/checkpoints/step-00000500, or RUN itself."
    )


def read_recipe(checkpoint: Path, command: str | None = None) -> dict[str, Any]:
    """What ``recipe.json`` says of the weights beside it: the recipe, the network, what was measured.

    Args:
        checkpoint: A checkpoint's folder.
        command: Which training command's it must be (``"coco"``), if that matters.

    Raises:
        CheckpointError: It is missing, cut off, lacks the command or the recipe, holds something else where an object
            or a list belongs, or is of another command.
    """
    file = checkpoint / "recipe.json"
    found = read_json(file, CheckpointError, kind=RECIPE)
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} holds no recipe.")
    for name in ("command", "recipe"):
        if name not in found:
            raise CheckpointError(f"{file} is damaged, or of another program: the key {name!r} is missing.")
    trained_by = found["command"]
    if command is not None and trained_by != command:
        raise CheckpointError(
            f"{checkpoint} was trained by `cycledistill train {trained_by}`, and is not for `cycledistill train "
            f"{command}`."
        )
    objects = ("recipe", "network", "metrics", "versions")
    for name, kind in (*((each, dict) for each in objects), ("classes", list), ("step", int), ("epoch", int)):
        _check_kind(found, name, kind, file)
    for name in ("exits", "ema_exits"):
        metrics = found.get("metrics", {})
        _check_kind(metrics, name, dict, file)
        for exit in metrics.get(name, {}):
            _check_kind(metrics[name], exit, dict, file)
    return found


def read_state(file: Path) -> dict[str, Any]:
    """The mapping in a ``torch.save`` file, read without running code.

    Raises:
        CheckpointError: Missing, truncated, holding pickled code, or no mapping.
    """
    data = read_torch(file)
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} holds a {type(data).__name__}, expected a mapping.")
    return data


def load_weights(model: nn.Module, weights: Weights, source: object, advice: str) -> None:
    """Load strictly, or leave the model as it is and say what does not fit.

    Raises:
        CheckpointError: Keys are missing or left over, or shapes differ.
    """
    wrong = mismatch(weights, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    if wrong:
        raise CheckpointError(
            f"{source}: the weights are not those of this {type(model).__name__}, {wrong}. Nothing was loaded; "
            f"{advice}."
        )
    model.load_state_dict(weights, strict=True)


def _check_kind(found: Mapping[str, Any], name: str, kind: type[Any], file: Path) -> None:
    if name in found and not isinstance(found[name], kind):
        expected = {dict: "an object", list: "a list", int: "a whole number"}[kind]
        raise CheckpointError(f"{file} is damaged: {name!r} is {str(found[name])[:300]}; {expected} is expected.")


def _recipe_text(recipe: dict[str, Any], step: int) -> str:
    """A recipe as JSON; what was measured may be numbers of NumPy or PyTorch."""

    def plain(value: Any) -> Any:
        if callable(getattr(value, "item", None)) and getattr(value, "ndim", 1) == 0:
            return value.item()
        raise TypeError(f"{value!r:.80} is a {type(value).__name__}")

    key = ""
    try:
        for key in recipe:
            json.dumps({key: recipe[key]}, default=plain)
        return json.dumps(recipe, indent=1, default=plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"the checkpoint of step {step} is not written: JSON cannot hold {key!r} of its recipe.json ({error}). "
            "Text, numbers, truth values, and lists and mappings (keys: text) of these are expected"
        ) from error


def _fill(
    folder: Path, weights: Weights, ema: Weights | None, state: dict[str, Any], recipe: str, metadata: Mapping[str, str]
) -> None:
    for name, tensors in (("model", weights), ("ema", ema)):
        if tensors is not None:
            write_weights(tensors, folder / f"{name}.safetensors", {**metadata, "weights": KINDS[name]})
    write_torch(state, folder / "state.pt")
    (folder / "recipe.json").write_text(recipe, encoding="utf-8")
