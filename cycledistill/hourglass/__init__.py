"""The hourglass (HoT): frames dropped and recovered."""

from cycledistill.hourglass.handle import Hourglass
from cycledistill.hourglass.wrap import unwrap_hourglass, wrap_hourglass

__all__ = ["Hourglass", "unwrap_hourglass", "wrap_hourglass"]
