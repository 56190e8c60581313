"""Under which key a module that a plug-in acts on finds its state, and which methods want the full grid."""

from __future__ import annotations

CYCLE_STATE = "_cycle_state"
"""Key in a swapped module's ``__dict__`` under which it finds its state in the cycles."""


PRUNE_STATE = "_prune_state"
"""Key in a swapped module's ``__dict__`` under which it finds its state in the pruning."""


ON_THE_FULL_GRID = ("forward_intermediates", "get_intermediate_layers")
"""Methods of timm models that make maps of all patches."""


HOURGLASS_STATE = "_hourglass_state"
"""Key in a swapped module's ``__dict__`` under which it finds its state in the hourglass."""
