"""Write a model as ONNX, as a PyTorch program or as weights, and hold the written file against the model."""

from __future__ import annotations

import functools
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from cycledistill.export_formats import ExportError, compare, write, write_weights
from cycledistill.probe import meta_copy
from cycledistill.twin import Inputs, describe, guess_call

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
        inputs: Shapes of the inputs it was held against.
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
    exit: int = 1,
    dynamic_batch: bool = True,
    postprocess: Callable[[Any], Any] | None = None,
    tolerance: float = 1e-3,
) -> Exported:
    """Write a wrapped or plain model to a file, and compare what the file computes with what the model computes.

    A thin layer over ``torch.onnx.export(dynamo=True)``, ``torch.export`` and safetensors. The file appears only when
    it agrees with the model. The model is left as it was. An ONNX file's inputs have the names of the forward's
    arguments, its outputs those of the dict or ``ModelOutput`` that the model returns, else ``output`` (``output_0``,
    ... of a tuple).

    Args:
        model: In eval mode. Wrapped models need not be unwrapped; at ``exit=1`` the file is that of the plain model.
        path: The file; its ending tells the format where ``format`` does not.
        inputs: What the model is called with: a tensor, a tuple of arguments, or a mapping of keyword arguments. By
            default an image of the size the model declares, with values of a normal distribution.
        format: ``"onnx"`` (needs the extra ``onnx``), ``"pt2"`` (``torch.export.load`` reads it), ``"safetensors"``.
        exit: The cycle whose output the file gives; above 1 for wrapped models only. Weights are those of all exits.
        dynamic_batch: Leave the first dimension of every input tensor free, and compare at another batch size too.
        postprocess: Applied to the model's output inside the exported graph, for example a pose decoder.
        tolerance: The largest difference allowed, relative to the largest output of the model.

    Returns:
        Path, format, exit and the largest difference.

    Raises:
        ExportError: The model is in training mode, an operation cannot be exported (it is named), or the written file
            differs from the model.
        ValueError: An unknown format, an ``exit`` that the model does not have, or inputs of no use.
        ImportError: The exporter's packages are not installed.

    Example:
        >>> export(wrap_cyclic(vit, 2).eval(), "vit.onnx", torch.randn(1, 3, 224, 224), exit=2).max_difference < 1e-4
        True
    """
    target, kind = Path(path), _format(path, format)
    _check_mode(model)
    handles = _handles(model)
    if not isinstance(exit, int) or exit < 1 or (exit > 1 and not handles):
        raise ValueError(
            f"exit={exit!r}: {'a cycle of at least 1' if handles else 'a model that is not wrapped has 1'}"
        )
    if not target.parent.is_dir():
        raise ValueError(f"{target}: there is no folder {target.parent}")
    args, kwargs = _call(model, inputs)
    whole = _followed_by(model, postprocess) if postprocess is not None else model
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder, _at_exit(handles, exit):
        beside = Path(folder) / target.name
        if kind == "safetensors":
            difference = write_weights(model, beside)
        else:
            run = write(kind, whole, (args, kwargs), beside, dynamic_batch)
            difference = compare(whole, run, (args, kwargs), dynamic_batch, tolerance)
        for file in Path(folder).iterdir():  # large ONNX files come with a second one
            os.replace(file, target.parent / file.name)
    result = Exported(target, kind, exit, describe((args, kwargs)), difference, dynamic_batch and kind != "safetensors")
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

    functools.update_wrapper(Whole.forward, type(model).forward)
    Whole.__name__ = type(model).__name__
    return Whole().eval()


def _format(path: str | os.PathLike[str], given: str | None) -> str:
    kind = given or FORMATS.get(Path(path).suffix)
    if kind is None or kind not in FORMATS.values():
        raise ValueError(
            f"format={given!r} for {os.fspath(path)!r}: one of {', '.join(map(repr, FORMATS.values()))} is expected, "
            "or a path with one of these endings"
        )
    return kind


def _check_mode(model: nn.Module) -> None:
    training = next((name for name, module in model.named_modules() if module.training), None)
    if training is None:
        return
    handle: Any = vars(model).get("cyclic")
    cycles = f", in which it runs {handle.cycles} cycles and returns all" if handle else ""
    what = f"the model is in training mode{cycles}" if not training else f"its module {training!r} is in training mode"
    raise ExportError(f"{type(model).__name__}: {what}. Call model.eval() before the export")


def _handles(model: nn.Module) -> list[Any]:
    return [vars(module)["cyclic"] for module in model.modules() if "cyclic" in vars(module)]


@contextmanager
def _at_exit(handles: list[Any], exit: int) -> Iterator[None]:
    before = [handle.exit for handle in handles]
    try:
        for handle in handles:
            handle.exit = exit
        yield
    finally:
        for handle, cycle in zip(handles, before, strict=True):
            handle.exit = cycle


def _call(model: nn.Module, inputs: Any) -> Inputs:
    if inputs is None:
        try:
            call = guess_call(model, meta_copy(model))
        except ValueError:
            raise ValueError(f"{type(model).__name__} declares no input size: give inputs=") from None
        place = next((p.device for p in model.parameters()), torch.device("cpu"))
        return tree_map_only(Tensor, lambda meta: _random(meta, place), call)
    if isinstance(inputs, Mapping):
        call = (), dict(inputs)
    else:
        call = (inputs if isinstance(inputs, tuple) else (inputs,)), {}
    if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(call)):
        raise ValueError(f"inputs={type(inputs).__name__}: a tensor, a tuple of arguments or a mapping is expected")
    return call


def _random(meta: Tensor, place: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if meta.is_floating_point():
        return torch.randn(meta.shape, generator=generator).to(place, meta.dtype)
    return torch.zeros(meta.shape, dtype=meta.dtype, device=place)
