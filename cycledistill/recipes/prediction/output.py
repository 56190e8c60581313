"""The folder that predictions go to."""

from __future__ import annotations

from pathlib import Path

from cycledistill.recipes.errors import DataError
from cycledistill.recipes.prediction.sources import Source


def check_output(folder: Path, source: Source) -> None:
    """Refuse a folder for predictions that holds something, or in which they would mix with what is predicted on.

    Raises:
        DataError: It is a file or not empty, lies in a folder whose pictures are read, or has those in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "is not empty" if folder.is_dir() else "is a file"
        raise DataError(f"the output {folder} {what}: a new folder is expected, so that nothing old is in it")
    place = folder.resolve()
    read = {each.resolve() for each in source.folders}
    homes = read | {each.parent.resolve() for each in source.files}
    if any(home in place.parents for home in read) or any(place == home or place in home.parents for home in homes):
        raise DataError(
            f"the output {folder} and {source.name} are in each other: the next run would see what is written "
            "there. Give a folder beside it"
        )
