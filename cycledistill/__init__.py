"""Multi-cycled transformers with self-distillation, for any vision transformer."""

from cycledistill.chain import StackError
from cycledistill.cycle import unwrap_cyclic, wrap_cyclic
from cycledistill.distill import Distill
from cycledistill.exporter import export
from cycledistill.hourglass import unwrap_hourglass, wrap_hourglass
from cycledistill.loss import CycleLoss
from cycledistill.output import CycleOutput
from cycledistill.prune import unwrap_pruning, wrap_pruning

__version__ = "0.1.0"

__all__ = [
    "CycleLoss",
    "CycleOutput",
    "Distill",
    "StackError",
    "export",
    "unwrap_cyclic",
    "unwrap_hourglass",
    "unwrap_pruning",
    "wrap_cyclic",
    "wrap_hourglass",
    "wrap_pruning",
]
