"""What a joint's name says: which side of the body it is on, which joint is its mirror image, whether two agree.

Annotation tools and data sets write sides in their own ways: ``left_eye``, ``eye_left``, ``l_eye``, ``L-eye``,
``Left Eye``, ``eyeL``, ``LEye``, ``leye``; those of animals' legs also ``LF``, ``RB``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}
_OTHER = {"left": "right", "right": "left"}

Reading = tuple[str | None, tuple[str, ...]]
"""What a name says: the side, and its other words (those of letters in the order of the alphabet)."""

_GUESSES = tuple(
    map(
        re.compile,
        (
            r"(?P<side>[lr])(?P<rest>[fbhrm])",  # LF, LB: front, back, hind, rear, middle
            r"(?P<rest>[fbhrm])(?P<side>[lr])",  # FL, BL
            r"(?P<rest>[a-z]+)(?P<side>left|right)",  # eyeleft
            r"(?P<side>[lr])(?P<rest>[a-z]{2,})",  # leye, Rhip
        ),
    )
)
"""Words that may hold a side; each counts only where the same guess finds the mirror image among the names."""


def readings(names: Sequence[str]) -> list[Reading]:
    """What each name of a list says, also where only the mirror image in the list tells the side.

    Joints of two lists agree where these are equal, and two of one list mirror each other where the sides alone differ.

    Example:
        >>> readings(["nose", "leye", "reye", "L_Leg", "legR"])[1:]
        [('left', ('eye',)), ('right', ('eye',)), ('left', ('leg',)), ('right', ('leg',))]
    """
    found = [canonical(name) for name in names]
    for guess in _GUESSES:
        guessed = {index: _guessed(name, guess) for index, name in enumerate(names) if found[index][0] is None}
        counted = Counter(each for each in guessed.values() if each is not None)
        for index, each in guessed.items():
            if each is not None and counted[each] == counted[_mirrored(each)] == 1:
                found[index] = each
    return found


def mirror_names(names: Sequence[str]) -> list[int]:
    """For each joint the index of its mirror image by name: itself where there is none, or more than one.

    Example:
        >>> mirror_names(["nose", "left_eye", "right_eye"])
        [0, 2, 1]
    """
    read = readings(names)
    place = {each: index for index, each in enumerate(read)}
    counted = Counter(read)
    return [
        place[_mirrored(each)] if each[0] and counted[each] == counted[_mirrored(each)] == 1 else index
        for index, each in enumerate(read)
    ]


def sides_of(names: Sequence[str]) -> list[str | None]:
    """``"left"``, ``"right"`` or nothing for each joint, also where only the mirror image tells it.

    Example:
        >>> sides_of(["nose", "leye", "reye"])
        [None, 'left', 'right']
    """
    return [side for side, _ in readings(names)]


def side_of(name: str) -> str | None:
    """``"left"``, ``"right"``, or nothing where a name has no side in it.

    Example:
        >>> side_of("L_Eye"), side_of("nose")
        ('left', None)
    """
    return canonical(name)[0]


def canonical(name: str) -> Reading:
    """A name without its style, as it reads by itself: the side, and its other words.

    Example:
        >>> canonical("Left Hip") == canonical("hip_l")
        True
    """
    words = _words(name)
    side = None
    for number, word in enumerate(words):
        if word in _SIDES:
            side = _SIDES[word]
            del words[number]
            break
    else:
        whole = re.match(r"(left|right)(?=[a-z]{2})", words[0])
        if whole:  # lefteye
            side, words[0] = whole[1], words[0].removeprefix(whole[1])
    return side, _other_words(words)


def first_difference(names: Sequence[str], others: Sequence[str]) -> int | None:
    """The first joint that two lists do not agree on; nothing where they agree.

    Names that are numbers say nothing, and agree with all.
    """
    if len(names) != len(others):
        return min(len(names), len(others))
    read, other_read = readings(names), readings(others)
    for index, pair in enumerate(zip(names, others, strict=True)):
        told = all(re.search("[A-Za-z]", name) for name in pair)
        if told and read[index] != other_read[index]:
            return index
    return None


def _words(name: str) -> list[str]:
    found = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+", name)
    return [word.lower() for word in found] or [name]


def _other_words(words: Sequence[str]) -> tuple[str, ...]:
    """The order of words is style, that of numbers is not: finger_1_2 is another joint than finger_2_1."""
    if "head" in words:
        words = [word for word in words if word != "top"]  # CrowdPose's own files say head for the top of the head
    return (*sorted(word for word in words if not word.isdigit()), *(word for word in words if word.isdigit()))


def _guessed(name: str, guess: re.Pattern[str]) -> Reading | None:
    words = _words(name)
    for number, word in enumerate(words):
        found = guess.fullmatch(word)
        if found:
            words[number] = found["rest"]
            return _SIDES[found["side"]], _other_words(words)
    return None


def _mirrored(read: Reading) -> Reading:
    return _OTHER.get(read[0] or ""), read[1]
