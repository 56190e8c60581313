"""``cycledistill export``: a model as a file for another runtime, in eight-bit integers where that is asked for."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cycledistill.commands.arguments import check_positive, check_target
from cycledistill.terminal.loading import say_loading

if TYPE_CHECKING:
    from torch import Tensor, nn

help = "write a model as ONNX, pt2 or safetensors; ONNX in int8 as well"

FORMATS = ("onnx", "pt2", "safetensors")
KINDS = ("dynamic", "static")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, the file and how it is quantised."""
    what = "a run or checkpoint; an ONNX file, to quantise; or timm name, torchvision:NAME, hf:TYPE (random weights)"
    parser.add_argument("model", metavar="MODEL", help=what)
    parser.add_argument("--format", choices=FORMATS, help="default: as --output ends, else onnx")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: the model's name, here")
    parser.add_argument("--exit", type=int, default=1, metavar="N", help="the cycle that answers (default 1)")
    parser.add_argument(
        "--blocks", default="auto", metavar="PATH", help='the stack of a plain model, "layers.2.blocks"'
    )
    parser.add_argument("--img-size", type=int, metavar="PIXELS", help="build the model for S x S images")
    parser.add_argument(
        "--int8", nargs="?", const="dynamic", choices=KINDS, metavar="KIND", help="dynamic (default), or static"
    )
    real = "for --int8: a folder of pictures, or an .npy file of inputs as the model takes them"
    parser.add_argument("--calibration", type=Path, metavar="DIR", help=real)
    parser.add_argument("--limit", type=int, default=128, metavar="N", help="so many of them at most (default 128)")
    full = "all eight bits for weights: right on ARM, and on x86 with VNNI"
    parser.add_argument("--full-range", action="store_true", help=full)
    parser.epilog = (
        "With --int8 the file is the quantised one; static fixes ranges by --calibration, dynamic needs none."
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
        if args.int8 is None:
            sys.stdout.write(_export(args, target, kind))
        elif written:
            _quantize(args, Path(args.model), target, None)
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
    if args.int8 is None and (args.calibration is not None or args.full_range):
        raise ValueError("--calibration and --full-range belong to --int8, which is not given")
    if args.int8 is not None and kind != "onnx":
        raise ValueError(f"--int8 with --format {kind}: only ONNX files are quantised here")
    if args.int8 == "static" and args.calibration is None:
        raise ValueError(
            "--int8 static fixes the ranges of activations by real inputs: give --calibration DIR, pictures such as "
            "the model will see (a hundred will do), or an .npy file of inputs; --int8 dynamic needs none"
        )
    if args.calibration is not None and not args.calibration.exists():
        raise ValueError(f"--calibration {args.calibration}: there is no such folder or file")
    if written and args.exit != 1:
        raise ValueError(f"--exit {args.exit}: {args.model} is a file of one exit; export the model anew")
    check_target("--output", target)


def _ending(path: Path | None) -> str | None:
    return path.suffix[1:] if path is not None and path.suffix[1:] in FORMATS else None


def _stem(model: str) -> str:
    """``hf:folder/name`` -> ``name``; ``model.onnx`` -> ``model``."""
    name = Path(model.rpartition(":")[2]).name or "model"
    return name.removesuffix(".onnx")


def _export(args: argparse.Namespace, target: Path, kind: str) -> str:
    """Write the model, and a line on it."""
    from cycledistill.exporter import export

    model, inputs, said = _model(args)
    done = export(model, target, inputs, format=kind, exit=args.exit)  # type: ignore[arg-type]
    size = f"{target.stat().st_size / 1e6:.2f} MB"
    return f"{target}: {said}, exit {done.exit}, {size}; largest difference to the model {done.max_difference:.2g}\n"


def _model(args: argparse.Namespace) -> tuple[nn.Module, Tensor | None, str]:
    """The model in eval mode, wrapped where a later exit is asked for; what to run it on; and what it is."""
    from cycledistill.cycle.wrap import wrap_cyclic
    from cycledistill.plugin.handle import handle_of

    inputs = None
    blocks = args.blocks
    if Path(args.model).is_dir():
        from cycledistill.insight.subject import open_subject

        subject = open_subject(Path(args.model))
        model, said = subject.model, subject.name
        blocks = subject.blocks if blocks == "auto" else blocks
    else:
        from cycledistill.commands.models import build

        model, inputs = build(args.model, args.img_size, "cpu")
        said = f"{args.model} with random weights"
    if args.exit > 1 and handle_of(model, "cyclic") is None:
        model = wrap_cyclic(model, args.exit, None, blocks=blocks, inputs=inputs)
    return model.eval(), inputs, said


def _export_and_quantize(args: argparse.Namespace, target: Path) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        original = Path(folder, "model.onnx")
        sys.stdout.write(_export(args, original, "onnx").replace(str(original), "in floating point", 1))
        _quantize(args, original, target, Path(args.model) if Path(args.model).is_dir() else None)


def _quantize(args: argparse.Namespace, original: Path, target: Path, checkpoint: Path | None) -> None:
    from cycledistill.commands.calibration import open_inputs
    from cycledistill.exporter import quantize

    batches: Any = None
    if args.calibration is not None:
        batches = open_inputs(args.calibration, original, args.limit, checkpoint)
    done = quantize(original, target, batches, kind=args.int8, reduce_range=not args.full_range)
    sys.stdout.write(f"{done}\n")
