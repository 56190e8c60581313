"""3D human pose from 2D keypoints over time: models, Human3.6M-format data, metrics and training.

    from cycledistill.integrations.human36m import create_lifter, list_lifters

    model = create_lifter("mixste", frames=243)    # clips (B, 243, 17, 2) to (B, 243, 17, 3)

Needs ``pip install cycledistill[human36m]``. ``cycledistill convert human36m --help`` reads the
weights that the authors of these models released.
"""

import typing

from cycledistill import lazy

if typing.TYPE_CHECKING:
    from .models.lifter import Lifter as Lifter
    from .models.plugins import LifterConfig as LifterConfig
    from .models.registry import build_lifter as build_lifter
    from .models.registry import create_lifter as create_lifter
    from .models.registry import lifter_config as lifter_config
    from .models.registry import list_lifters as list_lifters
    from .weights.loading import load_lifter_weights as load_lifter_weights
    from .weights.loading import save_lifter_weights as save_lifter_weights
else:
    __all__, __getattr__, __dir__ = lazy.hand_on(
        __name__,
        {
            "Lifter": ".models.lifter",
            "LifterConfig": ".models.plugins",
            "build_lifter": ".models.registry",
            "create_lifter": ".models.registry",
            "lifter_config": ".models.registry",
            "list_lifters": ".models.registry",
            "load_lifter_weights": ".weights.loading",
            "save_lifter_weights": ".weights.loading",
        },
        requires="cycledistill[human36m]",
    )
