"""TokenPose's transformer as a head of mmpose, run in cycles while it trains. Imports mmpose: see `load_mmpose`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import MessageHub
from mmengine.structures import PixelData
from mmpose.evaluation.functional import pose_pck_accuracy
from mmpose.models.heads.base_head import BaseHead
from mmpose.models.utils.tta import flip_heatmaps
from mmpose.registry import KEYPOINT_CODECS, MODELS
from mmpose.utils.tensor_utils import to_numpy
from torch import Tensor

from cycledistill import CycleLoss, CycleOutput, wrap_cyclic
from cycledistill.integrations.coco.models.registry import create_pose_model
from cycledistill.recipes.config.distillation import read_distill

from .hooks import DISTILL_FACTOR

Features = Sequence[Tensor]


@MODELS.register_module()
class SDPoseHead(BaseHead):
    """Keypoint tokens, transformer and heatmap head of a TokenPose model; with cycles, SDPose's.

    While training every cycle meets the ground truth, and later cycles teach earlier ones; elsewhere one cycle runs.

    Args:
        model: Name of the pose model, such as ``"sdpose_t"``; it must be one that goes with the backbone.
        cycles: How often the stack runs while training; ``None``: a plain TokenPose.
        distill: What later cycles teach earlier ones: a preset, a mapping of ``Distill``'s fields, or ``None``.
        exit: The cycle that predicts.
        num_keypoints: Keypoints to predict.
        image_size: Height and width of the input in pixels; the codec's ``input_size`` is (width, height).
        options: Of the pose model, such as ``{"stage1_width": 32}``.
        loss: The loss of one cycle's heatmaps.
        decoder: The codec.
        init_cfg: As mmengine's.

    Raises:
        ValueError: A model that predicts no heatmaps, or a codec of other sizes than the model's.
        StackError: Cycles that the model cannot run.

    Source: SDPose (CVPR 2024)
    """

    def __init__(
        self,
        model: str,
        cycles: int | None = 2,
        distill: str | Mapping[str, Any] | None = "sdpose",
        exit: int = 1,
        num_keypoints: int = 17,
        image_size: tuple[int, int] = (256, 192),
        options: Mapping[str, Any] | None = None,
        loss: Mapping[str, Any] = {"type": "KeypointMSELoss", "use_target_weight": True},
        decoder: Mapping[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        size = tuple(image_size)
        self.pose = create_pose_model(model, num_keypoints, cycles=None, image_size=size, **(options or {}))
        self.pose.take_backbone()
        config: Any = self.pose.config
        if config.head != "heatmap":
            raise ValueError(f"model={model!r} predicts numbers ({config.head!r}): a model of heatmaps is expected")
        self.decoder = None if decoder is None else KEYPOINT_CODECS.build(dict(decoder))
        if self.decoder is not None:
            _check_codec(self.decoder, config.image_size, config.heatmap_size)
        self.loss_module = MODELS.build(dict(loss))
        self.criterion = CycleLoss(self._task_loss)
        if cycles is not None:
            scheme = read_distill(dict(distill)) if isinstance(distill, Mapping) else distill
            handle: Any = wrap_cyclic(self.pose, cycles, scheme, blocks="blocks").cyclic
            handle.exit = exit

    def forward(self, feats: Features) -> Tensor:
        """Feature maps, the last of which counts, to one cycle's heatmaps (B, K, H, W)."""
        out = self.pose(feats[-1])
        return out[0] if isinstance(out, CycleOutput) else out

    def loss(
        self, feats: Features, batch_data_samples: Sequence[Any], train_cfg: Mapping[str, Any] | None = None
    ) -> dict[str, Tensor]:
        """The terms of the loss, which mmpose sums, and the accuracy of the first cycle and the last.

        Returns:
            ``loss_task_1``, ``loss_task_2``, ... and the distillation terms, such as ``loss_token_keypoint``, weighted;
            ``acc_pose`` and ``acc_pose_last``, which are logged alone.
        """
        out = self.pose(feats[-1])
        target = torch.stack([sample.gt_fields.heatmaps for sample in batch_data_samples])
        weight = torch.cat([sample.gt_instance_labels.keypoint_weights for sample in batch_data_samples])
        parts = self.criterion.parts(out, target, weight)
        taught = out.losses if isinstance(out, CycleOutput) else {}
        factor = MessageHub.get_current_instance().get_info(DISTILL_FACTOR, 1.0) if taught else 1.0
        losses = {f"loss_{name}": value * factor if name in taught else value for name, value in parts.items()}
        if (train_cfg or {}).get("compute_acc", True):
            maps = {"acc_pose": out[0], "acc_pose_last": out[-1]} if isinstance(out, CycleOutput) else {"acc_pose": out}
            losses |= {name: _accuracy(each, target, weight) for name, each in maps.items()}
        return losses

    def predict(
        self,
        feats: Features | Sequence[Features],
        batch_data_samples: Sequence[Any],
        test_cfg: Mapping[str, Any] | None = None,
    ) -> Any:
        """Poses, and heatmaps too if ``test_cfg`` has ``output_heatmaps``.

        Args:
            feats: Feature maps; for a flip test, those of the images and of the mirrored images.
            batch_data_samples: What the images are.
            test_cfg: ``flip_test``, ``flip_mode``, ``shift_heatmap``, ``output_heatmaps``.
        """
        settings = test_cfg or {}
        if settings.get("flip_test", False):
            plain, mirrored = feats
            flipped = flip_heatmaps(
                self.forward(mirrored),  # type: ignore[arg-type]
                flip_mode=settings.get("flip_mode", "heatmap"),
                flip_indices=batch_data_samples[0].metainfo["flip_indices"],
                shift_heatmap=settings.get("shift_heatmap", False),
            )
            heatmaps = (self.forward(plain) + flipped) * 0.5  # type: ignore[arg-type]
        else:
            heatmaps = self.forward(feats)  # type: ignore[arg-type]
        poses = self.decode(heatmaps)
        if settings.get("output_heatmaps", False):
            return poses, [PixelData(heatmaps=each) for each in heatmaps.detach()]
        return poses

    def _task_loss(self, heatmaps: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        # The square of a small difference is lost in half precision.
        with torch.autocast(heatmaps.device.type, enabled=False):
            return self.loss_module(heatmaps.float(), target.float(), weight)


def _accuracy(heatmaps: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    _, average, _ = pose_pck_accuracy(to_numpy(heatmaps.float()), to_numpy(target), to_numpy(weight) > 0)
    return torch.tensor(average, device=target.device)


def _check_codec(codec: Any, image_size: tuple[int, int], heatmap_size: tuple[int, int]) -> None:
    for name, size in (("input_size", image_size), ("heatmap_size", heatmap_size)):
        given = tuple(getattr(codec, name))
        if given != size[::-1]:
            raise ValueError(
                f"decoder: {name}={given} (width, height), and the model's is {size[::-1]}; set the codec's sizes, or "
                "the head's image_size (height, width)"
            )
