"""``cycledistill export``: a model as a file for another runtime, in eight-bit integers where that is asked for."""

from __future__ import annotations

import argparse
from pathlib import Path

from cycledistill.commands.arguments import check_positive, check_target
from cycledistill.terminal.flags import add_flag
from cycledistill.terminal.loading import say_loading

help = "write a model as ONNX, pt2 or safetensors; ONNX in int8 as well"

FORMATS = ("onnx", "pt2", "safetensors")
KINDS = ("dynamic", "static")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, the file and how it is quantised."""
    what = (
        "a run or checkpoint; hf:FOLDER; an ONNX file, to quantise; or by name, random weights: timm, torchvision:, hf:"
    )
    parser.add_argument("model", metavar="MODEL", help=what)
    parser.add_argument("--format", choices=FORMATS, help="default: as --output ends; without it, onnx")
    add_flag(parser, "--output", "default: the model's name, here", type=Path)
    add_flag(parser, "--exit", "default: 1", default=1)
    add_flag(parser, "--ema")
    add_flag(parser, "--blocks", "of a plain model")
    add_flag(parser, "--img-size")
    parser.add_argument(
        "--int8", nargs="?", const="dynamic", choices=KINDS, metavar="KIND", help="dynamic (default), or static"
    )
    real = "for --int8: pictures, or what the run takes (keypoint files, a recording); or an .npy file of inputs"
    parser.add_argument("--calibration-data", type=Path, metavar="PATH", help=real)
    add_flag(parser, "--limit", "of --calibration-data; default: 128", default=128)
    full = "all eight bits for weights: right on ARM, and on x86 with VNNI"
    parser.add_argument("--full-range", action="store_true", help=full)
    parser.epilog = (
        "With --int8 the file is the quantised one; static fixes ranges by --calibration-data, dynamic needs none."
    )


def run(args: argparse.Namespace) -> int:
    """Write the file, and say how near it is to the model."""
    written = Path(args.model).suffix == ".onnx"
    kind = _kind(args.format, args.output)
    target = args.output or Path(_stem(args.model) + ("-int8" if args.int8 else "") + f".{kind}")
    _check(args, written, kind, target)
    say_loading()
    from cycledistill.commands.export_files import write

    write(args, target, kind)
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
    if args.ema and (written or not Path(args.model).is_dir()):
        what = "is a file of one set of weights" if written else "is no run"
        raise ValueError(f"--ema is for runs and checkpoints, which have an average, and {args.model} {what}")
    if args.blocks != "auto" and (written or args.exit == 1):
        why = f"{args.model} is a file of one exit" if written else "exit 1 is the plain model's: --exit says another"
        raise ValueError(f"--blocks {args.blocks} says which stack is cycled, and {why}")
    if args.img_size is not None and (written or Path(args.model).is_dir()):
        what = "was exported for one size" if written else "is a folder: a run's model has the size it was trained on"
        raise ValueError(f"--img-size {args.img_size} is for models by name, and {args.model} {what}")


def _kind(given: str | None, output: Path | None) -> str:
    """The format that is asked for; a file's name neither contradicts it nor leaves it open."""
    told = output.suffix[1:] if output is not None and output.suffix[1:] in FORMATS else None
    if given is None and told is None and output is not None:
        endings = ", ".join(f".{each}" for each in FORMATS)
        raise ValueError(f"--output {output} tells no format: a name that ends in one of {endings} is expected")
    if None not in (given, told) and given != told:
        raise ValueError(f"--format {given}, but --output {output} has the ending of {told}: leave one of them out")
    return given or told or "onnx"


def _stem(model: str) -> str:
    """``hf:folder/name`` -> ``name``; ``model.onnx`` -> ``model``."""
    name = Path(model.rpartition(":")[2]).name or "model"
    return name.removesuffix(".onnx")
