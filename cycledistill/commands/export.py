"""``cycledistill export``: a model as a file for another runtime, in eight-bit integers where that is asked for."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cycledistill.commands.arguments import check_positive, check_target
from cycledistill.terminal.flags import add_flag
from cycledistill.terminal.loading import say_loading

if TYPE_CHECKING:
    from torch import nn

    from cycledistill.exporter.export import Exported
    from cycledistill.exporter.exportable import Sample

help = "write a model as ONNX, pt2 or safetensors; ONNX in int8 as well"

FORMATS = ("onnx", "pt2", "safetensors")
KINDS = ("dynamic", "static")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, the file and how it is quantised."""
    what = "a run or checkpoint; an ONNX file, to quantise; or timm name, torchvision:NAME, hf:TYPE (random weights)"
    parser.add_argument("model", metavar="MODEL", help=what)
    parser.add_argument("--format", choices=FORMATS, help="default: as --output ends, else onnx")
    add_flag(parser, "--output", "default: the model's name, here", type=Path)
    add_flag(parser, "--exit", "default 1", default=1)
    add_flag(parser, "--blocks", "of a plain model")
    add_flag(parser, "--img-size")
    parser.add_argument(
        "--int8", nargs="?", const="dynamic", choices=KINDS, metavar="KIND", help="dynamic (default), or static"
    )
    real = "for --int8: pictures, or what the run takes (keypoint files, a recording); or an .npy file of inputs"
    parser.add_argument("--calibration-data", type=Path, metavar="PATH", help=real)
    add_flag(parser, "--limit", "of --calibration-data; default 128", default=128)
    full = "all eight bits for weights: right on ARM, and on x86 with VNNI"
    parser.add_argument("--full-range", action="store_true", help=full)
    parser.epilog = (
        "With --int8 the file is the quantised one; static fixes ranges by --calibration-data, dynamic needs none."
    )


def run(args: argparse.Namespace) -> int:
    """Write the file, and say how near it is to the model."""
    written = Path(args.model).suffix == ".onnx"
    kind = args.format or _ending(args.output) or "onnx"
    target = args.output or Path(_stem(args.model) + ("-int8" if args.int8 else "") + f".{kind}")
    _check(args, written, kind, target)
    say_loading()
    from cycledistill.exporter import ExportError

    try:
        if written:
            _quantize_file(args, target)
        elif args.int8 is None:
            sys.stdout.write(f"{target}: {_export(args, _open(args), target, kind)}\n")
        else:
            _export_and_quantize(args, target)
    except (ExportError, ImportError) as error:
        if isinstance(error, ModuleNotFoundError):
            raise
        raise ValueError(str(error)) from error
    return 0


def _check(args: argparse.Namespace, written: bool, kind: str, target: Path) -> None:
    check_positive("--exit", args.exit)
    check_positive("--limit", args.limit)
    if args.int8 is None and written:
        raise ValueError(f"{args.model} is exported already: give a model, or --int8 to quantise the file")
    if args.int8 is None and (args.calibration_data is not None or args.full_range):
        raise ValueError("--calibration-data and --full-range belong to --int8, which is not given")
    if args.int8 is not None and kind != "onnx":
        raise ValueError(f"--int8 with --format {kind}: only ONNX files are quantised here")
    if args.int8 == "static" and args.calibration_data is None:
        raise ValueError(
            "--int8 static fixes the ranges of activations by real inputs: give --calibration-data PATH, pictures such "
            "as the model will see (a hundred will do), or an .npy file of inputs; --int8 dynamic needs none"
        )
    if args.calibration_data is not None and not args.calibration_data.exists():
        raise ValueError(f"--calibration-data {args.calibration_data}: there is no such folder or file")
    _check_model(args, written)
    check_target("--output", target)


def _check_model(args: argparse.Namespace, written: bool) -> None:
    """Refuse options that this model cannot follow."""
    if written and not Path(args.model).is_file():
        raise ValueError(f"{args.model}: there is no such file")
    if written and args.exit != 1:
        raise ValueError(f"--exit {args.exit}: {args.model} is a file of one exit; export the model anew")
    if args.blocks != "auto" and (written or args.exit == 1):
        why = f"{args.model} is a file of one exit" if written else "exit 1 is the plain model's: --exit says another"
        raise ValueError(f"--blocks {args.blocks} says which stack is cycled, and {why}")
    if args.img_size is not None and (written or Path(args.model).is_dir()):
        what = "was exported for one size" if written else "is a folder: a run's model has the size it was trained on"
        raise ValueError(f"--img-size {args.img_size} is for models by name, and {args.model} {what}")


def _ending(path: Path | None) -> str | None:
    return path.suffix[1:] if path is not None and path.suffix[1:] in FORMATS else None


def _stem(model: str) -> str:
    """``hf:folder/name`` -> ``name``; ``model.onnx`` -> ``model``."""
    name = Path(model.rpartition(":")[2]).name or "model"
    return name.removesuffix(".onnx")


class _Source(NamedTuple):
    """A model to export: what it is run on, what it is called, what its file says beside its own words."""

    model: nn.Module
    inputs: Any
    said: str
    words: dict[str, str]
    samples: list[Sample] | None


def _open(args: argparse.Namespace) -> _Source:
    """The model in eval mode, wrapped where a later exit is asked for, and what it is calibrated with."""
    return _of_run(args) if Path(args.model).is_dir() else _of_name(args)


def _of_run(args: argparse.Namespace) -> _Source:
    from cycledistill.exporter.exportable import open_exportable
    from cycledistill.plugin.handle import handle_of

    run = open_exportable(Path(args.model))
    if args.blocks != "auto" and handle_of(run.model, "cyclic") is not None:
        raise ValueError(f"--blocks {args.blocks}: the model of {args.model} is wrapped, and has the stack it has")
    samples = _samples(args, run.samples)
    blocks = run.blocks if args.blocks == "auto" else args.blocks
    return _Source(_wrapped(run.model, args.exit, blocks, run.inputs), run.inputs, run.name, dict(run.words), samples)


def _of_name(args: argparse.Namespace) -> _Source:
    from cycledistill.commands.models import build
    from cycledistill.exporter.exportable import PICTURES, files_in

    if args.calibration_data is not None and args.calibration_data.is_dir():
        files_in(args.calibration_data, PICTURES, "picture")  # before anything is built
    model, inputs = build(args.model, args.img_size, "cpu")
    samples = _samples(args, lambda given: _pictures(args.model, model, inputs, given))
    wrapped = _wrapped(model, args.exit, args.blocks, inputs)
    return _Source(wrapped, inputs, f"{args.model} with random weights", {}, samples)


def _pictures(name: str, model: nn.Module, inputs: Any, given: Path) -> list[Sample]:
    from cycledistill.commands.calibration import pictures_by
    from cycledistill.inputs import call_of
    from cycledistill.metadata.model import words_of

    return pictures_by(words_of(model, None, None if inputs is None else call_of(inputs)), name)(given)


def _samples(args: argparse.Namespace, of_model: Any) -> list[Sample] | None:
    if args.calibration_data is None:
        return None
    from cycledistill.commands.calibration import find_samples

    try:
        return find_samples(args.calibration_data, args.limit, of_model)
    except ValueError as error:
        raise ValueError(f"--calibration-data: {error}") from error


def _wrapped(model: nn.Module, exit: int, blocks: str, inputs: Any) -> nn.Module:
    from cycledistill.cycle.wrap import wrap_cyclic
    from cycledistill.plugin.handle import handle_of

    if exit > 1 and handle_of(model, "cyclic") is None:
        model = wrap_cyclic(model, exit, None, blocks=blocks, inputs=inputs)
    return model.eval()


def _export(args: argparse.Namespace, source: _Source, target: Path, kind: str) -> str:
    """Write the model; a line on it."""
    from cycledistill.exporter import export

    form: Any = kind
    done: Exported = export(source.model, target, source.inputs, format=form, exit=args.exit, metadata=source.words)
    size = f"{target.stat().st_size / 1e6:.2f} MB"
    return f"{source.said}, exit {done.exit}, {size}; largest difference to the model {done.max_difference:.2g}"


def _export_and_quantize(args: argparse.Namespace, target: Path) -> None:
    import tempfile

    from cycledistill.exporter import ExportError

    source = _open(args)
    with tempfile.TemporaryDirectory() as folder:
        original = Path(folder, "model.onnx")
        sys.stdout.write(f"in floating point: {_export(args, source, original, 'onnx')}\n")
        try:
            _quantize(args, original, target, source.samples)
        except (ExportError, ValueError) as error:  # of a file that nobody has seen, in ONNX Runtime's words too
            raise ValueError(str(error).replace(str(original), f"{args.model} as ONNX")) from error


def _quantize_file(args: argparse.Namespace, target: Path) -> None:
    from cycledistill.commands.calibration import pictures_by
    from cycledistill.metadata.read import read_words

    file = Path(args.model)
    words = read_words(file)
    _quantize(args, file, target, _samples(args, lambda given: pictures_by(words, file.name)(given)))


def _quantize(args: argparse.Namespace, original: Path, target: Path, samples: list[Sample] | None) -> None:
    from cycledistill.commands.calibration import read_batches
    from cycledistill.exporter import quantize

    batches: Any = None if samples is None else read_batches(samples, original, args.limit, args.calibration_data)
    done = quantize(original, target, batches, kind=args.int8, reduce_range=not args.full_range)
    sys.stdout.write(f"{done}\n")
