"""Human pose on COCO and CrowdPose: TokenPose, SDPose, PPT and DistilPose models, data, evaluation and training.

    from cycledistill.integrations.coco import create_pose_model, list_pose_models

    model = create_pose_model("sdpose_s_v1", num_keypoints=17)   # TokenPose made cyclic; one cycle in eval

Needs ``pip install cycledistill[coco]``. ``python -m cycledistill.integrations.coco.convert --help`` reads the weights
that the authors of these models released.
"""

from cycledistill.recipes.errors import CheckpointError

from .losses.heatmap import HeatmapLoss
from .losses.rle import RLELoss
from .models.config import TokenPoseConfig
from .models.plugins import PoseModelConfig
from .models.registry import build_pose_model, create_pose_model, list_pose_models, pose_model_config
from .models.tokenpose import TokenPose
from .weights.loading import load_imagenet_backbone, load_pose_weights, save_pose_weights

__all__ = [
    "CheckpointError",
    "HeatmapLoss",
    "PoseModelConfig",
    "RLELoss",
    "TokenPose",
    "TokenPoseConfig",
    "build_pose_model",
    "create_pose_model",
    "list_pose_models",
    "load_imagenet_backbone",
    "load_pose_weights",
    "pose_model_config",
    "save_pose_weights",
]
