"""Subjects, actions and single sequences that a recipe leaves out, by the names that the data has for them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

from cycledistill.recipes.config.overrides import did_you_mean

from ..errors import LiftingDataError
from ..recipe import LeaveOutSection

_logger = logging.getLogger(__name__)

_KEYS = ("subjects", "actions", "sequences")
"""What a recipe says, in the order of a sequence's names."""
_MOST = 30
"""Names that are listed in a message."""


def left_out(
    section: LeaveOutSection,
    sequences: Iterable[tuple[str, str, str]],
    groups: Mapping[str, Sequence[str]] | None = None,
    elsewhere: Collection[tuple[str, str, str]] = (),
) -> set[str]:
    """The names of the sequences that a recipe leaves out.

    Args:
        section: What the recipe says.
        sequences: Subject, action and name of every sequence there is, of training and testing.
        groups: Names for several sequences at once, of which those are left out that are there.
        elsewhere: The same of sequences that are known too, of files that are not read now.

    Returns:
        Some of the names of ``sequences``.

    Raises:
        LiftingDataError: A name that the data does not have; those that it has are listed.
    """
    known, groups = list(sequences), groups or {}
    gone: set[str] = set()
    for place, key in enumerate(_KEYS):
        asked: list[str] = getattr(section, key)
        words = groups if key == "sequences" else {}
        named = {entry[place] for entry in known}
        for name in asked:
            if name not in named | set(words) | {entry[place] for entry in elsewhere}:
                hint = _of_another(name, key, [*known, *elsewhere], groups)
                raise LiftingDataError(
                    f"data.leave_out.{key}: {_unknown_name(name, sorted(named), sorted(words), hint)}"
                )
        single = {name for each in asked for name in words.get(each, (each,))}
        gone |= {entry[2] for entry in known if entry[place] in single}
    if gone:
        _logger.info("left out by name: %s", ", ".join(sorted(gone)))
    return gone


def _of_another(name: str, key: str, known: list[tuple[str, str, str]], groups: Collection[str]) -> str:
    """Under which other key a name is known, in words."""
    for place, other in enumerate(_KEYS):
        if other != key and (name in {entry[place] for entry in known} or (other == "sequences" and name in groups)):
            return f" It is known under data.leave_out.{other}."
    return ""


def _unknown_name(name: str, known: list[str], groups: list[str], hint: str) -> str:
    near = [each for each in known if each.partition("/")[0] == name.partition("/")[0]]
    shown = known if len(known) <= _MOST else (near or known)[:_MOST]
    more = f", ..., {len(known)} in all" if len(shown) < len(known) else ""
    words = f"; and for several at once, {', '.join(groups)}" if groups else ""
    hint = hint or did_you_mean(name, known + groups)
    return f"the data has no {name!r}.{hint} It has {', '.join(shown)}{more}{words}"
