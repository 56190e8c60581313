"""Rows of numbers to JSONL and CSV, and to TensorBoard on request; a resumed run repeats none."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cycledistill.files import atomic_write, clear_unfinished
from cycledistill.recipes.errors import CheckpointError, RecipeError
from cycledistill.recipes.reading.texts import parse_json
from cycledistill.recipes.weights.checkpoint import store_of

Row = Mapping[str, Any]
_KINDS = ("train", "eval")


class RunLog:
    """``log.jsonl`` (every row) with ``train.csv`` and ``eval.csv`` (rows of one kind) in a folder.

    Args:
        folder: The run's folder, which is there: the run's lock makes it.
        step: Where the run goes on: rows of later steps, left by a run that was killed, are taken out. 0 starts afresh.
        tensorboard: Also write TensorBoard events, to ``tensorboard/``.
        evaluates: The run begins with the evaluation of ``step``: rows of one that was not brought to its end are taken
            out too.

    A row is whole or not there: each is flushed as it is written, and half a line at the end is dropped on resume.

    Raises:
        CheckpointError: A file cannot be written (a full disk, say), here or in :meth:`write`.

    Example:
        >>> log = RunLog(Path("runs/a"))
        >>> log.write("train", step=50, epoch=0, loss=6.9)
    """

    def __init__(self, folder: Path, step: int = 0, tensorboard: bool = False, evaluates: bool = False):
        self.folder, self.columns = folder, dict[str, list[str]]()
        with _writing(folder):
            for name in ("log.jsonl", *(f"{kind}.csv" for kind in _KINDS)):
                clear_unfinished(folder / name)
            kept = [row for row in _read(folder / "log.jsonl") if row["step"] <= step] if step else []
            self.rows = [row for row in kept if not (evaluates and (row["kind"], row["step"]) == ("eval", step))]
            text = "".join(json.dumps(row) + "\n" for row in self.rows)
            atomic_write(folder / "log.jsonl", lambda file: file.write_text(text, encoding="utf-8"))
            for kind in _KINDS:
                self._rebuild(kind)
            self.board = _board(folder / "tensorboard", step) if tensorboard else None

    def write(self, kind: str, **values: Any) -> None:
        """Add a row of ``kind`` ``"train"`` or ``"eval"``; it needs a ``step``. Floats keep all their digits."""
        row = {"kind": kind, **values}
        self.rows.append(row)
        with _writing(self.folder):
            with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            if set(values) - set(self.columns[kind]):
                self._rebuild(kind)  # a new column: the file is written anew, with the rows there are
            else:
                with (self.folder / f"{kind}.csv").open("a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, self.columns[kind]).writerow(values)
            if self.board is not None:
                for name, value in values.items():
                    if isinstance(value, (int, float)) and name != "step":
                        self.board.add_scalar(f"{kind}/{name}", value, values["step"])
                self.board.flush()

    def close(self) -> None:
        """Close what is open."""
        if self.board is not None:
            self.board.close()

    def _rebuild(self, kind: str) -> None:
        rows = [{name: row[name] for name in row if name != "kind"} for row in self.rows if row["kind"] == kind]
        self.columns[kind] = list(dict.fromkeys(name for row in rows for name in row))
        path = self.folder / f"{kind}.csv"
        if not rows:
            path.unlink(missing_ok=True)
            return
        atomic_write(path, lambda file: _write_csv(file, self.columns[kind], rows))


class Meter:
    """Means over the steps since the last row; part of a checkpoint, so that a resumed run logs the same numbers."""

    def __init__(self, sums: Mapping[str, float] | None = None, count: int = 0):
        self.sums, self.count = dict(sums or {}), count

    def add(self, values: Mapping[str, float]) -> None:
        """Count one step."""
        self.count += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def take(self) -> dict[str, float]:
        """The means so far, with ``token_task_ratio`` where there is a token loss; starts over."""
        means = {name: value / self.count for name, value in self.sums.items()}
        task = sum(value for name, value in means.items() if name.startswith("task"))
        tokens = [value for name, value in means.items() if name.startswith("token_")]
        if tokens and task:
            means["token_task_ratio"] = sum(tokens) / task
        self.sums, self.count = {}, 0
        return means


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"the log cannot be written to {folder}: {error}. {store_of(folder).after_making_room()}"
        ) from error


def _read(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            row = parse_json(line, path, CheckpointError)
        except CheckpointError:
            break  # the line that was being written when the run was killed
        if not isinstance(row, dict) or not isinstance(row.get("step"), int) or row.get("kind") not in _KINDS:
            break
        rows.append(row)
    return rows


def _write_csv(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RecipeError("run.tensorboard=true needs TensorBoard: pip install tensorboard.") from error
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
