"""Multi-cycled transformers with self-distillation, for any vision transformer."""

from cycledistill.cycle.wrap import unwrap_cyclic, wrap_cyclic
from cycledistill.distill import Distill
from cycledistill.errors import StackError
from cycledistill.exporter.export import export
from cycledistill.hourglass.wrap import unwrap_hourglass, wrap_hourglass
from cycledistill.loss import CycleLoss
from cycledistill.output import CycleOutput
from cycledistill.prune.wrap import unwrap_pruning, wrap_pruning

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
