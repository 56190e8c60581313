"""The folder of predictions: what is in it, and that nothing else is or comes there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from cycledistill.recipes.prediction.output import check_output
from cycledistill.recipes.prediction.sources import Source

from ...data.images import PoseDataError
from ...data.joints import JointSet
from ..stream import Predicted
from .clips import keypoint_files
from .drawn import drawn_pictures, drawn_video
from .tables import Add, lines_file, picture_files, results_file, table_file

KINDS = ("results", "poses", "csv", "drawn", "keypoints")
"""What can be written: COCO's results, JSON by joints' names, a table, drawn pictures or video, files for lifting."""


@contextmanager
def open_outputs(
    folder: str | Path,
    source: Source,
    joints: JointSet,
    *,
    kinds: Sequence[str] = KINDS,
    tracked: bool = False,
    threshold: float = 0.2,
) -> Iterator[Callable[[Predicted], None]]:
    """Files of predictions, whole when the context ends; by an error it leaves only what was done by then, whole too.

    ``results.json``, ``poses/NAME.json``, ``poses.csv`` and ``drawn/NAME`` of pictures; of a video ``poses.jsonl``,
    ``drawn.mp4`` and ``keypoints.npz``, or ``keypoints/track_0001.npz`` and so on where persons are followed.

    Args:
        folder: Where; made if it is not there.
        source: What is predicted on.
        joints: The joint set.
        kinds: Some of `KINDS`. Files for lifting are made of videos, and of pictures through which persons are
            followed.
        tracked: Whether persons are followed.
        threshold: Joints that score less are not drawn, and do not count in a pose's score.

    Raises:
        DataError: The folder is not empty or mixes with the source; an unknown kind.
        OSError: It cannot be written.

    Example:
        >>> with open_outputs("found", source, COCO) as add:
        ...     for each in predict_stream(model, source):
        ...         add(each)
    """
    folder = Path(folder)
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise PoseDataError(f"{unknown[0]!r} is nothing that can be written: {', '.join(KINDS)} are expected")
    check_output(folder, source)
    folder.mkdir(parents=True, exist_ok=True)
    fps = source.fps
    makers: dict[str, Callable[[], AbstractContextManager[Add]]] = {
        "results": lambda: results_file(folder / "results.json", joints, threshold),
        "csv": lambda: table_file(folder / "poses.csv", joints),
    }
    if fps is None:
        makers["poses"] = lambda: picture_files(folder / "poses", joints)
        makers["drawn"] = lambda: drawn_pictures(folder / "drawn", joints, threshold)
    else:
        makers["poses"] = lambda: lines_file(folder / "poses.jsonl", joints)
        makers["drawn"] = lambda: drawn_video(folder / "drawn.mp4", joints, threshold, fps)
    if fps is not None or tracked:
        makers["keypoints"] = lambda: keypoint_files(folder, joints, fps)
    with ExitStack() as stack:
        writers = [stack.enter_context(makers[kind]()) for kind in KINDS if kind in kinds and kind in makers]

        def add(found: Predicted) -> None:
            for writer in writers:
                writer(found)

        yield add
