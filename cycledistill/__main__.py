"""``python -m cycledistill``: what a model costs with more cycles, which stacks it has, what cycling did to it.

    python -m cycledistill report deit_tiny_patch16_224 --cycles 3
    python -m cycledistill stacks swin_tiny_patch4_window7_224
    python -m cycledistill insight runs/a --image photo.jpg --out insight.html

A model is a timm name, ``torchvision:NAME``, or ``hf:TYPE`` where TYPE is a Hugging Face model type such as ``vit``
(its default configuration) or a folder with a config.json. Nothing is downloaded and no weights are needed: models are
built without data, and only ``--time`` gives them random weights. Exit codes: 0, or 2 for bad input.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill.cost.report import cost
from cycledistill.errors import StackError
from cycledistill.files import atomic_write, check_writable
from cycledistill.insight.report import insight_report, open_subject
from cycledistill.stack.find import choose_stack, find_stacks


class BadInput(Exception):
    """Something the user gave cannot be used; the message says what and what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments after the program's name; default, those of the process.

    Returns:
        0, or 2 for bad input, with the reason on stderr.
    """
    options = _parser().parse_args(argv)
    try:
        options.run(options)
    except (BadInput, ValueError) as error:  # StackError is a ValueError
        sys.stderr.write(f"cycledistill: {error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cycledistill", description="Cost, stacks and inner life of a model."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    report = commands.add_parser("report", help="parameters, MACs and time of a model with 1..N cycles")
    report.add_argument("--cycles", type=int, default=2, metavar="N", help="report 1..N cycles (default 2)")
    report.add_argument("--blocks", default="auto", metavar="PATH", help='the stack, e.g. "layers.2.blocks"')
    report.add_argument("--time", action="store_true", help="also time one image, on the CPU with one thread")
    report.add_argument("--repeats", type=int, default=5, metavar="R", help="rounds of --time (default 5)")
    report.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    report.set_defaults(run=_report)
    stacks = commands.add_parser("stacks", help="runs of blocks that can be cycled")
    stacks.set_defaults(run=_stacks)
    insight = commands.add_parser("insight", help="attention, drift, parameters of a trained model as HTML")
    insight.add_argument("checkpoint", type=Path, help="folder of a run or checkpoint")
    insight.add_argument(
        "--image",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="images (for lifting: keypoint files) to show it",
    )
    insight.add_argument("--cycles", type=int, metavar="N", help="cycles to run (default: as trained)")
    insight.add_argument(
        "--compare", type=Path, metavar="CHECKPOINT", help="draw this one's parameters and scores beside"
    )
    insight.add_argument("--out", type=Path, default=Path("insight.html"), metavar="FILE", help="default insight.html")
    insight.set_defaults(run=_insight)
    for command in (report, stacks):
        command.add_argument("model", help="timm name, torchvision:NAME, or hf:TYPE")
        command.add_argument("--img-size", type=int, metavar="S", help="build the model for S x S images")
    return parser


def _report(options: argparse.Namespace) -> None:
    if options.cycles < 1:
        raise BadInput(f"--cycles {options.cycles}: a whole number of at least 1 is expected")
    if options.repeats < 1:
        raise BadInput(f"--repeats {options.repeats}: a whole number of at least 1 is expected")
    if options.json is not None:
        _check_target("--json", options.json)
    model, image = _build(options.model, options.img_size, "cpu" if options.time else "meta")
    repeats = options.repeats if options.time else 0
    try:
        report = cost(model, image, options.cycles, blocks=options.blocks, repeats=repeats)
    except (RuntimeError, AssertionError) as error:
        if options.img_size is None:
            raise
        raise BadInput(f"{options.model} does not run on --img-size {options.img_size}: {error}") from error
    sys.stdout.write(f"{report}\n")
    if options.json is not None:
        _write(options.json, json.dumps({"name": options.model, **report.to_dict()}, indent=2) + "\n")


def _stacks(options: argparse.Namespace) -> None:
    model, _ = _build(options.model, options.img_size, "meta")
    found = find_stacks(model)
    if not found:
        raise BadInput(f"{options.model} ({type(model).__name__}) has no run of equal blocks that keep their shape")
    header = ("path", "depth", "block", "state", "parameters", "share", "attention")
    rows = [
        (
            s.path,
            s.depth,
            s.block,
            s.shape or "unknown",
            f"{s.parameters:,}",
            f"{s.share:.1%}",
            "yes" if s.attention else "no",
        )
        for s in found
    ]
    table = [tuple(map(str, row)) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    try:
        call = f"wrap_cyclic(model) takes {choose_stack(model).path}"
    except StackError:
        best = next((s for s in found if s.attention), found[0])
        call = f'no stack is taken by itself; for example wrap_cyclic(model, blocks="{best.path}")'
    sys.stdout.write("\n".join([f"{options.model} ({type(model).__name__})", "", *lines, "", call, ""]))


def _insight(options: argparse.Namespace) -> None:
    if options.cycles is not None and options.cycles < 1:
        raise BadInput(f"--cycles {options.cycles}: a whole number of at least 1 is expected")
    _check_target("--out", options.out)
    missing = next((file for file in options.image if not file.is_file()), None)
    if missing is not None:
        raise BadInput(f"--image {missing}: there is no such file")
    subject = open_subject(options.checkpoint)
    compare = open_subject(options.compare) if options.compare is not None else None
    try:
        page = insight_report(subject, options.image, cycles=options.cycles, compare=compare)
    except ImportError as error:
        raise BadInput(str(error)) from error
    _write(options.out, page)
    sys.stdout.write(f"{options.out}: {len(options.image)} files shown, {subject.name}\n")


def _build(name: str, size: int | None, device: str) -> tuple[nn.Module, Tensor | None]:
    """The model, and the image to run it on where the size was asked for but the model cannot be built for it."""
    if size is not None and size < 1:
        raise BadInput(f"--img-size {size}: a whole number of at least 1 is expected")
    source, _, rest = name.partition(":")
    builders = {"torchvision": _torchvision, "hf": _hugging_face}
    try:
        with torch.device(device):
            model = builders[source](rest, size) if source in builders and rest else _timm(name, size)
    except (AssertionError, RuntimeError, TypeError) as error:
        given = "" if size is None else f" with --img-size {size}"
        raise BadInput(f"{name} cannot be built{given}: {type(error).__name__}: {error}") from error
    if size is None or source in builders or _declared(model) == size:
        return model, None
    return model, torch.zeros(1, _channels(model), size, size, device=device)


def _timm(name: str, size: int | None) -> nn.Module:
    timm = _library("timm")
    if not timm.is_model(name):
        raise BadInput(_unknown("timm model", name, timm.list_models()))
    if size is not None:
        try:
            return timm.create_model(name, img_size=size)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
    return timm.create_model(name)


def _torchvision(name: str, size: int | None) -> nn.Module:
    models = _library("torchvision.models")
    if name not in models.list_models():
        raise BadInput(_unknown("torchvision model", name, models.list_models()))
    return models.get_model(name, weights=None, **({} if size is None else {"image_size": size}))


def _hugging_face(name: str, size: int | None) -> nn.Module:
    transformers = _library("transformers")
    overrides: dict[str, Any] = {} if size is None else {"image_size": size}
    if os.path.isdir(name):
        config = transformers.AutoConfig.from_pretrained(name, local_files_only=True, **overrides)
    else:
        known = list(transformers.CONFIG_MAPPING.keys())
        if name not in known:
            raise BadInput(_unknown("Hugging Face model type, nor a folder", name, known))
        config = transformers.AutoConfig.for_model(name, **overrides)
    for auto in (transformers.AutoModelForImageClassification, transformers.AutoModel):
        if type(config) in auto._model_mapping:
            return auto.from_config(config)
    raise BadInput(f"hf:{name} has no model that transformers builds from a configuration alone")


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise BadInput(
            f"{package} is not installed, and models of that source need it: pip install {package}"
        ) from error


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    return f"{name!r} is no {what}{hint}"


def _declared(model: nn.Module) -> int | None:
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    return size[0] if isinstance(size, (tuple, list)) and size[0] == size[-1] else None


def _channels(model: nn.Module) -> int:
    return next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)


def _check_target(option: str, path: Path) -> None:
    """Refuse a file that cannot be written, before the work is done."""
    if os.path.isdir(path):  # which a name that is too long is not; Path.is_dir raises
        raise BadInput(f"{option} {path} is a folder: give the name of a file, such as {path / 'report'}")
    if not path.parent.is_dir():
        raise BadInput(f"{option} {path}: there is no folder {path.parent}")
    try:
        check_writable(path)
    except OSError as error:
        raise BadInput(f"{option} {path} cannot be written: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    try:
        atomic_write(path, lambda file: file.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
