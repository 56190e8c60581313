"""From what a model predicts to joints in the picture, and how good they are."""

import typing

from cycledistill import lazy, versions

versions.require("numpy", "pycocotools")

if typing.TYPE_CHECKING:
    from .accuracy import mean_oks as mean_oks
    from .accuracy import pck as pck
    from .average_precision import PosePrediction as PosePrediction
    from .average_precision import evaluate_poses as evaluate_poses
    from .average_precision import to_results as to_results
    from .decode import decode_heatmaps as decode_heatmaps
    from .ground_truth import load_ground_truth as load_ground_truth
    from .measure import EvalSettings as EvalSettings
    from .measure import evaluate as evaluate
    from .measure import predict_persons as predict_persons
else:
    __all__, __getattr__, __dir__ = lazy.hand_on(
        __name__,
        {
            "EvalSettings": ".measure",
            "PosePrediction": ".average_precision",
            "decode_heatmaps": ".decode",
            "evaluate": ".measure",
            "evaluate_poses": ".average_precision",
            "load_ground_truth": ".ground_truth",
            "mean_oks": ".accuracy",
            "pck": ".accuracy",
            "predict_persons": ".measure",
            "to_results": ".average_precision",
        },
        requires="cycledistill[coco]",
    )
