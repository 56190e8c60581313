"""3D human pose from 2D keypoints over time: models, Human3.6M-format data, metrics and training.

    from cycledistill.integrations.human36m import create_lifter, list_lifters

    model = create_lifter("mixste", frames=243)    # clips (B, 243, 17, 2) to (B, 243, 17, 3)

Needs ``pip install cycledistill[human36m]``. ``python -m cycledistill.integrations.human36m.convert --help`` reads the
weights that the authors of these models released.
"""

from .models.lifter import Lifter
from .models.plugins import LifterConfig
from .models.registry import build_lifter, create_lifter, lifter_config, list_lifters
from .weights.loading import load_lifter_weights, save_lifter_weights

__all__ = [
    "Lifter",
    "LifterConfig",
    "build_lifter",
    "create_lifter",
    "lifter_config",
    "list_lifters",
    "load_lifter_weights",
    "save_lifter_weights",
]
