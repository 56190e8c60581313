"""Links to the documentation of Python, PyTorch and NumPy, without the network.

``inventories/*.inv`` are lists of the few names that the reference links to, in the first format of Sphinx's
inventories, which is plain text: name, kind, page. Signatures name some of them by where they are defined.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sphinx.ext.intersphinx import missing_reference

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

PUBLIC = {
    "NDArray": "numpy.typing.NDArray",
    "Tensor": "torch.Tensor",
    "nn.Module": "torch.nn.Module",
    "numpy._typing._array_like.ArrayLike": "numpy.typing.ArrayLike",
    "numpy._typing._array_like.NDArray": "numpy.typing.NDArray",
    "torch._C.Generator": "torch.Generator",
    "torch.nn.modules.module.Module": "torch.nn.Module",
}
"""Name in a signature -> the name that its documentation has."""


def by_public_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.TextElement
) -> nodes.reference | None:
    """Sphinx's ``missing-reference``: look again, under the public name."""
    name = PUBLIC.get(node.get("reftarget", ""))
    if name is None:
        return None
    node["reftarget"] = name
    return missing_reference(app, env, node, shown)


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("missing-reference", by_public_name)
    return {"parallel_read_safe": True}
