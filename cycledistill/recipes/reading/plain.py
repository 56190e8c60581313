"""Whether data from a file is plain: what YAML and JSON both hold, numbers finite, no larger than it was written."""

from __future__ import annotations

import re
import sys
from typing import Any

MOST_ENTRIES = 100_000
"""Of a recipe or a config. A few lines of YAML can name each other so that they stand for billions."""

_DEEPEST = 50


def is_finite(value: object) -> bool:
    """Whether a value from a file is a number, no truth value, and within what floating point can hold.

    Example:
        >>> is_finite(3), is_finite(float("nan")), is_finite(True), is_finite(10**400)
        (True, False, False, False)
    """
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    )  # nan is not


def check_plain(data: Any, where: str, error: type[Exception], key: str = "") -> None:
    """Refuse data that is not plain; the place is named by its dotted key.

    Args:
        data: What was read.
        where: The file, for the message.
        error: What is raised.
        key: Where in that the data stands.

    Raises:
        error: A number that is not finite, a key that is no text, a value of another kind (a date, bytes, a set, an
            object), a mapping or list that contains itself, more than 50 of them inside each other, or more than
            100,000 entries.

    Example:
        >>> check_plain({"optim": {"lr": float("inf")}}, "my.yaml", RecipeError)
        Traceback (most recent call last):
        RecipeError: my.yaml: optim.lr=inf: a finite number is expected
    """
    left = MOST_ENTRIES
    waiting: list[tuple[str, Any, tuple[int, ...]]] = [(key, data, ())]
    while waiting:
        key, value, around = waiting.pop()
        left -= 1
        if id(value) in around:
            raise error(f"{where}: {key or 'it'} contains itself: an alias (*name) stands inside what it names")
        if left < 0 or len(around) > _DEEPEST:
            section = re.split(r"[.[]", key)[0] or "it"
            raise error(
                f"{where}: {section} is too large: at most {MOST_ENTRIES} entries, {_DEEPEST} inside each other, are "
                "expected; aliases (*name) count as often as they stand there"
            )
        if isinstance(value, (dict, list, tuple)):
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            for name, inner in pairs:
                if isinstance(value, dict) and not isinstance(name, str):
                    raise error(f"{where}: the key {name!r:.80}{key and f' in {key}'} is no text: put it in quotes")
                place = f"{key}[{name}]" if not isinstance(value, dict) else f"{key}.{name!s:.80}".lstrip(".")
                waiting.append((place, inner, (*around, id(value))))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            if not is_finite(value):
                # Python refuses to write whole numbers of more than 4,300 digits.
                said = repr(value) if isinstance(value, float) else f"a number of {value.bit_length()} bits"
                raise error(f"{where}: {key or 'it'}={said}: a finite number is expected")
        elif not isinstance(value, (str, bool, type(None))):
            raise error(
                f"{where}: {key or 'it'}={value!r:.80} is a {type(value).__name__}, which no recipe holds: if text is "
                "meant, put it in quotes"
            )
