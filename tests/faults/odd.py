"""Values that nobody expects where something else belongs."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

from tests.faults.damage import ODD, holder, places

PLAIN = st.one_of(
    st.sampled_from(ODD),
    st.integers(-3, 3),
    st.floats(),
    st.text(max_size=6),
    st.recursive(
        st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ),
)
"""What JSON can hold."""

ANY = st.one_of(PLAIN, st.sampled_from([b"a", 1j, object, len, (1, 2), (), {1, 2}, 1.5, range(3), NotImplemented]))
"""What an argument can be; no large whole number, which may be right and take for ever."""


@st.composite
def changed(draw: st.DrawFn, document: Any, values: st.SearchStrategy[Any] = PLAIN, most: int = 3) -> Any:
    """A JSON document with up to ``most`` of its values replaced or left out; often as it was."""
    found = copy.deepcopy(document)
    for _ in range(draw(st.integers(0, most))):
        there = [path for path in places(found) if path]
        if not there:
            break
        path = draw(st.sampled_from(there))
        if draw(st.integers(0, 3)):
            holder(found, path)[path[-1]] = copy.deepcopy(draw(values))
        else:
            del holder(found, path)[path[-1]]
    return found


@st.composite
def mostly(
    draw: st.DrawFn, good: dict[str, st.SearchStrategy[Any]], odd: st.SearchStrategy[Any] = ANY
) -> dict[str, Any]:
    """Some of these arguments, each as it may be, but for none, one or two that are odd."""
    found = {name: draw(good[name]) for name in sorted(good) if draw(st.booleans())}
    for name in draw(st.lists(st.sampled_from(sorted(good)), max_size=2)):
        found[name] = draw(odd)
    return found
