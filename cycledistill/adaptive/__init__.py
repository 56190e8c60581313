"""Adaptive inference: each sample stops at the cycle where it is sure.

`exit.py` is the front door. A call goes to `forward.py`, which goes from exit to exit, eagerly by `walk.py` or by the
graphs of `compiled.py`. `trial.py` tries a new kind of input out, and `samples.py` knows which tensors belong to
samples; `outputs.py` splits and joins what the model returns, `confidence.py` says how sure it is. `calibration/` finds
thresholds, and sets accuracy against cost. `checks.py` refuses what cannot be served.
"""

from cycledistill.adaptive.calibration.by_shares import Calibration
from cycledistill.adaptive.calibration.curve import Curve, Point
from cycledistill.adaptive.calibration.data import top_1
from cycledistill.adaptive.exit import AdaptiveExit

__all__ = ["AdaptiveExit", "Calibration", "Curve", "Point", "top_1"]
