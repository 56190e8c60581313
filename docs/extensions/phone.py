"""Tables of sentences on a phone: each cell gets its column's name, which ``site.css`` shows where rows are stacked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

COLUMNS = range(3, 6)  # tables of fewer columns fit, those of more hold numbers
LONG = 60  # characters of a cell that is a sentence


def stack(app: Sphinx, doctree: nodes.document, name: str) -> None:
    """Sphinx's ``doctree-resolved``: marks the tables that cannot be read in narrow columns."""
    for found in list(doctree.findall(nodes.table)):
        head, rows = next(found.findall(nodes.thead), None), list(found.findall(nodes.row))
        if head is None or len(rows[0]) not in COLUMNS:
            continue
        if max(len(cell.astext()) for cell in found.findall(nodes.entry)) < LONG:
            continue
        found["classes"].append("stacked")
        names = [cell.astext() for cell in rows[0]]
        for row in rows[1:]:
            for label, cell in zip(names, row, strict=True):
                if cell.children:
                    cell[0].insert(0, nodes.inline(text=f"{label}: ", classes=["column"]))


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("doctree-resolved", stack)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
