"""Token pruning (PPT)."""

from cycledistill.prune.handle import Pruning
from cycledistill.prune.wrap import unwrap_pruning, wrap_pruning

__all__ = ["Pruning", "unwrap_pruning", "wrap_pruning"]
