"""ONNX files in eight-bit integers, held against the files they were made from."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from cycledistill.exporter.agreement import Agreement, agreement
from cycledistill.exporter.errors import ExportError, in_words
from cycledistill.exporter.formats import INLINE
from cycledistill.exporter.onnx_files import Graph, Named, noise, open_session, read_graph, size_of, write_words
from cycledistill.files import atomic_files
from cycledistill.versions import require

_logger = logging.getLogger(__name__)

Kind = Literal["dynamic", "static"]
KINDS = ("dynamic", "static")
OPERATIONS = {"dynamic": ["MatMul", "Gemm"], "static": ["MatMul", "Gemm", "Conv"]}
"""What each kind turns into integers; ONNX Runtime has no convolution of dynamic ranges with int8 weights."""


@dataclass(frozen=True)
class Quantized:
    """What was written, how much smaller it is, and how near its answers are to the original's.

    Attributes:
        path: The new file.
        kind: ``"dynamic"`` or ``"static"``.
        products: Matrix products and convolutions by weights that are in integers now.
        left: Those that stayed in floating point: small ones, and in ``"dynamic"`` files the convolutions.
        size_before: Bytes of the original.
        size: Bytes of the new file.
        agreement: Output -> how near it is to the original's.
        compared_on: What both files were run on, in words.
    """

    path: Path
    kind: str
    products: int
    left: int
    size_before: int
    size: int
    agreement: Mapping[str, Agreement]
    compared_on: str

    def __str__(self) -> str:
        """A few lines for people."""
        lines = [
            f"{self.path}: int8 ({self.kind}), {self.size_before / 1e6:.2f} -> {self.size / 1e6:.2f} MB "
            f"({self.size / self.size_before:.0%}); {self.products} products in integers, {self.left} left",
            *(f"{name}: {each}" for name, each in self.agreement.items()),
        ]
        return "\n".join([*lines, f"compared on {self.compared_on}"])


def quantize(
    path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    calibration: Iterable[Tensor | Mapping[str, Tensor]] | None = None,
    *,
    kind: Kind = "dynamic",
    reduce_range: bool = True,
) -> Quantized:
    """Write an ONNX file anew with int8 weights, one scale an output channel, and say what that changed.

    A thin layer over ``onnxruntime.quantization``. Products by weights become integer ones, wherever cycles repeat
    them; attention's own products, normalisation and weights of fewer than 256 numbers stay in floating point. What the
    file says of itself (``metadata_props``) is kept, and ``quantization`` added.

    Args:
        path: The file, as `export` writes it or from elsewhere.
        target: The new file; its name ends in ``.onnx``.
        calibration: Batches of real inputs, prepared as the model takes them: a tensor, or tensors by input name. A
            hundred images will do. ``"static"`` fixes the ranges of activations by them, and the two files are
            compared on them; without, on noise, which says little.
        kind: ``"dynamic"`` measures the ranges of activations in every call. ``"static"`` has them in the file, and
            takes convolutions as well.
        reduce_range: Weights in seven of the eight bits. x86 processors without VNNI add two products in 16 bits, which
            eight bits overflow without a word; with VNNI, and on ARM, ``False`` is a little more exact.

    Returns:
        Sizes, how many products became integer ones, and the agreement of each output.

    Raises:
        ExportError: Nothing in the file can be quantised, ONNX Runtime does not do it or does not run the result, an
            output of one of the two is nan, or the disk is full or read-only.
        ValueError: An unknown kind, no calibration data where ``"static"`` needs it, inputs that do not fit the file,
            hold no samples or are not finite, or a path that cannot be.
        ImportError: The packages of the extra ``onnx`` are not installed.

    Example:
        >>> done = quantize("vit.onnx", "vit-int8.onnx", [images], kind="static")
        >>> done.size < done.size_before / 2, done.agreement["output"].relative < 0.1
        (True, True)
    """
    source, out = Path(path), Path(target)
    _check(source, out, calibration, kind)
    require("onnx", "onnxruntime")
    try:
        import onnxruntime.quantization  # noqa: F401  (before any work)
    except ImportError as error:
        raise ImportError(f'{error}: pip install "cycledistill[onnx]"') from error
    session = open_session(source)
    batches = [_named(batch, session) for batch in calibration] if calibration is not None else []
    if calibration is not None and not batches:
        raise ValueError("calibration holds no inputs: batches of inputs as the model takes them are expected")
    samples = sum(len(next(iter(batch.values()))) for batch in batches)
    inputs = batches or [noise(session)]
    on = f"the {samples} calibration inputs" if batches else "noise; give calibration inputs to know of real ones"

    def write(folder: Path) -> Quantized:
        made = folder / out.name
        _convert(source, made, batches, kind, reduce_range)
        graph = read_graph(made)
        if not graph.integer:
            raise ExportError(_nothing(source, graph))
        write_words(made, source, {"quantization": json.dumps({"kind": kind, "bits": 7 if reduce_range else 8})})
        found = agreement(session, open_session(made), inputs)
        sizes = size_of(source), size_of(made)
        return Quantized(out, kind, graph.integer, graph.floating, *sizes, found, on)

    try:
        done = atomic_files(out.parent, write)
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error}") from error
    _logger.info("%s", done)
    return done


def _check(source: Path, target: Path, calibration: object, kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: 'dynamic' or 'static' is expected")
    if kind == "static" and calibration is None:
        raise ValueError(
            "kind='static' fixes the ranges of activations by real inputs, and none are given: give calibration=, "
            "batches of inputs as the model takes them, or kind='dynamic', which needs none"
        )
    if isinstance(calibration, (Tensor, Mapping)):
        raise ValueError("calibration is one batch: give a list of batches, [batch]")
    if not source.is_file():
        raise ValueError(f"{source}: there is no such file")
    if target.is_dir() or not target.parent.is_dir():
        raise ValueError(f"{target}: the name of a file in a folder that is there is expected")
    if target.suffix != ".onnx":
        raise ValueError(f"{target} is to be an ONNX file: a name that ends in .onnx is expected")
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the original: give another name, such as {source.stem}-int8.onnx")


def _named(batch: Tensor | Mapping[str, Tensor], session: Any) -> Named:
    """A batch as ONNX Runtime takes it."""
    entries = session.get_inputs()
    given = batch if isinstance(batch, Mapping) else {entries[0].name: batch}
    wanted = {entry.name: entry.shape for entry in entries}
    if set(given) != set(wanted):
        raise ValueError(f"calibration inputs {', '.join(given)}: the file takes {', '.join(wanted)}, by name")
    for name, tensor in given.items():
        shape, expected = tuple(tensor.shape), wanted[name]
        pairs = zip(shape, expected, strict=False)
        if len(shape) != len(expected) or any(isinstance(b, int) and a != b for a, b in pairs):
            raise ValueError(f"calibration input {name} of shape {shape}: the file takes {tuple(expected)}")
        if not tensor.numel():
            raise ValueError(f"calibration input {name} of shape {shape} holds no inputs: at least one is expected")
        if not bool(tensor.isfinite().all()):
            raise ValueError(
                f"calibration input {name} is not finite: it holds nan or infinity, by which no range can be fixed"
            )
    return {name: tensor.detach().cpu().numpy() for name, tensor in given.items()}


class _Reader:
    """Batches one after the other, as ONNX Runtime's calibration asks for them."""

    def __init__(self, batches: Sequence[Named]) -> None:
        self.left: Iterator[Named] = iter(batches)

    def get_next(self) -> Named | None:
        return next(self.left, None)


def _convert(source: Path, made: Path, batches: Sequence[Named], kind: str, reduce_range: bool) -> None:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(_Reader, quantization.CalibrationDataReader): ...

    shared: dict[str, Any] = {
        "per_channel": True,
        "reduce_range": reduce_range,
        "op_types_to_quantize": OPERATIONS[kind],
        "use_external_data_format": size_of(source) > INLINE,
    }
    options: dict[str, Any] = {"MatMulConstBOnly": True}
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared.onnx")
        try:
            large = {"save_as_external_data": size_of(source) > INLINE}
            quant_pre_process(source, prepared, skip_symbolic_shape=True, **large)
            shared["nodes_to_exclude"] = read_graph(prepared).small
            if kind == "dynamic":
                quantization.quantize_dynamic(prepared, made, extra_options=options, **shared)
            else:
                # The sums stay in floating point: rounding them too costs accuracy and another pass over them.
                options |= {"OpTypesToExcludeOutputQuantization": OPERATIONS[kind]}
                quantization.quantize_static(prepared, made, Reader(batches), extra_options=options, **shared)
        except OSError:
            raise
        except Exception as error:  # a library that raises what it likes
            raise ExportError(f"{source}: ONNX Runtime does not quantise it: {in_words(error)}") from error


def _nothing(source: Path, graph: Graph) -> str:
    why = f"its {graph.floating} products have small weights or are convolutions" if graph.floating else "it has none"
    return (
        f"{source}: nothing to quantise: products by weights of at least 256 numbers are expected, and {why}. "
        "Convolutions are taken by kind='static' alone. Nothing was written"
    )
