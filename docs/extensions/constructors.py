"""Types of constructors' parameters by their full names, so that each leads to its own page.

Sphinx evaluates the annotations of functions; of a class it evaluates those of its attributes, and leaves the
constructor's as they are written. Several integrations have an ``EvalSettings``.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, get_type_hints

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def evaluate(_app: Sphinx, subject: Any, _bound: bool) -> None:
    """Put what the annotations mean in their place, where all of them are to be had when the program runs."""
    if inspect.isfunction(subject) and subject.__name__ == "__init__":
        try:
            subject.__annotations__ = get_type_hints(subject)
        except (NameError, TypeError, AttributeError):
            return


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's entry."""
    app.connect("autodoc-before-process-signature", evaluate)
    return {"parallel_read_safe": True}
