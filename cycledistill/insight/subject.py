"""A trained model, and how to show it something.

Which model a checkpoint holds is known by the integration that wrote it. Integrations announce a function under the
entry point group ``cycledistill.checkpoints``. It takes a folder, and whether the running average of the weights is
wanted instead of the weights; it returns a `Subject`, or ``None`` if the checkpoint is not its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor, nn

from cycledistill.announced import whose_run
from cycledistill.insight.scores import Scores

GROUP = "cycledistill.checkpoints"


@dataclass(frozen=True)
class Subject:
    """A trained model, and how to show it something.

    Attributes:
        name: What to call it.
        model: In eval mode, wrapped or plain.
        prepare: Reads a file: the model's input, batch first, for example (1, 3, H, W), and the picture (H, W, 3) in
            [0, 1], or ``None`` where the file holds none (keypoints).
        grid: Height and width of the image in patches, whose tokens come last in the state; ``None`` if there is none:
            then attention is drawn as a matrix, queries by keys.
        rows: The query tokens whose attention is read.
        row_names: Names of those whose attention is drawn over the picture.
        row_places: Their numbers among ``rows``; by default the first ones.
        prefix: Tokens before the patches, as `plot_attention` takes it.
        facts: What else is known: which weights these are, of which run, trained on what, when, with which versions.
        scores: What its last evaluation measured, by exit; a curve is drawn of more than one exit.
        example: An input that what an exit costs is counted with, batch first; default: that of the first file shown.
        key_names: Without a grid: what the keys of a matrix are, by their number: ``{243: "frames", 17: "joints"}``.
        blocks: The stack of a plain model, as ``wrap_cyclic`` takes it.
        path: Where it was read from.
    """

    name: str
    model: nn.Module
    prepare: Callable[[Path], tuple[Tensor, Tensor | None]]
    grid: tuple[int, int] | None
    rows: slice
    row_names: tuple[str, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    row_places: tuple[int, ...] = ()
    prefix: int | None = None
    scores: Scores | None = None
    example: Tensor | None = None
    key_names: Mapping[int, str] = field(default_factory=dict)
    blocks: str = "auto"
    path: Path | None = None


def open_subject(path: Path, ema: bool = False) -> Subject:
    """The model of a checkpoint, by whichever installed integration wrote it.

    Args:
        path: The folder of a run or checkpoint.
        ema: The running average of the weights instead of the weights.

    Raises:
        ValueError: There is no such folder, what is in it is damaged or lacks the average, or no integration knows it.
    """
    subject: Subject = whose_run(GROUP, path, ema)
    return replace(subject, path=path)
