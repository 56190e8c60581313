"""Files that grow by an entry at a time, and have their names when all are there.

Where a context ends by an error, its file is not there.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cycledistill.files import atomic_file


@contextmanager
def json_list(path: Path) -> Iterator[Callable[[Any], None]]:
    """A JSON file of one list, an entry a line.

    Args:
        path: The file.

    Yields:
        What takes an entry, of plain data.
    """
    with atomic_file(path) as file, file.open("w", encoding="utf-8") as text:
        before = "[\n"

        def add(entry: Any) -> None:
            nonlocal before
            text.write(before + json.dumps(entry))
            before = ",\n"

        yield add
        text.write("[]\n" if before == "[\n" else "\n]\n")


@contextmanager
def csv_table(path: Path, columns: Sequence[str]) -> Iterator[Callable[[Sequence[Any]], object]]:
    """A CSV file.

    Args:
        path: The file.
        columns: Their names, the first row.

    Yields:
        What takes a row.
    """
    with atomic_file(path) as file, file.open("w", encoding="utf-8", newline="") as text:
        rows = csv.writer(text)
        rows.writerow(columns)
        yield rows.writerow
