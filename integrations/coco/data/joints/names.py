"""What a joint's name says: which side of the body it is on, which joint is its mirror image, whether two agree.

Annotation tools and data sets write sides in their own ways: ``left_eye``, ``eye_left``, ``l_eye``, ``L-eye``,
``Left Eye``, ``eyeL``, ``LEye``, ``leye``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SWAPPED = {"left": "right", "right": "left", "l": "r", "r": "l"}

_STYLES = tuple(
    map(
        re.compile,
        (
            r"left|right|Left|Right|LEFT|RIGHT",
            r"(?<![A-Za-z])[lrLR](?![A-Za-z])",  # a letter by itself: l_eye, L-eye, eye.r, L1
            r"^[lrLR](?=[A-Z][a-z])",  # LEye, rHip
            r"(?<=[a-z0-9])[LR]$",  # eyeL
            r"^[lrLR](?=[a-z]{2})",  # leye, Rhip
        ),
    )
)
"""How a side is written, the clearest first; a style counts only where the name's mirror image is there as well."""


def mirror_names(names: Sequence[str]) -> list[int]:
    """For each joint the index of its mirror image by name: itself where no other joint's name is its own, swapped.

    Example:
        >>> mirror_names(["nose", "left_eye", "right_eye"])
        [0, 2, 1]
    """
    place = {name: index for index, name in enumerate(names)}
    return [found[0] if (found := _mirror(name, place)) else index for index, name in enumerate(names)]


def sides_of(names: Sequence[str]) -> list[str | None]:
    """``"left"``, ``"right"`` or nothing for each joint, also where only the mirror image tells it.

    Example:
        >>> sides_of(["nose", "leye", "reye"])
        [None, 'left', 'right']
    """
    place = {name: index for index, name in enumerate(names)}
    return [found[1] if (found := _mirror(name, place)) else side_of(name) for name in names]


def side_of(name: str) -> str | None:
    """``"left"``, ``"right"``, or nothing where a name has no side in it.

    Example:
        >>> side_of("L_Eye"), side_of("nose")
        ('left', None)
    """
    return canonical(name)[0]


def canonical(name: str) -> tuple[str | None, frozenset[str]]:
    """A name without its style: the side, and its other words. Joints of two files agree where these are equal.

    Example:
        >>> canonical("Left Hip") == canonical("hip_l")
        True
    """
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]
    side = None
    for number, word in enumerate(words):
        if word in _SWAPPED:
            side = "left" if word.startswith("l") else "right"
            del words[number]
            break
    else:
        first = words[0] if words else ""
        whole = re.match(r"(left|right)(?=[a-z]{2})", first)
        if whole:  # lefteye
            side, words[0] = whole[1], first.removeprefix(whole[1])
    if "head" in words:
        words = [word for word in words if word != "top"]  # CrowdPose's own files say head for the top of the head
    return side, frozenset(words)


def first_difference(names: Sequence[str], others: Sequence[str]) -> int | None:
    """The first joint that two lists do not agree on; nothing where they agree.

    Names that are numbers say nothing, and agree with all.
    """
    if len(names) != len(others):
        return min(len(names), len(others))
    for index, (one, other) in enumerate(zip(names, others, strict=True)):
        told = all(re.search("[A-Za-z]", name) for name in (one, other))
        if told and canonical(one) != canonical(other):
            return index
    return None


def _mirror(name: str, place: dict[str, int]) -> tuple[int, str] | None:
    """The mirror image among the names, and the side that this name then is of."""
    for style in _STYLES:
        for found in style.finditer(name):
            swapped = name[: found.start()] + _other_side(found[0]) + name[found.end() :]
            if swapped in place:
                return place[swapped], "left" if found[0].lower().startswith("l") else "right"
    return None


def _other_side(word: str) -> str:
    other = _SWAPPED[word.lower()]
    return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other
