"""Poses of a lifting model, and how good they are."""

import typing

from cycledistill import lazy

if typing.TYPE_CHECKING:
    from .measure import EvalSettings as EvalSettings
    from .measure import evaluate as evaluate
    from .measure import predict as predict
    from .metrics import MotionScores as MotionScores
else:
    __all__, __getattr__, __dir__ = lazy.hand_on(
        __name__,
        {
            "EvalSettings": ".measure",
            "MotionScores": ".metrics",
            "evaluate": ".measure",
            "predict": ".measure",
        },
        requires="cycledistill[human36m]",
    )
