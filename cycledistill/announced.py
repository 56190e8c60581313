"""What installed packages announce by entry points: commands (``cycledistill.commands``), and whose a run is."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from cycledistill.lazy import missing
from cycledistill.versions import VersionError

GROUP = "cycledistill.commands"
Words = tuple[str, ...]
"""The words that call a command."""
Announced = dict[Words, list[EntryPoint]]


def find_entries() -> Announced:
    """Every command; one that several packages announce has several entries."""
    found: Announced = {}
    for entry in entry_points(group=GROUP):
        others = found.setdefault(tuple(entry.name.split(".")), [])
        if all(entry.value != other.value for other in others):
            others.append(entry)
    return found


def load_entry(entry: EntryPoint) -> Any:
    """The command, or one line that says why there is none."""
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        return lacking(error, entry)
    except VersionError as error:
        return str(error)
    except Exception as error:  # another package's fault must not take the other commands away
        return f"{entry.value} of {distribution(entry)} cannot be loaded: {type(error).__name__}: {error}"


def announced(*start: str) -> dict[str, Any]:
    """The commands that begin with the words ``start``, by their other words; without those that cannot be loaded.

    Example:
        >>> sorted(announced("train"))
        ['coco', 'human36m', 'imagenet', 'multiview']
    """
    found = {
        " ".join(words[len(start) :]): load_entry(entries[0])
        for words, entries in sorted(find_entries().items())
        if len(words) > len(start) and words[: len(start)] == start
    }
    return {words: command for words, command in found.items() if not isinstance(command, str)}


def whose_run(group: str, path: Path, *more: Any) -> Any:
    """What the integration says of a run or checkpoint that trained it.

    Args:
        group: Of the entry points: functions that take the folder and ``more``, and return ``None`` of another's.
        path: The folder.
        more: Further arguments.

    Raises:
        ValueError: There is no such folder, what is in it is damaged, or no integration knows it.
    """
    if not path.is_dir():
        raise ValueError(f"{path}: the folder of a run or checkpoint is expected")
    asked, absent = [], []
    for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
        try:
            opens = entry.load()
        except ModuleNotFoundError as error:  # an integration whose packages are not installed
            absent.append(f"{entry.name} (needs {error.name})")
            continue
        asked.append(entry.name)
        found = opens(path, *more)
        if found is not None:
            return found
    names = ", ".join(asked) or "none; is cycledistill installed?"
    others = f"; could not be asked: {', '.join(absent)}" if absent else ""
    raise ValueError(f"{path} holds no checkpoint that an integration knows (asked: {names}{others})")


def lacking(error: ModuleNotFoundError, entry: EntryPoint, requires: str | None = None) -> str:
    """One line that says which package a command lacks, and what to install."""
    return missing(error, called_by(entry), requires or distribution(entry))


def distribution(entry: EntryPoint) -> str:
    """The package that announces it."""
    return entry.dist.name if entry.dist is not None else entry.module


def called_by(entry: EntryPoint) -> str:
    """The words that call it."""
    return entry.name.replace(".", " ")
