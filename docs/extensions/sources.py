"""Links from shown source back to the reference, where one file holds names of two modules.

``sphinx.ext.viewcode`` takes one module for a file: it links back from `CycleOutput`, which is documented as
`cycledistill`'s, and from what stands beside it in that file, as if that were too. The anchors that it means are added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sphinx.addnodes import desc_signature

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx


def add_anchors(app: Sphinx, tree: nodes.document, docname: str) -> None:
    """Sphinx's ``doctree-resolved``."""
    signatures = {node.get("fullname"): node for node in tree.findall(desc_signature)}
    taken = {each for node in signatures.values() for each in node["ids"]}
    for _, _, used, module in filter(None, getattr(app.env, "_viewcode_modules", {}).values()):
        for name, page in used.items():
            anchor = f"{module}.{name}"
            if page == docname and name in signatures and anchor not in taken:
                signatures[name]["ids"].append(anchor)


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("doctree-resolved", add_anchors)
    return {"parallel_read_safe": True}
