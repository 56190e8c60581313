"""Token pruning (PPT)."""

from cycledistill.prune.wrap import Pruning, unwrap_pruning, wrap_pruning

__all__ = ["Pruning", "unwrap_pruning", "wrap_pruning"]
