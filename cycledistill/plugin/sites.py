"""Under which key a module that a plug-in acts on finds its place, and which methods want the full grid."""

from __future__ import annotations

SITE = "_cycle_site"
"""Key in a swapped module's ``__dict__`` under which it finds its place in the stack."""


PRUNE_SITE = "_prune_site"
"""Key in a swapped module's ``__dict__`` under which it finds its place in the pruned stack."""


ON_THE_FULL_GRID = ("forward_intermediates", "get_intermediate_layers")
"""Methods of timm models that make maps of all patches."""


HOURGLASS_SITE = "_hourglass_site"
"""Key in a swapped module's ``__dict__`` under which it finds its place in the hourglass."""
