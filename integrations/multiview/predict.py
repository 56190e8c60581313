r"""3D poses of one person from the pictures or videos of several calibrated cameras.

    cycledistill predict runs/a front=front left=left.mp4 --calibration cameras.yml \
        --unit mm --boxes front=front_boxes.json --boxes left=left_boxes.json --output poses.npz

Input: a multi-view model (a run, a checkpoint, a file of weights, a folder that ``save_pretrained`` wrote, or a name
on the hub), and for each view a folder of pictures or a video, called as its camera in the calibration, or
``NAME=FOLDER``. Output, npz or JSON: ``poses`` (T, J, 3), metres in the world of the calibration, NaN (``null``) where
a joint is not known; ``error`` (T, J), pixels; ``used`` (T, J, V), from which of the ``views`` a joint is made;
``frames``, where pictures are numbered; and ``keypoints`` (V, T, J, 3), what was found in the pictures.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from typing import Any

import numpy as np
from torch import nn

from cycledistill.integrations.coco.detector import DetectorError, load_detector
from cycledistill.integrations.coco.prediction.box_files import read_boxes
from cycledistill.integrations.coco.prediction.boxes import DetectedBoxes
from cycledistill.integrations.human36m.data.calibration.file import read_calibration
from cycledistill.integrations.human36m.data.pose_files import check_apart, check_target, write_poses
from cycledistill.integrations.human36m.data.timing import check_rate
from cycledistill.integrations.human36m.multiview.command.arguments import (
    by_name,
    describe_poses,
    triangulation_of,
)
from cycledistill.integrations.human36m.written.command import write_outputs
from cycledistill.integrations.human36m.written.outputs import Outputs, check_clip, check_outputs
from cycledistill.recipes.errors import DataError
from cycledistill.recipes.run.accelerator import open_accelerator
from cycledistill.recipes.run.trained import open_trained

from .evaluation.measure import EvalSettings
from .prediction.frames import OpenViews, open_views
from .prediction.poses import Boxes, predict_poses
from .recipe import load_recipe
from .trained import load_trained, stored_recipe
from .training.build import eval_settings

_logger = logging.getLogger(__name__)


def predict_files(args: argparse.Namespace) -> None:
    """Predict as the arguments of `PREDICT` say; what is written goes to standard output.

    Raises:
        DataError: Pictures, cameras, boxes or options that cannot be used.
        CheckpointError: A model that cannot be used.
        RecipeError: What an animation needs is not installed.
        ValueError: The detector is not known, or its weights are not on this machine.
    """
    keypoints = [file for file in args.views if file.endswith((".json", ".jsonl", ".npz", ".npy"))]
    if keypoints:
        raise DataError(
            f"{keypoints[0]} is a file of keypoints, and {args.model} takes pictures or a video of each view: "
            "cycledistill predict triangulate makes 3D poses of keypoints, without a model"
        )
    check_target(args.output)
    model, settings, layout = _model(args)
    outputs = Outputs(args.animate, args.bvh, args.gltf, args.up, layout)
    check_outputs(outputs)
    if args.frame_rate is not None:
        check_rate(args.frame_rate)
    files = by_name(args.views, "pictures")
    check_apart(
        [args.output, *outputs.files().values()],
        [*files.values(), *args.calibration, *by_name(args.boxes, "--boxes").values()],
    )
    views = open_views(files)
    rate = args.frame_rate or _rate(views)
    check_clip(outputs, rate)
    size = (round(args.width), round(args.height)) if args.width and args.height else None
    cameras = read_calibration(args.calibration, args.unit, size)
    with open_accelerator(args.device, "fp32", "--device") as accelerator:
        predicted = predict_poses(
            model.to(accelerator.device),
            views,
            cameras,
            boxes=_boxes(args, views, accelerator.device),
            layout=None if layout == "other" else layout,
            exit=args.exit,
            settings=settings,
            broken="skip" if args.skip_broken else "stop",
            progress=True,
            **triangulation_of(args),
        )
    found = predicted.found
    write_poses(
        found.poses,
        args.output,
        found.frames if views.numbered else None,
        error=found.error,
        used=found.used,
        views=np.array(found.views),
        keypoints=predicted.keypoints,
    )
    sys.stdout.write(describe_poses(found, args.output))
    write_outputs(found.poses, outputs, rate, frames=found.frames)


def _rate(views: OpenViews) -> float | None:
    """Frames a second, where a video says it."""
    rates = [getattr(source, "fps", None) for source in views.sources.values()]
    return next((rate for rate in rates if rate), None)


def _model(args: argparse.Namespace) -> tuple[nn.Module, EvalSettings, str]:
    """The model, how its run measures it, and the layout of its joints; of one without a run, what is usual."""
    model, (settings, layout) = open_trained(
        args.model,
        None,
        args.ema,
        command="multiview",
        load_recipe=load_recipe,
        load_trained=load_trained,
        stored_recipe=stored_recipe,
        of_recipe=lambda recipe: (eval_settings(recipe), str(recipe.data.layout)),
        of_model=lambda _: (EvalSettings(), "h36m"),
    )
    settings = dataclasses.replace(settings, batch_size=args.batch_size or settings.batch_size)
    return model, settings, args.layout or layout


def _boxes(args: argparse.Namespace, views: OpenViews, device: Any) -> dict[str, Boxes]:
    found: dict[str, Boxes] = {}
    if args.detector:
        try:
            detector = load_detector(args.detector).to(device)
        except DetectorError as error:
            raise ValueError(str(error)) from error
        found = dict.fromkeys(views.sources, DetectedBoxes(detector))
    return found | {name: read_boxes(file) for name, file in by_name(args.boxes, "--boxes").items()}
