"""The backbones of TokenPose models as mmpose has them. Imports mmpose: see `load_mmpose`."""

from __future__ import annotations

import logging
from typing import Any

from mmengine.model import BaseModule
from mmpose.registry import MODELS
from torch import Tensor

from cycledistill.integrations.coco.models.registry import create_pose_model
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.files import read_weights

_logger = logging.getLogger(__name__)

_HRNETS = {32: "tokenpose_b", 48: "tokenpose_l_d6_plain"}


class _Backbone(BaseModule):
    """A backbone, held as ``net``; returns a tuple of one feature map.

    ``init_cfg=dict(type="Pretrained", checkpoint=path)`` starts from weights under HRNet's names. All that the backbone
    has must be in the file; what else is there (stage 4, the classifier) is left out.
    """

    def __init__(self, model: str, stage1_width: int, init_cfg: dict[str, Any] | None) -> None:
        super().__init__(init_cfg)
        if init_cfg is not None and init_cfg.get("type") != "Pretrained":
            raise ValueError(f"init_cfg={init_cfg}: dict(type='Pretrained', checkpoint=path), or None, is expected")
        # One layer: the transformer is not wanted here.
        pose = create_pose_model(model, 1, cycles=None, stage1_width=stage1_width, depth=1)
        self.net = pose.take_backbone()

    def init_weights(self) -> None:
        """Load what ``init_cfg`` names; without it the weights stay as drawn when the backbone was built.

        Raises:
            CheckpointError: A file that is missing, broken, or of another backbone.
        """
        if self.init_cfg is None:
            return
        path, own = self.init_cfg["checkpoint"], self.net.state_dict()
        read = {name.removeprefix("backbone.").removeprefix("net."): each for name, each in read_weights(path).items()}
        # Files from before PyTorch counted batches lack the counters, which nothing here reads.
        state = {name: own[name] for name in own if name.endswith("num_batches_tracked")} | read
        wrong = [name for name in own if name not in state or state[name].shape != own[name].shape]
        if wrong:
            raise CheckpointError(f"{path}: does not fit this backbone; missing or of another shape: {wrong[:4]}")
        self.net.load_state_dict({name: state[name] for name in own})
        _logger.info("%s: %d tensors loaded, %d beyond this backbone", path, len(own), len(read.keys() - own.keys()))

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Images (B, 3, H, W) to one feature map (B, C, H/4, W/4)."""
        return (self.net(images),)


@MODELS.register_module()
class TokenPoseStem(_Backbone):
    """Two strided convolutions and four bottlenecks: the backbone of SDPose-T and -S.

    Args:
        stage1_width: Middle width of the bottlenecks; features have four times as many channels.
        init_cfg: ``dict(type="Pretrained", checkpoint=path)``, or nothing.

    Source: TokenPose (ICCV 2021)
    """

    def __init__(self, stage1_width: int = 64, init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__("tokenpose_s_v1", stage1_width, init_cfg)


@MODELS.register_module()
class TokenPoseHRNet(_Backbone):
    """HRNet up to its third stage, its branch of highest resolution: the backbone of SDPose-B and TokenPose-L.

    Args:
        width: Channels of the features, 32 or 48.
        stage1_width: Middle width of the first stage: 64, as in HRNet's ImageNet weights, or 32, as in SDPose-B.
        init_cfg: ``dict(type="Pretrained", checkpoint=path)``, or nothing.

    Raises:
        ValueError: Another width.

    Source: HRNet (CVPR 2019), TokenPose (ICCV 2021)
    """

    def __init__(self, width: int = 32, stage1_width: int = 64, init_cfg: dict[str, Any] | None = None) -> None:
        if width not in _HRNETS:
            raise ValueError(f"width={width}: {' or '.join(map(str, _HRNETS))} is expected")
        super().__init__(_HRNETS[width], stage1_width, init_cfg)
