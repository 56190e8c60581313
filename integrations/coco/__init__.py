"""Human pose on COCO and CrowdPose: TokenPose, SDPose, PPT and DistilPose models, data, evaluation and training.

    from cycledistill.integrations.coco import create_pose_model, list_pose_models

    model = create_pose_model("sdpose_s_v1", num_keypoints=17)   # TokenPose made cyclic; one cycle in eval

Needs ``pip install cycledistill[coco]``. ``cycledistill convert coco --help`` reads the weights
that the authors of these models released.
"""

import typing

from cycledistill import lazy

if typing.TYPE_CHECKING:
    from cycledistill.recipes.errors import CheckpointError as CheckpointError

    from .data.joints import joints_of as joints_of
    from .losses.heatmap import HeatmapLoss as HeatmapLoss
    from .losses.rle import RLELoss as RLELoss
    from .models.config import TokenPoseConfig as TokenPoseConfig
    from .models.plugins import PoseModelConfig as PoseModelConfig
    from .models.registry import build_pose_model as build_pose_model
    from .models.registry import create_pose_model as create_pose_model
    from .models.registry import list_pose_models as list_pose_models
    from .models.registry import pose_model_config as pose_model_config
    from .models.tokenpose import TokenPose as TokenPose
    from .weights.loading import load_imagenet_backbone as load_imagenet_backbone
    from .weights.loading import load_pose_weights as load_pose_weights
    from .weights.loading import save_pose_weights as save_pose_weights
else:
    __all__, __getattr__, __dir__ = lazy.hand_on(
        __name__,
        {
            "CheckpointError": "cycledistill.recipes.errors",
            "HeatmapLoss": ".losses.heatmap",
            "PoseModelConfig": ".models.plugins",
            "RLELoss": ".losses.rle",
            "TokenPose": ".models.tokenpose",
            "TokenPoseConfig": ".models.config",
            "build_pose_model": ".models.registry",
            "create_pose_model": ".models.registry",
            "joints_of": ".data.joints",
            "list_pose_models": ".models.registry",
            "load_imagenet_backbone": ".weights.loading",
            "load_pose_weights": ".weights.loading",
            "pose_model_config": ".models.registry",
            "save_pose_weights": ".weights.loading",
        },
        requires="cycledistill[coco]",
    )
