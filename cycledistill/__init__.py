"""Multi-cycled transformers with self-distillation, for any vision transformer."""

import typing

from cycledistill import lazy

__version__ = "0.1.0"

if typing.TYPE_CHECKING:
    from cycledistill.cycle.exits import at_exit as at_exit
    from cycledistill.cycle.wrap import unwrap_cyclic as unwrap_cyclic
    from cycledistill.cycle.wrap import wrap_cyclic as wrap_cyclic
    from cycledistill.distill import Distill as Distill
    from cycledistill.errors import StackError as StackError
    from cycledistill.exporter.export import export as export
    from cycledistill.hourglass.wrap import unwrap_hourglass as unwrap_hourglass
    from cycledistill.hourglass.wrap import wrap_hourglass as wrap_hourglass
    from cycledistill.loss import CycleLoss as CycleLoss
    from cycledistill.output import CycleOutput as CycleOutput
    from cycledistill.plugin.saved import save_wrapping as save_wrapping
    from cycledistill.prune.wrap import unwrap_pruning as unwrap_pruning
    from cycledistill.prune.wrap import wrap_pruning as wrap_pruning
    from cycledistill.saved.rewrap import rewrap as rewrap
    from cycledistill.verification.proof import verify as verify
    from cycledistill.verification.table import Verification as Verification
else:
    __all__, __getattr__, __dir__ = lazy.hand_on(
        __name__,
        {
            "CycleLoss": ".loss",
            "CycleOutput": ".output",
            "Distill": ".distill",
            "StackError": ".errors",
            "Verification": ".verification.table",
            "at_exit": ".cycle.exits",
            "export": ".exporter.export",
            "rewrap": ".saved.rewrap",
            "save_wrapping": ".plugin.saved",
            "unwrap_cyclic": ".cycle.wrap",
            "unwrap_hourglass": ".hourglass.wrap",
            "unwrap_pruning": ".prune.wrap",
            "verify": ".verification.proof",
            "wrap_cyclic": ".cycle.wrap",
            "wrap_hourglass": ".hourglass.wrap",
            "wrap_pruning": ".prune.wrap",
        },
    )
