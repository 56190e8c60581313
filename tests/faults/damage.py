"""Files as strangers send them: cut short, with bytes turned, with values that nobody expects."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

ODD: tuple[Any, ...] = (None, True, -1, 10**400, 1e999, float("nan"), "x", "", [], [1], {}, {"a": 1}, [[1, 2]], "\0")
"""What may stand where something else belongs; all of it can come out of a JSON file."""


def damaged(data: bytes, seed: int = 0, cuts: int = 40, flips: int = 160) -> Iterator[tuple[str, bytes]]:
    """A file's bytes cut at many places, the ends and beginnings dense; with some bytes turned; with a piece missing.

    Yields:
        What was done, in words, and the bytes.
    """
    draw = random.Random(seed)
    ends = {0, 1, 2, 3, 4, 7, 8, 9, 16, 64, *(len(data) - back for back in (1, 2, 4, 22, 23, 64))}
    ends |= {draw.randrange(len(data)) for _ in range(cuts)}
    for end in sorted(end for end in ends if 0 <= end < len(data)):
        yield f"cut after {end} of {len(data)} bytes", data[:end]
    for _ in range(flips):
        turned, places = bytearray(data), [draw.randrange(len(data)) for _ in range(draw.choice((1, 1, 2, 8)))]
        for place in places:
            turned[place] = draw.randrange(256)
        yield f"bytes {places} turned, seed {seed}", bytes(turned)
    for _ in range(cuts // 2):
        start = draw.randrange(len(data))
        length = draw.randrange(1, 64)
        yield f"{length} bytes missing at {start}", data[:start] + data[start + length :]


def one_damaged(data: bytes, seed: int) -> tuple[str, bytes]:
    """One of what `damaged` yields for this seed."""
    few = list(damaged(data, seed, cuts=4, flips=16))
    return few[seed % len(few)]


def odd_documents(document: Any, values: tuple[Any, ...] = ODD) -> Iterator[tuple[str, Any]]:
    """A JSON document with one value at a time replaced, or left out; the first two entries of each list alone.

    Yields:
        Where and what, in words, and the document, a copy.
    """
    for path in places(document):
        for value in values:
            changed = copy.deepcopy(document)
            if not path:
                yield f"{value!r:.40} as the whole", value
                continue
            holder(changed, path)[path[-1]] = copy.deepcopy(value)
            yield f"{value!r:.40} at {path}", changed
        if path:
            changed = copy.deepcopy(document)
            del holder(changed, path)[path[-1]]
            yield f"nothing at {path}", changed


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of keys to each value in a JSON document; of a list, to its first two entries."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*path, key))


def holder(document: Any, path: tuple[Any, ...]) -> Any:
    """The mapping or list in which the last key of a path stands."""
    for key in path[:-1]:
        document = document[key]
    return document
