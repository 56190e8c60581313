"""Poses in what a user has, a picture after the other: folders, zip files, videos, cameras; boxes, tracks, files."""

import typing

from cycledistill import lazy, versions

versions.require("numpy")

if typing.TYPE_CHECKING:
    from cycledistill.recipes.prediction.frames import Frame as Frame

    from .box_files import read_boxes as read_boxes
    from .boxes import DetectedBoxes as DetectedBoxes
    from .boxes import FileBoxes as FileBoxes
    from .job import predict_source as predict_source
    from .models import open_model as open_model
    from .sources import open_source as open_source
    from .stream import Predicted as Predicted
    from .stream import predict_stream as predict_stream
    from .tracking import track as track
    from .written.folder import open_outputs as open_outputs
else:
    __all__, __getattr__, __dir__ = lazy.hand_on(
        __name__,
        {
            "DetectedBoxes": ".boxes",
            "FileBoxes": ".boxes",
            "Frame": "cycledistill.recipes.prediction.frames",
            "Predicted": ".stream",
            "open_model": ".models",
            "open_outputs": ".written.folder",
            "open_source": ".sources",
            "predict_source": ".job",
            "predict_stream": ".stream",
            "read_boxes": ".box_files",
            "track": ".tracking",
        },
        requires="cycledistill[coco]",
    )
