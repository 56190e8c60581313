"""ONNX files as such: their sessions, their products by weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cycledistill.exporter.errors import ExportError, in_words
from cycledistill.metadata.onnx_words import onnx_words

Named = dict[str, Any]
"""Arrays by the name of a file's input or output."""

SMALL = 256
"""Weights of fewer numbers stay as they are: nothing is gained, and filters of a decoder lose pixels by it."""

_WEIGHTS = {"MatMul": 1, "Gemm": 1, "Conv": 1}
_INTEGER = {"MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "QGemm"}


@dataclass(frozen=True)
class Graph:
    """The products by weights of a file.

    Attributes:
        integer: How many are in integers, or between conversions that a runtime fuses into integer ones (QDQ).
        floating: How many are in floating point.
        small: The names of those in floating point whose weights are few.
    """

    integer: int
    floating: int
    small: list[str]


def read_graph(path: Path) -> Graph:
    """Count the products of an ONNX file whose weights are in the file."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    weights = {each.name: math.prod(each.dims) for each in graph.initializer}
    converted = {
        node.output[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in weights
    }
    integer = floating = 0
    small = []
    for node in graph.node:
        place = _WEIGHTS.get(node.op_type)
        if node.op_type in _INTEGER or (place is not None and node.input[place] in converted):
            integer += 1
        elif place is not None and node.input[place] in weights:
            floating += 1
            if weights[node.input[place]] < SMALL:
                small.append(node.name)
    return Graph(integer, floating, small)


def new_session(path: Path) -> Any:
    """An ONNX Runtime session on the CPU; raises what that raises."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it would print is in what it raises
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def open_session(path: Path) -> Any:
    """An ONNX Runtime session on the CPU; `ExportError` where it does not take the file."""
    try:
        return new_session(path)
    except Exception as error:
        raise ExportError(f"{path} is not taken by ONNX Runtime: {in_words(error)}") from error


def noise(session: Any, batch: int = 4) -> Named:
    """Inputs for a file, drawn from a normal distribution, the same in every call; integers are zeros.

    Raises:
        ValueError: Another dimension than the first is free.
    """
    generator = torch.Generator().manual_seed(0)
    made: Named = {}
    for entry in session.get_inputs():
        first, *others = entry.shape or [None]
        if not all(isinstance(size, int) for size in others):
            raise ValueError(
                f"input {entry.name} of shape {entry.shape}: its sizes are free, so give calibration inputs"
            )
        shape = [first if isinstance(first, int) else batch, *others] if entry.shape else []
        if "float" in entry.type:
            half = torch.float16 if "16" in entry.type else torch.float32
            made[entry.name] = torch.randn(shape, generator=generator).to(half).numpy()
        else:
            kind = torch.bool if "bool" in entry.type else torch.int32 if "32" in entry.type else torch.int64
            made[entry.name] = torch.zeros(shape, dtype=kind).numpy()
    return made


def size_of(path: Path) -> int:
    """Bytes of an ONNX file, with the file of weights that a large one has beside it."""
    beside = path.with_name(f"{path.name}.data")
    return path.stat().st_size + (beside.stat().st_size if beside.exists() else 0)


def write_words(path: Path, source: Path, more: Mapping[str, str]) -> None:
    """Have an ONNX file say what another one says of itself, and more."""
    import onnx

    with source.open("rb") as original:
        words = onnx_words(original)
    model = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(model, {**words, **more})
    onnx.save(model, path)
