"""Person boxes by a detector of torchvision, if its weights are on this machine; nothing is ever downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.reading.guard import Kind, reading
from cycledistill.recipes.weights import read_weights
from cycledistill.versions import require

from .data.detections import Detected
from .data.images import PoseDataError
from .data.pictures import GivenPictures, Picture

require("torchvision")

DETECTORS = (
    "keypointrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
)
"""Detectors of torchvision whose class 1 is a person."""


class DetectorError(RuntimeError):
    """A detector's weights are not on this machine; the message says where to get and to put them."""


def load_detector(name: str = DETECTORS[0]) -> nn.Module:
    """A person detector with weights that were trained on COCO, in eval mode, on the CPU.

    Args:
        name: One of `DETECTORS`.

    Raises:
        ValueError: Another name.
        DetectorError: The weights are not in torch's folder for them, or the file is broken or holds code.

    Example:
        >>> found = detect_persons(load_detector(), ["street.jpg"])
        >>> poses = predict(model, ["street.jpg"], [each.boxes for each in found])
    """
    if name not in DETECTORS:
        raise ValueError(f"{name!r} is no person detector of torchvision; known: {', '.join(DETECTORS)}")
    weights: Any = torchvision.models.get_model_weights(name).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    if not file.is_file():
        raise DetectorError(
            f"the weights of {name} are not on this machine, and are not downloaded unasked: save {weights.url} as "
            f"{file}, or give the boxes yourself (a detections file, or the whole picture)"
        )
    try:
        read_weights(file)  # torchvision's own loading would run pickled code
    except CheckpointError as error:
        raise DetectorError(f"these are no weights, or broken ones: {error}") from None
    with reading(file, Kind(f"holds no weights of {name}"), DetectorError):
        model: nn.Module = torchvision.models.get_model(name, weights=weights)
    return model.eval()


@torch.no_grad()
def detect_persons(detector: nn.Module, images: Sequence[Picture], threshold: float = 0.3) -> list[Detected]:
    """Boxes of the persons in each picture, best first.

    Args:
        detector: Of `load_detector`, or any module that takes a list of (3, H, W) in [0, 1] and returns for each
            ``boxes`` (left, top, right, bottom), ``labels`` (1 is a person) and ``scores``.
        images: The pictures.
        threshold: Least score of a box.

    Raises:
        PoseDataError: A picture cannot be read, or ``threshold`` is not between 0 and 1.
    """
    if not 0 <= threshold <= 1:
        raise PoseDataError(f"threshold={threshold}: a score between 0 and 1 is expected")
    given = GivenPictures(images)
    device = next((p.device for p in detector.parameters()), torch.device("cpu"))
    detector.eval()
    found = []
    for index in range(len(images)):
        pixels = torch.from_numpy(np.ascontiguousarray(given.read(str(index)))).to(device)
        out = detector([pixels.permute(2, 0, 1).float() / 255])[0]
        kept = (out["labels"] == 1) & (out["scores"] >= threshold)
        corners, scores = out["boxes"][kept].double().cpu().numpy(), out["scores"][kept].double().cpu().numpy()
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        fine = (boxes[:, 2:] > 0).all(axis=1)
        order = np.argsort(-scores[fine], kind="stable")
        found.append(Detected(boxes[fine][order], scores[fine][order]))
    return found
