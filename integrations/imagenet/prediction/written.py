"""Files of predicted classes, and a table of them for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cycledistill.recipes.prediction.output import check_output
from cycledistill.recipes.prediction.sources import Source
from cycledistill.recipes.prediction.tables import csv_table, json_list

from .stream import Predicted

_SHOWN = 3
"""Classes that a line for people shows."""


@contextmanager
def open_outputs(folder: str | Path, source: Source) -> Iterator[Callable[[Predicted], None]]:
    """``classes.json`` and ``classes.csv``, whole when the context ends; by an error they are not there.

    The table has a row a picture and rank. Both have the classes' ``description`` where they are ImageNet's.

    Args:
        folder: Where; made if it is not there.
        source: What is predicted on.

    Raises:
        DataError: The folder is not empty or mixes with the source.
        OSError: It cannot be written.

    Example:
        >>> with open_outputs("found", source) as add:
        ...     for each in predict_stream(model, source):
        ...         add(each)
    """
    folder = Path(folder)
    check_output(folder, source)
    folder.mkdir(parents=True, exist_ok=True)
    columns = ["picture", "rank", "class", "name", "probability", "description"]
    with json_list(folder / "classes.json") as entry, csv_table(folder / "classes.csv", columns) as row:

        def add(found: Predicted) -> None:
            entry(described(found))
            for rank, each in enumerate(_classes(found), start=1):
                row([found.picture, rank, *(each.get(column, "") for column in columns[2:])])

        yield add


def described(found: Predicted) -> dict[str, Any]:
    """A picture's classes as plain data."""
    width, height = found.size
    return {"picture": found.picture, "width": width, "height": height, "classes": _classes(found)}


def _classes(found: Predicted) -> list[dict[str, Any]]:
    rows = zip(found.classes, found.names, found.probabilities.tolist(), strict=True)
    classes: list[dict[str, Any]] = [
        {"class": number, "name": name, "probability": round(share, 6)} for number, name, share in rows
    ]
    for each, words in zip(classes, found.descriptions, strict=False):
        each["description"] = words
    return classes


def table(found: Sequence[Predicted]) -> str:
    """A line a picture with its likeliest classes, for people."""
    width = max((len(each.picture) for each in found), default=0)
    return "".join(f"{each.picture:{width}}  {_in_words(each)}\n" for each in found)


def _in_words(found: Predicted) -> str:
    shown = found.descriptions or found.names
    rows = list(zip(shown, found.names, found.probabilities.tolist(), strict=True))[:_SHOWN]
    return ", ".join(f"{words.split(',')[0] or name} {100 * share:.1f} %" for words, name, share in rows)
