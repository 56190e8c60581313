"""The file that ``cycledistill export`` writes: a model's, or one in eight-bit integers of a file."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from cycledistill.commands.calibration import pictures_by, read_batches
from cycledistill.commands.export_source import Source, open_source, samples_of
from cycledistill.exporter import ExportError, export, quantize
from cycledistill.exporter.exportable import BUILT, Sample
from cycledistill.metadata.read import read_words


def write(args: argparse.Namespace, target: Path, kind: str) -> None:
    """Write the file that is asked for; what it is goes to standard output.

    Raises:
        ValueError: It cannot be written, or what it needs is not installed.
    """
    try:
        if Path(args.model).suffix == ".onnx":
            _quantize_file(args, target)
        elif args.int8 is None:
            sys.stdout.write(f"{target}: {_export(args, open_source(args), target, kind)}\n")
        else:
            _export_and_quantize(args, target)
    except ModuleNotFoundError:
        raise
    except (ExportError, ImportError) as error:
        raise ValueError(str(error)) from error


def _export(args: argparse.Namespace, source: Source, target: Path, kind: str) -> str:
    """Write the model; a line on it."""
    form: Any = kind
    words = {name: word for name, word in source.words.items() if kind == "safetensors" or name not in BUILT}
    done = export(source.model, target, source.inputs, format=form, exit=args.exit, metadata=words)
    size = f"{target.stat().st_size / 1e6:.2f} MB"
    said = f"{source.said}, exit {done.exit}, {size}; largest difference to the model {done.max_difference:.2g}"
    return f"{said}\n{source.note}" if source.note else said


def _export_and_quantize(args: argparse.Namespace, target: Path) -> None:
    source = open_source(args)
    with tempfile.TemporaryDirectory() as folder:
        original = Path(folder, "model.onnx")
        sys.stdout.write(f"in floating point: {_export(args, source, original, 'onnx')}\n")
        try:
            _quantize(args, original, target, source.samples)
        except (ExportError, ValueError) as error:  # of a file that nobody has seen, in ONNX Runtime's words too
            raise ValueError(str(error).replace(str(original), f"{args.model} as ONNX")) from error


def _quantize_file(args: argparse.Namespace, target: Path) -> None:
    file = Path(args.model)
    words = read_words(file)
    _quantize(args, file, target, samples_of(args, lambda given: pictures_by(words, file.name)(given)))


def _quantize(args: argparse.Namespace, original: Path, target: Path, samples: list[Sample] | None) -> None:
    batches: Any = None if samples is None else read_batches(samples, original, args.limit, args.calibration_data)
    done = quantize(original, target, batches, kind=args.int8, reduce_range=not args.full_range)
    sys.stdout.write(f"{done}\n")
