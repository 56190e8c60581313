"""The model that ``cycledistill export`` is given, a run's or one by name, with what it is run on and calibrated by."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from cycledistill.commands.calibration import find_samples, pictures_by
from cycledistill.commands.named.models import build, saved_folder
from cycledistill.cycle.wrap import wrap_cyclic
from cycledistill.exporter.exportable import PICTURES, Sample, files_in, open_exportable
from cycledistill.inputs import call_of
from cycledistill.metadata.model import words_of
from cycledistill.metadata.shape import RANDOM, WEIGHTS
from cycledistill.plugin.handle import handle_of
from cycledistill.plugin.plain import SAVED
from cycledistill.plugin.saved import read_wrapping, weights_kept
from cycledistill.saved.rewrap import rewrap

_logger = logging.getLogger(__name__)


class Source(NamedTuple):
    """A model to export: what it is run on, what it is called, what its file says beside its own words."""

    model: nn.Module
    inputs: Any
    said: str
    words: dict[str, str]
    samples: list[Sample] | None
    note: str = ""


def open_source(args: argparse.Namespace) -> Source:
    """The model in eval mode, wrapped where a later exit is asked for, and what it is calibrated with."""
    return _of_run(args) if Path(args.model).is_dir() else _of_name(args)


def _of_run(args: argparse.Namespace) -> Source:
    run = open_exportable(Path(args.model), args.ema)
    _check_blocks(args, run.model)
    samples = samples_of(args, run.samples)
    blocks = run.blocks if args.blocks == "auto" else args.blocks
    model = _wrapped(run.model, args.exit, blocks, run.inputs)
    return Source(model, run.inputs, run.name, dict(run.words), samples, run.note)


def _of_name(args: argparse.Namespace) -> Source:
    if args.calibration_data is not None and args.calibration_data.is_dir():
        files_in(args.calibration_data, PICTURES, "picture")  # before anything is built
    folder = saved_folder(args.model)
    model, inputs = build(args.model, args.img_size, "cpu", weights=True)
    words = {WEIGHTS: RANDOM} if folder is None else wrapped_as_saved(model, folder)
    _check_blocks(args, model)
    samples = samples_of(args, lambda given: _pictures(args.model, model, inputs, given))
    said = f"{args.model} with {'random weights' if folder is None else 'its weights'}"
    return Source(_wrapped(model, args.exit, args.blocks, inputs), inputs, said, words, samples)


def wrapped_as_saved(model: nn.Module, folder: Path) -> dict[str, str]:
    """Wrap a model as the one was that was saved, where its folder says how; what a file should say of it beside.

    Raises:
        ValueError: What the folder says cannot be.
    """
    if not (folder / SAVED).is_file():
        return {}
    if not weights_kept(folder):
        _logger.warning(
            "%s was not written for the weights that lie there now: they are taken as those of a plain model",
            folder / SAVED,
        )
        return {}
    rewrap(model, folder, distill=None)  # of no use in a file; a function would be asked for
    cyclic = read_wrapping(folder).get("cyclic")
    return {} if cyclic is None else {"distill": json.dumps(cyclic["distill"])}


def _pictures(name: str, model: nn.Module, inputs: Any, given: Path) -> list[Sample]:
    return pictures_by(words_of(model, None, None if inputs is None else call_of(inputs)), name)(given)


def samples_of(args: argparse.Namespace, of_model: Any) -> list[Sample] | None:
    """What ``--calibration-data`` names of what the model takes; ``None`` where it is not given."""
    if args.calibration_data is None:
        return None
    try:
        return find_samples(args.calibration_data, args.limit, of_model)
    except ValueError as error:
        raise ValueError(f"--calibration-data: {error}") from error


def _check_blocks(args: argparse.Namespace, model: nn.Module) -> None:
    if args.blocks != "auto" and handle_of(model, "cyclic") is not None:
        raise ValueError(f"--blocks {args.blocks}: the model of {args.model} is wrapped, and has the stack it has")


def _wrapped(model: nn.Module, exit: int, blocks: str, inputs: Any) -> nn.Module:
    """In eval mode, able to answer at the exit; a plain model still says that it was trained with one cycle."""
    if exit > 1 and handle_of(model, "cyclic") is None:
        model = wrap_cyclic(model, 1, None, blocks=blocks, inputs=inputs)
    return model.eval()
