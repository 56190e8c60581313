"""Generated scenes: a figure in the middle of a ring of cameras, as features that each of them sees, partly hidden.

The features stand for what a backbone would make of a picture: a blob in a channel of its own for each joint that is
not hidden, in noise. So a scene asks what fusion can answer, where the hidden joints are, and little else. The motion
is generated too, by formulas; no figure measured on it says anything about people. The same seed gives the same scenes
everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cycledistill.integrations.coco.models.config import BACKBONE_STRIDE as STRIDE
from cycledistill.integrations.human36m.data.cameras import Camera, ring_of_cameras
from cycledistill.integrations.human36m.data.motion import generate_motion
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.multiview.rays import patch_rays

Array = NDArray[np.float64]

_FRAMES, _STEP = 200, 25  # a figure is taken every half second
_MIDDLE = np.array([0.0, 1.0, 0.0])  # where the cameras look, metres
_MARGIN = 1.3  # side of the crop, in units of the figure's larger extent
_BLOB, _NOISE, _SIGMA = 8.0, 0.5, 1.0  # of the features: height, noise, and size in pixels of theirs


@dataclass(frozen=True)
class Scenes:
    """M scenes as V cameras see them. Every field has the axes (V, M, ...), camera first.

    Attributes:
        views: (V, M, 17, S / 4, S / 4), features of a view of S x S pixels, the crop around the figure.
        rays: (V, M, N, 3), see `patch_rays`.
        centers: (V, M, 3), the cameras' positions, metres.
        joints: (V, M, 17, 2), pixels of the cameras' pictures.
        crops: (V, M, 2, 3), the affine maps from pictures to views.
        hidden: (V, M, 17), whether something stands in front of the joint.
    """

    views: Tensor
    rays: Tensor
    centers: Tensor
    joints: Tensor
    crops: Tensor
    hidden: Tensor

    def __len__(self) -> int:
        """Scenes."""
        return self.views.shape[1]


def generate_scenes(
    count: int,
    cameras: int = 4,
    *,
    size: int = 128,
    grid: tuple[int, int] = (4, 4),
    cover: float = 0.45,
    covered: int | None = None,
    seed: int = 0,
    first: int = 0,
) -> Scenes:
    """Scenes with a figure each, of generated motion, within half a metre of the middle of the ring.

    Args:
        count: Scenes; eight come from each generated figure.
        cameras: Evenly on a circle of 5.2 m, the same in all scenes, 1000 x 1000 pixels each.
        size: Side of a view in pixels.
        grid: Rows and columns of the patches that rays are for; they divide ``size``.
        cover: Sides of the box that hides a part of a view, up to this share of the view's; 0: nothing is hidden.
            Where it is differs from view to view.
        covered: In how many views of a scene, drawn at random, there is such a box; default, in all of them.
        seed: Of all that is drawn.
        first: Number of the first figure; take disjoint ranges for training and testing.

    Raises:
        LiftingDataError: Fewer than one scene or camera, a grid that does not divide the view, a cover out of [0, 1),
            or more covered views than there are.

    Example:
        >>> scenes = generate_scenes(16, cameras=4)
        >>> scenes.views.shape, scenes.rays.shape
        (torch.Size([4, 16, 17, 32, 32]), torch.Size([4, 16, 16, 3]))
    """
    if count < 1 or cameras < 1:
        raise LiftingDataError(f"{count} scenes of {cameras} cameras: at least one of both is needed")
    if size % STRIDE or any(size % side for side in grid) or not 0 <= cover < 1:
        raise LiftingDataError(
            f"size={size}, grid={grid}, cover={cover}: a size divisible by {STRIDE} and by the grid, and a cover from "
            "0 to below 1, are expected"
        )
    shut = cameras if covered is None else covered
    if not 0 <= shut <= cameras:
        raise LiftingDataError(f"covered={covered}: from 0 to all {cameras} cameras are expected")
    a_figure = _FRAMES // _STEP
    motions = generate_motion(-(-count // a_figure), _FRAMES, seed=seed, first=first)
    poses = np.concatenate([motion.world[::_STEP] for motion in motions])[:count].astype(np.float64)
    rng = np.random.default_rng((seed, first, 1))
    poses[..., [0, 2]] += rng.uniform(-0.5, 0.5, (count, 1, 2)) - poses[:, :1, [0, 2]]
    ring = ring_of_cameras(_MIDDLE, cameras, first_angle=0.3)
    patch = (size // grid[0], size // grid[1])
    covers = cover * (rng.permuted(np.tile(np.arange(cameras)[:, None], count), axis=0) < shut)
    seen = [
        [_look(camera, pose, size, each, rng) for pose, each in zip(poses, row, strict=True)]
        for camera, row in zip(ring, covers, strict=True)
    ]
    rays = [[patch_rays(camera, grid, patch, one[2]) for one in row] for camera, row in zip(ring, seen, strict=True)]
    joints, hidden, crops = (np.array([[one[i] for one in row] for row in seen]) for i in range(3))
    centers = np.repeat(np.stack([camera.position for camera in ring])[:, None], count, axis=1)
    points, places, marks, maps = (torch.from_numpy(each).float() for each in (np.array(rays), centers, joints, crops))
    features = _features(in_view(marks, maps), torch.from_numpy(hidden), size, int(rng.integers(2**31)))
    return Scenes(features, points, places, marks, maps, torch.from_numpy(hidden))


def in_view(joints: Tensor, crops: Tensor) -> Tensor:
    """Pixels (..., K, 2) of the cameras' pictures as pixels of the heatmaps and features of the crops (..., 2, 3)."""
    return (joints @ crops[..., :2].mT + crops[..., None, :, 2] + 0.5) / STRIDE - 0.5


def in_picture(places: Tensor, crops: Tensor) -> Tensor:
    """The way back of :func:`in_view`."""
    return ((places + 0.5) * STRIDE - 0.5 - crops[..., None, :, 2]) @ torch.linalg.inv(crops[..., :2]).mT


def joint_heatmaps(joints: Tensor, size: tuple[int, int], sigma: float = 2.0) -> tuple[Tensor, Tensor]:
    """Gaussians around joints, the target of training.

    Args:
        joints: (..., K, 2), x and y in heatmap pixels.
        size: Height and width of the heatmaps.
        sigma: Pixels.

    Returns:
        Heatmaps (..., K, height, width) of maximum 1, and weights (..., K): 0, with an empty map, for a joint so far
        off the map that its Gaussian's three-sigma box misses it, else 1.
    """
    height, width = size
    rows, columns = (torch.arange(count, dtype=joints.dtype, device=joints.device) for count in size)
    x, y = joints[..., 0, None, None], joints[..., 1, None, None]
    maps = torch.exp(-((columns - x) ** 2 + (rows[:, None] - y) ** 2) / (2 * sigma**2))
    far = 3 * sigma
    inside = (x > -far) & (x < width - 1 + far) & (y > -far) & (y < height - 1 + far)
    return maps * inside, inside[..., 0, 0].to(maps.dtype)


def _features(places: Tensor, hidden: Tensor, size: int, seed: int) -> Tensor:
    side = size // STRIDE
    blobs, _ = joint_heatmaps(places, (side, side), _SIGMA)
    noise = torch.randn(blobs.shape, generator=torch.Generator().manual_seed(seed))
    return noise.mul_(_NOISE).add_(blobs.mul_(_BLOB * ~hidden[..., None, None]))


def _look(
    camera: Camera, pose: Array, size: int, cover: float, rng: np.random.Generator
) -> tuple[Array, NDArray[np.bool_], Array]:
    """The joints in the camera's picture, which of them are hidden, and the crop."""
    joints = camera.project(camera.to_camera(pose))
    low, high = joints.min(axis=0), joints.max(axis=0)
    side = _MARGIN * float((high - low).max())
    corner = (low + high) / 2 - side / 2 + rng.uniform(-0.05, 0.05, 2) * side
    zoom = size / side
    # The crop's corner becomes the view's, which is at (-0.5, -0.5): pixels have their centre at whole numbers.
    crop = np.array([[zoom, 0, -zoom * corner[0] - 0.5], [0, zoom, -zoom * corner[1] - 0.5]])
    placed = joints @ crop[:, :2].T + crop[:, 2]
    sides = rng.uniform(0.6, 1.0, 2) * cover * size
    start = rng.uniform(0, size - sides)
    hidden = ((placed > start) & (placed < start + sides)).all(axis=-1)
    return joints, hidden, crop
