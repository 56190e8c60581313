"""A pose model that answers in joints: decoding inside the module, for export and for use as it is."""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from cycledistill import CycleOutput

from .data.joints import JOINT_SETS, joints_of
from .evaluation.coordinates import decode_coordinates
from .evaluation.decode import Method, decode_heatmaps
from .models.config import TokenPoseConfig
from .models.tokenpose import TokenPose


class DecodedPose(nn.Module):
    """A pose model with its decoding: images to joints in pixels of the images, and scores.

    The flip test is not in it, boxes are not either: a joint (x, y) of a crop that shows the box with the upper left
    corner ``(left, top)`` and the size ``(w, h)`` is at ``(left + x * w / width, top + y * h / height)`` of the
    picture.

    Args:
        model: A pose model, wrapped or not, or what ``prepare_for_inference`` returned; not copied. The new module is
            in the mode that the model is in.
        method: How heatmaps are decoded, as for ``decode_heatmaps``; a regression head's numbers need no decoding. All
            three methods can be exported.

    Raises:
        ValueError: An unknown method.

    Example:
        >>> pose = create_pose_model("sdpose_s_v1").eval()
        >>> joints = DecodedPose(pose)(torch.zeros(2, 3, 256, 192))
        >>> joints["keypoints"].shape, joints["scores"].shape
        (torch.Size([2, 17, 2]), torch.Size([2, 17]))
        >>> export(DecodedPose(pose), "pose.onnx", images)
    """

    def __init__(self, model: TokenPose, method: Method = "dark") -> None:
        super().__init__()
        if method not in ("dark", "quarter", "none"):
            raise ValueError(f'method={method!r}: "dark", "quarter" or "none" is expected')
        self.model, self.method = model, method
        self.train(model.training)

    @property
    def config(self) -> TokenPoseConfig:
        """That of the model."""
        return self.model.config

    def export_metadata(self) -> dict[str, str]:
        """What an exported file says: what the model says, its joints, those of their number too, and the decoding."""
        own: dict[str, str] = getattr(self.model, "export_metadata", dict)()
        known = getattr(self.config, "num_keypoints", 0) in map(len, JOINT_SETS.values())
        joints = {"joints": json.dumps(joints_of(self.model).to_dict())} if known else {}
        return {**joints, **own, "decode": json.dumps(self.method)}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Find the joints of one person an image.

        Args:
            images: (B, 3, H, W) of the size in the config, RGB, normalised by ImageNet's mean and deviation.

        Returns:
            ``keypoints`` (B, K, 2), x before y, in pixels of the images, and ``scores`` (B, K). A joint whose score is
            not positive was not found; its position means nothing.

        Raises:
            ValueError: Images of another shape, or a wrapped model in training mode.
        """
        predicted = self.model(images)
        if isinstance(predicted, CycleOutput):
            raise ValueError("the model is in training mode, in which it returns every cycle: call eval() first")
        height, width = self.config.image_size
        if predicted.ndim == 4:
            positions, scores = decode_heatmaps(predicted, self.method)
            height, width = height / predicted.shape[2], width / predicted.shape[3]
        else:  # fractions of the image
            positions, scores = decode_coordinates(predicted.float())
        step = torch.tensor([width, height], dtype=positions.dtype, device=positions.device)
        return {"keypoints": positions * step, "scores": scores}
