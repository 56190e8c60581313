"""Which joints a model's heatmaps are of: its run's ``data.layout``, and by their names what files say."""

from __future__ import annotations

import json
from pathlib import Path

from cycledistill.integrations.human36m.data.keypoints.gaps import NAMES
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.files import read_metadata


def joint_words(layout: str) -> dict[str, str]:
    """The names of a layout's joints for a file of weights; nothing where the layout has none (``"other"``)."""
    return {"joints": json.dumps(NAMES[layout])} if layout in NAMES else {}


def layout_in(path: Path) -> str | None:
    """The layout of a file of weights by the joints that it names; ``None`` where it names none, or others.

    Raises:
        CheckpointError: A torn safetensors file.
    """
    said = read_metadata(path).get("joints")
    return next((name for name in NAMES if said is not None and joint_words(name)["joints"] == said), None)


def check_layout(trained: str | None, asked: str, where: Path) -> None:
    """Refuse a model of another layout's joints: there are as many, in another order.

    Args:
        trained: The layout that it was trained on, ``None`` where that is not known.
        asked: That of the data.
        where: The model, for the message.

    Raises:
        CheckpointError: Both name their joints, and they are others.
    """
    if trained in NAMES and asked in NAMES and trained != asked:
        names = NAMES[trained][0], NAMES[asked][0]
        raise CheckpointError(
            f"{where} was trained on the joints of data.layout={trained}, and data.layout={asked} is asked for: joint "
            f"0 is {names[0]!r} there and {names[1]!r} here. Take the layout that it was trained on"
        )
