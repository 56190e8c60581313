"""Subjects, actions and single sequences that a recipe leaves out, by the names that the data has for them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from cycledistill.recipes.config.overrides import did_you_mean

from ..errors import LiftingDataError
from ..recipe import LeaveOutSection

_logger = logging.getLogger(__name__)

_MOST = 30
"""Names that are listed in a message."""


def left_out(
    section: LeaveOutSection,
    sequences: Iterable[tuple[str, str, str]],
    groups: Mapping[str, Sequence[str]] | None = None,
    elsewhere: Iterable[str] = (),
) -> set[str]:
    """The names of the sequences that a recipe leaves out.

    Args:
        section: What the recipe says.
        sequences: Subject, action and name of every sequence there is, of training and testing.
        groups: Names for several sequences at once, of which those are left out that are there.
        elsewhere: Names of subjects, actions and sequences that are known too, of files that are not read now.

    Returns:
        Some of the names of ``sequences``.

    Raises:
        LiftingDataError: A name that the data does not have; those that it has are listed.
    """
    known, groups = list(sequences), groups or {}
    gone: set[str] = set()
    for place, key in enumerate(("subjects", "actions", "sequences")):
        asked: list[str] = getattr(section, key)
        words = groups if key == "sequences" else {}
        named = {entry[place] for entry in known}
        for name in asked:
            if name not in named | set(words) | set(elsewhere):
                raise LiftingDataError(f"data.leave_out.{key}: {_unknown_name(name, sorted(named), sorted(words))}")
        single = {name for each in asked for name in words.get(each, (each,))}
        gone |= {entry[2] for entry in known if entry[place] in single}
    if gone:
        _logger.info("left out by name: %s", ", ".join(sorted(gone)))
    return gone


def _unknown_name(name: str, known: list[str], groups: list[str]) -> str:
    near = [each for each in known if each.partition("/")[0] == name.partition("/")[0]]
    shown = known if len(known) <= _MOST else (near or known)[:_MOST]
    more = f", ..., {len(known)} in all" if len(shown) < len(known) else ""
    words = f"; and for several at once, {', '.join(groups)}" if groups else ""
    hint = did_you_mean(name, known + groups)
    return f"the data has no {name!r}.{hint} It has {', '.join(shown)}{more}{words}"
