"""3D poses from the pictures of several calibrated cameras, in one call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from cycledistill import at_exit
from cycledistill.integrations.coco.data.detections import Detected
from cycledistill.integrations.coco.prediction.boxes import FileBoxes
from cycledistill.integrations.human36m.data.cameras import Camera
from cycledistill.integrations.human36m.data.keypoints.person import Keypoints
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.multiview.views import ViewPoses, poses_from_views
from cycledistill.recipes.prediction.frames import Frame
from cycledistill.recipes.prediction.sources import PictureFiles
from cycledistill.recipes.progress import with_progress

from ..data.moments import Array, Box, check_picture_size
from ..data.samples import Views, look
from ..evaluation.measure import DEFAULT, EvalSettings, find_joints, in_pictures
from .frames import Broken, Given, OpenViews, open_views

_logger = logging.getLogger(__name__)

Boxes = Callable[[Frame], Detected] | ArrayLike
"""Who is there: what `read_boxes` gives, `DetectedBoxes`; or an array (T, 4), x, y, width, height, NaN for nobody."""


@dataclass(frozen=True)
class MultiViewPrediction:
    """What was found in the pictures of several cameras.

    Attributes:
        found: The poses in metres, with their reprojection errors and the views that they are made from.
        keypoints: (V, T, J, 3), in the order of ``found.views``: pixels of the pictures and the heatmaps' maxima; NaN
            where a view has no picture of a moment, or nobody in it.
    """

    found: ViewPoses
    keypoints: NDArray[np.float32]


class _Seen(NamedTuple):
    number: int
    pixels: dict[str, Tensor]
    rays: dict[str, Tensor]
    matrices: dict[str, Array]


def predict_poses(
    model: nn.Module,
    views: Mapping[str, Given] | OpenViews,
    cameras: Mapping[str, Camera],
    *,
    boxes: Mapping[str, Boxes] | None = None,
    layout: str | None = "h36m",
    exit: int = 1,
    settings: EvalSettings = DEFAULT,
    broken: Broken = "stop",
    progress: bool = False,
    **triangulation: Any,
) -> MultiViewPrediction:
    """3D poses of one person from what several calibrated cameras filmed at once.

    In every moment the model is given the views that have a picture of it with the person, and the joints that it finds
    are triangulated. Which of several persons in one view is which in another is not found out.

    Args:
        model: A multi-view model, wrapped or not, on any device (``load_trained``). Left in eval mode.
        views: By the cameras' names. Pictures of one moment have the same number, the last one in their names; videos
            and arrays are of one length.
        cameras: By the same names (``read_calibration``); those of no view are not used.
        boxes: By the same names, around the person. Default, also of views that are not named: the person fills the
            picture, which the log says.
        layout: Of the model's joints: ``"h36m"`` or ``"coco"``, which are checked to be a person; ``None``: others.
        exit: The cycle whose prediction is wanted.
        settings: How boxes are cut and heatmaps read.
        broken: Whether a picture that cannot be read stops all, or is a missing view (and logged).
        progress: Say where it is: by a bar, or by lines in the log where there is no terminal.
        **triangulation: Of `poses_from_views`: ``threshold``, ``least_views``, ``least_confidence``, ``ransac`` and
            ``checked``.

    Returns:
        The poses, and the joints in the pictures.

    Raises:
        LiftingDataError: Fewer than two views; one without a camera, of another length, or with pictures of another
            size than its camera was calibrated on; several persons in a picture of a file of boxes; nobody in any
            picture; cameras that do not see the person, and all else that `poses_from_views` refuses.
        DataError: A picture that cannot be read.

    Example:
        >>> cameras = read_calibration("cameras.yml", unit="mm")
        >>> predict_poses(load_trained("runs/a"), {"front": "front", "left": "left"}, cameras).found.poses.shape
        (250, 17, 3)
    """
    opened = views if isinstance(views, OpenViews) else open_views(views)
    names = list(opened.sources)
    _check_names(names, cameras, boxes or {})
    whole = [name for name in names if name not in (boxes or {})]
    if whole:
        _logger.info("views %s: without boxes, one person is taken to fill each picture", ", ".join(whole))
    finders = {name: _finder(opened, name, (boxes or {}).get(name)) for name in names}
    tables: dict[int, dict[str, Array]] = {}
    joints: int = model.config.num_keypoints  # type: ignore[union-attr,assignment]
    model.eval()
    moments = with_progress(opened.moments(broken), "predict", "moments", opened.total, shown=progress)
    pending: list[_Seen] = []
    with torch.no_grad(), at_exit(model, exit):
        for number, frames in moments:
            tables[number] = {name: np.full((joints, 3), np.nan) for name in frames}
            seen = _look(number, frames, cameras, finders, model, settings)
            if pending and (seen.pixels.keys() != pending[0].pixels.keys() or len(pending) == settings.batch_size):
                _find(model, pending, cameras, settings, tables)
                pending = []
            if seen.pixels:
                pending.append(seen)
        if pending:
            _find(model, pending, cameras, settings, tables)
    keypoints = _keypoints(tables, names, cameras)
    found = poses_from_views(keypoints, cameras, layout=layout, **triangulation)
    lost = np.full((joints, 3), np.nan)
    shown = [[tables[number].get(name, lost) for number in sorted(tables)] for name in found.views]
    return MultiViewPrediction(found, np.array(shown, dtype=np.float32))


def _check_names(names: Sequence[str], cameras: Mapping[str, Camera], boxes: Mapping[str, Any]) -> None:
    unknown = [name for name in names if name not in cameras]
    if unknown:
        raise LiftingDataError(
            f"the calibration has no camera {', '.join(unknown)}; it has {', '.join(cameras)}: views are called as "
            "their cameras"
        )
    other = [name for name in boxes if name not in names]
    if other:
        raise LiftingDataError(f"boxes of {', '.join(other)}: there is no such view; views: {', '.join(names)}")


def _finder(opened: OpenViews, name: str, boxes: Boxes | None) -> Callable[[Frame], Box | None]:
    """Who says where the person is in a view's picture."""
    if boxes is None:
        return lambda frame: (0.0, 0.0, float(frame.size[0]), float(frame.size[1]))
    if not callable(boxes):
        table = np.asarray(boxes, dtype=np.float64)
        if table.ndim != 2 or table.shape[1] != 4:
            raise LiftingDataError(f"view {name}: boxes of shape {table.shape}: (T, 4), one a picture, is expected")
        source = opened.sources[name]
        places = {each: place for place, each in enumerate(source.names)} if isinstance(source, PictureFiles) else {}
        return lambda frame: _row(table, places.get(frame.name, frame.number), name)
    one_alone = isinstance(boxes, FileBoxes)
    given = boxes.of(opened.sources[name]) if isinstance(boxes, FileBoxes) else boxes  # type: ignore[arg-type]
    return lambda frame: _best(given(frame), frame, name, one_alone)


def _row(table: Array, place: int, name: str) -> Box | None:
    if place >= len(table):
        raise LiftingDataError(f"view {name}: {len(table)} boxes, and more pictures: one a picture is expected")
    row = table[place]
    return None if np.isnan(row).any() else (row[0], row[1], row[2], row[3])


def _best(found: Detected, frame: Frame, name: str, one_alone: bool) -> Box | None:
    if not len(found.boxes):
        return None
    if one_alone and len(found.boxes) > 1:
        raise LiftingDataError(
            f"view {name}: {frame.name} has {len(found.boxes)} boxes, and one person is expected: which is the same in "
            "two views is not found out; leave one box a picture"
        )
    x, y, width, height = found.boxes[int(np.argmax(found.scores))].tolist()
    return x, y, width, height


def _look(
    number: int,
    frames: Mapping[str, Frame],
    cameras: Mapping[str, Camera],
    finders: Mapping[str, Callable[[Frame], Box | None]],
    model: Any,
    settings: EvalSettings,
) -> _Seen:
    """The persons in the pictures of a moment, cut out."""
    seen = _Seen(number, {}, {}, {})
    for name, frame in frames.items():
        check_picture_size(cameras[name], frame.size, f"view {name}: {frame.name}")
        box = finders[name](frame)
        if box is not None:
            cut = look(frame.pixels, cameras[name], box, model.config, settings.padding)
            seen.pixels[name], seen.rays[name], seen.matrices[name] = cut
    return seen


def _find(
    model: Any,
    batch: Sequence[_Seen],
    cameras: Mapping[str, Camera],
    settings: EvalSettings,
    tables: dict[int, dict[str, Array]],
) -> None:
    """The joints in the same views of some moments, written into their tables."""
    names = list(batch[0].pixels)
    pixels, rays = (
        torch.stack([torch.stack([each[name] for each in parts]) for name in names])
        for parts in ([seen.pixels for seen in batch], [seen.rays for seen in batch])
    )
    centers = torch.stack([torch.from_numpy(cameras[name].position).float().expand(len(batch), 3) for name in names])
    nothing = torch.zeros(0)
    positions, scores = find_joints(model, Views(pixels, rays, centers, nothing, nothing), settings)
    for place, seen in enumerate(batch):
        found = in_pictures(positions[:, place], scores[:, place], list(seen.matrices.values()), model)
        tables[seen.number].update(zip(names, found, strict=True))


def _keypoints(
    tables: Mapping[int, Mapping[str, Array]], names: Sequence[str], cameras: Mapping[str, Camera]
) -> dict[str, Keypoints]:
    """What was found, as `poses_from_views` takes it; views that nobody was found in are left out, with a warning."""
    views = {}
    for name in names:
        own = {number: table[name] for number, table in sorted(tables.items()) if name in table}
        if not own or all(np.isnan(each).all() for each in own.values()):
            _logger.warning("view %s: there is nobody in any picture, so it is of no use", name)
            continue
        frames = np.array(list(own), dtype=np.int64)
        width, height = cameras[name].size
        views[name] = Keypoints(np.array(list(own.values()), dtype=np.float32), width, height, frames=frames)
    if len(views) < 2:
        raise LiftingDataError(
            f"{len(views)} of the views {', '.join(names)} have a person in some picture: two or more are needed for 3D"
        )
    return views
