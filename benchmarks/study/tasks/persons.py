"""Keypoints of persons in photographs."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from cycledistill.recipes.reading.guard import ARCHIVE, reading

from ..errors import StudyError
from ..expected import FOLDER, Settings, number, one_of, whole
from ..plan import Network
from .keypoints import KeypointNetwork, heatmap_loss, places
from .pictures import shuffled
from .task import Inputs, draw

_MARGIN = 1.25
"""Of the square around a person's box."""
_SPARE = 1.25
"""Of what is kept around that square, so that it can be turned, moved and enlarged."""

_Read = tuple[Tensor, Tensor, Tensor, Tensor]


class Persons:
    """One person a picture; a joint is found where its heatmap is highest.

    Args:
        set: Name of a folder of ``data`` that holds ``NAME.zip`` with ``images/`` and ``annotations/{train,val}.json``
            in COCO's format, whose names of joints say ``left_`` and ``right_``.
        side: Pixels of the square that is shown.
        patch: Pixels of a patch's side.
        loss: ``mse`` of heatmaps with a Gaussian of one pixel, as in the papers, or ``ce``, cross-entropy with it.
        turn: Largest angle of a training picture, in degrees.
        scale: It is enlarged or shrunk by up to this share.
    """

    blocks = "blocks"
    confidence = "probability"
    settings: ClassVar[Settings] = {
        "set": FOLDER,
        "side": whole(2),
        "patch": whole(1, lambda patch, given: given["side"] % patch == 0, "that divides side"),
        "loss": one_of("mse", "ce"),
        "turn": number("from 0 to 180", lambda angle: 0 <= angle <= 180),
        "scale": number("from 0 to below 1", lambda share: 0 <= share < 1),
    }

    def __init__(
        self,
        *,
        set: str,
        side: int,
        patch: int,
        loss: str,
        turn: float,
        scale: float,
        data: Path | None,
        device: torch.device,
    ) -> None:
        if data is None or not (data / set / f"{set}.zip").is_file():
            raise StudyError(
                f"the photographs of {set} are not in the package: give --data, with {set}/{set}.zip in it"
            )
        self.side, self.patch, self.kind, self.turn, self.scale = side, patch, loss, math.radians(turn), scale
        self.device = device
        train, names = read_persons(data / set / f"{set}.zip", "train", side)
        val, _ = read_persons(data / set / f"{set}.zip", "val", side)
        self.joints, self.mirrored = len(names), torch.tensor(mirror_order(names), device=device)
        self.train = tuple(each.to(device) for each in train)
        shown, joints = moved(*(each.to(device) for each in val[:2]), side, *torch.zeros(2, len(val[0]), device=device))
        self.tested = shown, joints, *(each.to(device) for each in val[2:])
        self.example = (torch.zeros(1, 3, side, side),)

    def network(self, size: Network) -> nn.Module:
        """See `Task`."""
        cells = self.side // 2
        return KeypointNetwork(size, channels=3, side=self.side, patch=self.patch, joints=self.joints, cells=cells)

    def batch(self, seed: int, step: int, size: int) -> tuple[Tensor, Inputs]:
        """See `Task`; mirrored in half of the cases, turned and scaled."""
        index = shuffled(len(self.train[0]), seed, step, size).to(self.device)
        pictures, joints, seen, _ = (each[index] for each in self.train)
        generator = draw(seed, step, 1, device=self.device)
        turn, scale, flip = torch.rand(3, size, generator=generator, device=self.device)
        pictures, joints = moved(
            pictures, joints, self.side, self.turn * (2 * turn - 1), torch.log1p(self.scale * (2 * scale - 1))
        )
        flips = flip < 0.5
        other = torch.stack([self.side - joints[..., 0], joints[..., 1]], dim=-1)[:, self.mirrored]
        pictures = torch.where(flips[:, None, None, None], pictures.flip(3), pictures)
        joints = torch.where(flips[:, None, None], other, joints)
        seen = torch.where(flips[:, None], seen[:, self.mirrored], seen)
        return pictures, (joints, seen)

    def loss(self, output: Tensor, *target: Tensor) -> Tensor:
        """Of the heatmaps of labelled joints."""
        return heatmap_loss(self.kind, output, target[0], target[1].float(), self.side)

    def test(self) -> Iterator[tuple[str, Tensor, Inputs]]:
        """See `Task`."""
        for pictures, *target in zip(*(each.split(250) for each in self.tested), strict=True):
            yield "", pictures, tuple(target)

    def right(self, output: Tensor, *target: Tensor) -> dict[str, Tensor]:
        """``pck``: the share of a person's labelled joints found within a tenth of the longer side of their box."""
        joints, seen, length = target
        near = (places(output, self.side) - joints).norm(dim=-1) < 0.1 * length[:, None]
        return {"pck": (near & seen).sum(1) / seen.sum(1)}


def moved(pictures: Tensor, joints: Tensor, side: int, turn: Tensor, grow: Tensor) -> tuple[Tensor, Tensor]:
    """The middle of pictures, turned and enlarged, in [-1, 1], (B, 3, side, side), and its joints (B, K, 2).

    Args:
        pictures: Bytes (B, 3, S', S'), larger than ``side``.
        joints: (B, K, 2), in pixels of the middle.
        side: Pixels of the middle that are shown.
        turn: Radians (B,).
        grow: Logarithm of the scale (B,).
    """
    cos, sin = turn.cos() * grow.exp(), turn.sin() * grow.exp()
    matrix = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)  # of the picture's points
    centre = side / 2
    placed = (joints - centre) @ matrix.mT + centre
    back = torch.linalg.inv(matrix) * (side / pictures.shape[-1])
    grid = F.affine_grid(F.pad(back, (0, 1)), [len(pictures), 3, side, side], align_corners=False)
    return F.grid_sample(pictures.float(), grid, align_corners=False) / 127.5 - 1, placed


def mirror_order(names: list[str]) -> list[int]:
    """Where each joint is found in a mirror: left and right change places."""
    swapped = {"left": "right", "right": "left"}
    others = ["_".join(swapped.get(part, part) for part in name.split("_")) for name in names]
    if alone := [name for name, other in zip(names, others, strict=True) if other not in names]:
        raise StudyError(f"joint {alone[0]!r} has none on the other side; they are {', '.join(names)}")
    return [names.index(other) for other in others]


def read_persons(archive: Path, part: str, side: int) -> tuple[_Read, list[str]]:
    """Pictures as bytes, joints (N, K, 2), which are labelled (N, K), longer sides of boxes (N,); the joints' names.

    Pictures are (N, 3, S', S'): S' is ``side`` and what is spare around it; all else is in pixels of the middle.
    """
    around = 2 * round(side * _SPARE / 2)
    with reading(archive, ARCHIVE, StudyError), zipfile.ZipFile(archive) as opened:
        found: dict[str, Any] = json.loads(opened.read(f"annotations/{part}.json"))
        joint_names: list[str] = found["categories"][0]["keypoints"]
        names = {image["id"]: image["file_name"] for image in found["images"]}
        people = [person for person in found["annotations"] if person["num_keypoints"]]
        pictures = np.empty((len(people), around, around, 3), dtype=np.uint8)
        joints = np.empty((len(people), len(people[0]["keypoints"]) // 3, 3), dtype=np.float32)
        lengths = np.empty(len(people), dtype=np.float32)
        for row, person in enumerate(people):
            x, y, width, height = person["bbox"]
            scale = _MARGIN * max(width, height) / side  # pixels of the photograph in one of the crop
            left, top = x + width / 2 - scale * around / 2, y + height / 2 - scale * around / 2
            image = Image.open(io.BytesIO(opened.read(f"images/{names[person['image_id']]}"))).convert("RGB")
            affine = (scale, 0, left, 0, scale, top)
            pictures[row] = image.transform((around, around), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
            points = np.asarray(person["keypoints"], dtype=np.float32).reshape(-1, 3)
            spare = (around - side) / 2
            joints[row, :, 0] = (points[:, 0] + 0.5 - left) / scale - spare
            joints[row, :, 1] = (points[:, 1] + 0.5 - top) / scale - spare
            joints[row, :, 2] = points[:, 2]
            lengths[row] = max(width, height) / scale
    placed = torch.from_numpy(joints)
    bytes_first = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
    read = bytes_first, placed[..., :2].contiguous(), placed[..., 2] > 0, torch.from_numpy(lengths)
    return read, joint_names
