"""Cycles: run the stack several times in one forward."""

from cycledistill.cycle.handle import Cyclic
from cycledistill.cycle.wrap import unwrap_cyclic, wrap_cyclic

__all__ = ["Cyclic", "unwrap_cyclic", "wrap_cyclic"]
