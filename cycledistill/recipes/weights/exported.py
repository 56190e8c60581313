"""What a file that is exported of a run says of the checkpoint that it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cycledistill.exporter.exportable import BUILT
from cycledistill.recipes.weights.checkpoint import KINDS, CheckpointStore, read_recipe
from cycledistill.recipes.weights.files import read_metadata
from cycledistill.recipes.weights.recorded import check_average


@dataclass(frozen=True)
class Taken:
    """A checkpoint that was taken of a run.

    Attributes:
        named: The run, the checkpoint, and which of its weights.
        words: The same, and how the model is built, for the file.
        note: Which other checkpoints there are, and how one is taken; empty where there is none.
    """

    named: str
    words: Mapping[str, str]
    note: str


def taken_of(folder: Path, ema: bool) -> Taken:
    """What is to be said of a checkpoint's weights, or of their average.

    Raises:
        CheckpointError: It has no average, or a torn file.
    """
    check_average(folder, ema)
    name = "ema" if ema else "model"
    words, step = read_metadata(folder / f"{name}.safetensors"), read_recipe(folder).get("step")
    built = {each: words[each] for each in BUILT if each in words}
    of_run = folder.parent.name == "checkpoints"
    checkpoint = f"{folder.parent.parent.name}, {folder.name}" if of_run else folder.name
    others = [each for each in CheckpointStore(folder.parent).complete() if each != folder] if of_run else []
    note = f"other checkpoints of the run: {', '.join(map(str, others))}; export one by its folder" if others else ""
    said = {"checkpoint": checkpoint, "weights": KINDS[name], **({} if step is None else {"step": str(step)})}
    return Taken(f"{checkpoint}, {'average of the weights' if ema else 'weights as trained'}", built | said, note)
