"""Write a model as ONNX, as a PyTorch program or as weights, and hold the written file against the model."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from cycledistill.cycle.exits import at_exit, cyclic_handles
from cycledistill.exporter.compare import compare, default_tolerance, run_eagerly
from cycledistill.exporter.errors import ExportError
from cycledistill.exporter.formats import write_graph, write_state_dict
from cycledistill.files import atomic_files
from cycledistill.inputs import Call, call_of, describe, guess_call, with_data
from cycledistill.metadata.model import with_words, words_of
from cycledistill.plugin.install import handle_of
from cycledistill.plugin.torch_private import tree_leaves
from cycledistill.stack.copies import meta_copy

_logger = logging.getLogger(__name__)

Format = Literal["onnx", "pt2", "safetensors"]
FORMATS: dict[str, str] = {".onnx": "onnx", ".pt2": "pt2", ".safetensors": "safetensors"}


@dataclass(frozen=True)
class Exported:
    """What was written, and how near it is to the model.

    Attributes:
        path: The file.
        format: ``"onnx"``, ``"pt2"`` or ``"safetensors"``.
        exit: The cycle whose output it gives.
        inputs: Shapes of the inputs it was held against; empty for weights.
        max_difference: Largest absolute difference to the model's outputs on these inputs; for weights, 0.0.
        dynamic_batch: Whether the first dimension of the inputs is free.
    """

    path: Path
    format: str
    exit: int
    inputs: str
    max_difference: float
    dynamic_batch: bool


def export(
    model: nn.Module,
    path: str | os.PathLike[str],
    inputs: Tensor | tuple[Any, ...] | Mapping[str, Any] | None = None,
    *,
    format: Format | None = None,
    exit: int | None = None,
    dynamic_batch: bool = True,
    postprocess: Callable[[Any], Any] | None = None,
    tolerance: float | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Exported:
    """Write a wrapped or plain model to a file, and compare what the file computes with what the model computes.

    A thin layer over ``torch.onnx.export(dynamo=True)``, ``torch.export`` and safetensors. The file appears only when
    it agrees with the model. The model is left as it was. An ONNX file's inputs have the names of the forward's
    arguments, its outputs those of the dict or ``ModelOutput`` that the model returns, else ``output`` (``output_0``,
    ... of a tuple).

    Args:
        model: In eval mode. Wrapped models need not be unwrapped; at ``exit=1`` the file is that of the plain model.
        path: The file; its ending tells the format where ``format`` does not, and may not contradict it.
        inputs: What the model is called with: a tensor, a tuple of arguments, or a mapping of keyword arguments. By
            default an image of the size the model declares, with values of a normal distribution. Weights need none.
        format: ``"onnx"`` (needs the extra ``onnx``), ``"pt2"`` (``torch.export.load`` reads it), ``"safetensors"``.
        exit: The cycle whose output the file gives; above 1 for wrapped models only. By default the one that the model
            answers at, ``model.cyclic.exit``. Weights are those of all exits.
        dynamic_batch: Leave the first dimension of every input tensor free, and compare at another batch size too.
        postprocess: Applied to the model's output inside the exported graph, for example a pose decoder.
        tolerance: The largest difference allowed in each output, relative to its largest finite value. nan and
            infinities must be at the same places, integers and booleans equal. By default 0.001, and of models in half
            precision, whose rounding is coarser, 0.01 (float16) or 0.08 (bfloat16): ten rounding steps.
        metadata: Words that the file shall hold beside the model's own (a model says them by a method
            ``export_metadata()``; a pose model its joints), its name and class, the exit, cycles and scheme, its
            input's size, mean and deviation and the names of its classes where it knows them, and the versions; they
            replace those; ``{"weights": "random"}`` takes cycles and scheme out. ``cycledistill report FILE`` reads
            them. ONNX: ``metadata_props``; ``pt2``: the extra file ``metadata.json``.

    Returns:
        Path, format, exit and the largest difference.

    Raises:
        ExportError: The model is in training mode, an operation cannot be exported (it is named), the model returns
            what a file cannot hold, the written file differs from the model, or the disk is full or read-only.
        ValueError: An unknown format, a path that cannot be written, an ``exit`` that the model does not have, or none
            where wrapped models inside it answer at different ones, a negative tolerance, or inputs that the model
            (or ``postprocess``) does not run on.
        TypeError: ``model`` is not a module, or ``postprocess`` cannot be called.
        ImportError: The exporter's packages are not installed.

    Example:
        >>> export(wrap_cyclic(vit, 2).eval(), "vit.onnx", torch.randn(1, 3, 224, 224), exit=2).max_difference < 1e-4
        True
    """
    target, kind = Path(path), _format(path, format)
    _check(model, target, kind, postprocess, tolerance)
    exit = _exit(model, exit)
    call = ((), {}) if kind == "safetensors" else _call(model, inputs)
    allowed = default_tolerance(model, call) if tolerance is None else tolerance
    whole = _followed_by(model, postprocess) if postprocess is not None else model

    words = with_words(words_of(model, exit, None if kind == "safetensors" else call), metadata or {})

    def write(folder: Path) -> float:
        if kind == "safetensors":
            return write_state_dict(model, folder / target.name, words)
        samples = run_eagerly(model, postprocess, call, dynamic_batch, kind)
        run = write_graph(kind, whole, call, folder / target.name, dynamic_batch, words)
        return compare(type(model).__name__, run, samples, allowed)

    with at_exit(model, exit):
        try:
            difference = atomic_files(target.parent, write)  # large ONNX files come with a second one
        except OSError as error:
            raise ExportError(f"{target} cannot be written: {error}") from error
    result = Exported(target, kind, exit, describe(call), difference, dynamic_batch and kind != "safetensors")
    _logger.info("%s: exit %d, largest difference to the model %.3g on %s", target, exit, difference, result.inputs)
    return result


def _followed_by(model: nn.Module, postprocess: Callable[[Any], Any]) -> nn.Module:
    """The model and what is done to its output as one module, with the name and the arguments of the model."""

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.postprocess = model, postprocess

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.postprocess(self.model(*args, **kwargs))

    functools.update_wrapper(Whole.forward, type(model).forward)  # for the names of the file's inputs
    Whole.__name__ = type(model).__name__
    return Whole().eval()


def _format(path: str | os.PathLike[str], given: str | None) -> str:
    told = FORMATS.get(Path(path).suffix)
    kind = given or told
    if kind is None or kind not in FORMATS.values():
        raise ValueError(
            f"format={given!r} for {os.fspath(path)!r}: one of {', '.join(map(repr, FORMATS.values()))} is expected, "
            "or a path with one of these endings"
        )
    if told not in (None, kind):
        raise ValueError(f"format={given!r}, but {os.fspath(path)!r} has the ending of {told!r}: leave one of them out")
    return kind


def _check(model: Any, target: Path, kind: str, postprocess: Any, tolerance: float | None) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model={model!r}: a torch.nn.Module is expected; create or load it first")
    if target.is_dir():
        raise ValueError(f"{target} is a folder: give the path of a file, such as {target / f'model.{kind}'}")
    if not target.parent.is_dir():
        raise ValueError(f"{target}: there is no folder {target.parent}")
    if postprocess is not None and not callable(postprocess):
        raise TypeError(f"postprocess={postprocess!r}: a callable that takes the model's output is expected")
    if postprocess is not None and kind == "safetensors":
        raise ValueError("postprocess= has no place in a file of weights: leave it out, or write 'onnx' or 'pt2'")
    if tolerance is not None and not 0 <= tolerance <= sys.float_info.max:
        raise ValueError(f"tolerance={tolerance!r}: a finite number of at least 0 is expected, such as 0.001")
    _check_mode(model)


def _exit(model: nn.Module, exit: int | None) -> int:
    """The exit that is asked for, else the one that the model answers at."""
    if exit is None:
        exits = sorted({handle.exit for handle in cyclic_handles(model)}) or [1]
        if len(exits) > 1:
            told = ", ".join(map(str, exits))
            raise ValueError(f"the wrapped models in this {type(model).__name__} answer at exits {told}: give exit=")
        return exits[0]
    if not isinstance(exit, int) or exit < 1:
        raise ValueError(f"exit={exit!r}: the number of a cycle is expected, 1 or more")
    if exit > 1 and not cyclic_handles(model):
        raise ValueError(f"exit={exit}: this {type(model).__name__} is not wrapped, and has exit 1 only")
    return exit


def _check_mode(model: nn.Module) -> None:
    training = next((name for name, module in model.named_modules() if module.training), None)
    if training is None:
        return
    handle = handle_of(model, "cyclic")
    cycles = f", in which it runs {handle.cycles} cycles and returns all" if handle else ""
    what = f"the model is in training mode{cycles}" if not training else f"its module {training!r} is in training mode"
    raise ExportError(f"{type(model).__name__}: {what}. Call model.eval() before the export")


def _call(model: nn.Module, inputs: Any) -> Call:
    if inputs is None:
        return with_data(guess_call(model, meta_copy(model)), model)
    call = call_of(inputs)
    tensors = [leaf for leaf in tree_leaves(call) if isinstance(leaf, Tensor)]
    if not tensors:
        raise ValueError(f"inputs={type(inputs).__name__}: a tensor, a tuple of arguments or a mapping is expected")
    if any(x.ndim and not len(x) for x in tensors):
        raise ValueError(f"inputs of {describe(call)}: a batch of at least 1 is expected, to compare the file on")
    return call
