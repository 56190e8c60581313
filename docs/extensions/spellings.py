"""The search finds a page by either spelling of a word: quantisation or quantization, normalise or normalize.

Pages and names of functions differ in it, and so do readers. Each page gets both spellings of such words that it holds
as keywords, which the search looks at and nobody sees.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

STEMS = ("quant", "normal", "optim", "initial", "regular", "visual", "general", "token", "parallel", "serial")
WORD = re.compile(rf"\b(\w*(?:{'|'.join(STEMS)}))i([sz])(e|ed|es|er|ers|ing|ation)\b", re.IGNORECASE)


def both(text: str) -> list[str]:
    """Each word that has two spellings, in both."""
    return sorted({f"{a}i{letter}{b}".lower() for a, _, b in WORD.findall(text) for letter in "sz"})


def add(app: Sphinx, tree: nodes.document) -> None:
    """Sphinx's ``doctree-read``."""
    if found := both(tree.astext()):
        tree.insert(0, nodes.meta(name="keywords", content=", ".join(found)))


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("doctree-read", add)
    return {"parallel_read_safe": True}
