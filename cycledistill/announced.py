"""The commands that installed packages announce, by entry points of the group ``cycledistill.commands``."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
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


def lacking(error: ModuleNotFoundError, entry: EntryPoint, requires: str | None = None) -> str:
    """One line that says which package a command lacks, and what to install."""
    return missing(error, called_by(entry), requires or distribution(entry))


def distribution(entry: EntryPoint) -> str:
    """The package that announces it."""
    return entry.dist.name if entry.dist is not None else entry.module


def called_by(entry: EntryPoint) -> str:
    """The words that call it."""
    return entry.name.replace(".", " ")
