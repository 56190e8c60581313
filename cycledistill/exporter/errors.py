"""Why a model cannot be exported, in one sentence: exporters' own messages run over pages, and some print graphs."""

from __future__ import annotations

import contextlib
import io
import linecache
import logging
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

_logger = logging.getLogger(__name__)

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_CONSTRAINT = re.compile(r"^\s+- (.+?)(?:\. If you.*)?$", re.MULTILINE)  # what follows is advice on calling torch
_OPERATION = (
    r"No ONNX function found for <OpOverload\(op='([^']+)'",
    r"translating node .*?target=(?:torch\.ops\.)?([\w.]+)",
)


class ExportError(RuntimeError):
    """A model that cannot be written, or whose file does not do what the model does."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send what exporters print to stderr (graphs, hints to their developers) to the log, as DEBUG."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    finally:
        if said.getvalue():
            _logger.debug("the exporter printed:\n%s", said.getvalue())


def in_words(error: BaseException) -> str:
    """The first line of an exception's text, without colours, and its class."""
    lines = (line.strip() for line in _COLOURS.sub("", str(error)).splitlines())
    first = next(filter(None, lines), "")
    return f"{first} ({type(error).__name__})" if first else type(error).__name__


def not_traced(name: str, error: Exception) -> str:
    """What ``torch.export`` stumbled over, and the line of the model where it did."""
    line = _line(error)
    text = "\n".join(map(str, _chain(error)))
    if "data-dependent" in text:
        by = f" by {line}" if line else ""
        return f"{name} cannot be exported: values of a tensor are read{by}, and the file has one way for all inputs"
    detail = _CONSTRAINT.search(str(error)) if "Constraints violated" in text else None
    said = detail[1] if detail else in_words(error)
    return f"{name} cannot be exported: {f'{line}: ' if line else ''}{said}"


def not_converted(name: str, error: Exception) -> str:
    """What the ONNX exporter stumbled over: the operation, and the innermost error, which the outer ones hide."""
    chain = _chain(error)
    text = "\n".join(map(str, chain))
    found = next(filter(None, (re.search(pattern, text) for pattern in _OPERATION)), None)
    what = f"the operation {found[1]}" if found else "the program"
    return f"{name}: {what} cannot be exported to ONNX: {in_words(chain[-1])}"


def not_loaded(name: str, error: Exception, types: list[str]) -> str:
    """Why ONNX Runtime does not take a file, and which floating types of the model it may lack.

    Args:
        name: Of the model.
        error: What ONNX Runtime raised.
        types: Floating types of the model other than float32.
    """
    said = re.sub(r"\[ONNXRuntimeError\] : \d+ : (\w+) : (?:Load model from .*? failed:)?", r"\1: ", in_words(error))
    advice = f". The model is in {' and '.join(types)}: cast it to float32 first, model.float()" if types else ""
    return f"{name}: ONNX Runtime, which checks the file on the CPU, does not take it: {said}{advice}"


def _chain(error: BaseException) -> list[BaseException]:
    """The error and its causes, outermost first."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    return chain


def _line(error: BaseException) -> str:
    """The innermost line of the model's own code, or of a library it uses other than torch; empty if there is none."""
    frames = list(traceback.walk_tb(error.__traceback__))
    packages = [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame, _ in frames]
    traced = packages.index("torch") if "torch" in packages else len(frames)
    passed_by = {"torch", *sys.stdlib_module_names}
    for (frame, number), package in reversed(list(zip(frames, packages, strict=True))[traced:]):
        code = linecache.getline(frame.f_code.co_filename, number).strip()
        if package not in passed_by and code:
            return f"`{code}` ({Path(frame.f_code.co_filename).name}, line {number})"
    return ""
