"""Adaptive inference: each sample stops at the cycle where it is sure."""

from cycledistill.adaptive.calibration import Calibration
from cycledistill.adaptive.curve import Curve, Point
from cycledistill.adaptive.exit import AdaptiveExit

__all__ = ["AdaptiveExit", "Calibration", "Curve", "Point"]
