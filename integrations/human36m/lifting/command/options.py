"""Options of lifting that cannot be followed, refused before anything is read."""

from __future__ import annotations

import argparse
import logging

from ...data.pose_files import check_apart, check_target
from ...data.timing import check_rate
from ...errors import LiftingDataError
from ...written.outputs import Outputs, check_outputs

_logger = logging.getLogger(__name__)


def outputs_of(args: argparse.Namespace) -> Outputs:
    """What ``add_lifting`` of ``human36m/commands.py`` read of the files that are written beside the poses.

    Raises:
        LiftingDataError: Options that cannot be followed, or not together; a file that would be written over one that
            is read.
        RecipeError: What an animation needs is not installed.
    """
    check_target(args.output)
    outputs = Outputs(
        args.animate,
        args.bvh,
        args.gltf,
        args.up,
        pictures=args.pictures,
        first_picture=args.first_picture,
        insisted=args.frame_rate is not None,
        calibration=args.calibration,
        camera_name=args.camera_name,
        unit=args.unit,
    )
    check_outputs(outputs)
    written = [args.output, *outputs.files().values(), *([args.figure] if args.figure else [])]
    check_apart(written, [each for each in (args.keypoints, args.pictures, *args.calibration) if each])
    if args.frame_rate is not None:
        check_rate(args.frame_rate)
    if args.up and not args.calibration:
        raise LiftingDataError("--up is of --calibration: without one y points down, as the camera sees it")
    if args.delay is not None and args.fill_gaps:
        raise LiftingDataError("--fill-gaps looks at later frames, and --delay must not: leave one of them out")
    if args.calibration and not args.person_height:
        _logger.warning(
            "--calibration without --person-height: the person is taken for as tall as those that the model was "
            "trained on, and is as much too near or too far as that is wrong"
        )
    return outputs
