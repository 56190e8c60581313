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
_OPERATION = re.compile(r"translating node .*?target=(?:torch\.ops\.)?([\w.]+?)(?:\.default)?\]")


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
    if any("data-dependent" in str(each) for each in _chain(error)):
        by = f" by {line}" if line else ""
        return f"{name} cannot be exported: values of a tensor are read{by}, and the file has one way for all inputs"
    constraints = (each.strip() for each in str(error).splitlines() if each.startswith("  - "))
    violated = next(constraints, "").removeprefix("- ").partition(". If you")[0]  # then, advice on calling torch
    return f"{name} cannot be exported: {f'{line}: ' if line else ''}{violated or in_words(error)}"


def not_converted(name: str, error: Exception) -> str:
    """What the ONNX exporter stumbled over: the operation, and the innermost error, which the outer ones hide."""
    chain = _chain(error)
    found = _OPERATION.search("\n".join(map(str, chain)))
    what = f"the operation {found[1]}" if found else "the program"
    return f"{name}: {what} cannot be exported to ONNX: {in_words(chain[-1])}"


def not_loaded(name: str, error: Exception, types: list[str]) -> str:
    """Why ONNX Runtime does not take a file; ``types`` are the model's floating types other than float32."""
    said = in_words(error).split(" : ", 3)[-1]  # "[ONNXRuntimeError] : 1 : FAIL : Load model from ... failed:..."
    said = said.partition(" failed:")[2] or said
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
    found, passed_by = "", {"torch", *sys.stdlib_module_names}
    for frame, number in list(traceback.walk_tb(error.__traceback__))[1:]:  # the first is our own call of torch
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        code = linecache.getline(frame.f_code.co_filename, number).strip()
        if package not in passed_by and code:
            found = f"`{code}` ({Path(frame.f_code.co_filename).name}, line {number})"
    return found
