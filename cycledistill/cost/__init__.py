"""What a model costs."""

from cycledistill.cost.macs import Macs
from cycledistill.cost.report import CostReport, Seconds, cost

__all__ = ["CostReport", "Macs", "Seconds", "cost"]
