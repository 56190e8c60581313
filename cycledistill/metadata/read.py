"""Read what a file of a model says of itself, without its weights; nothing that a file names is run."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from cycledistill.metadata.onnx_words import onnx_words
from cycledistill.versions import require

FORMATS = {".onnx": "ONNX", ".pt2": "a PyTorch program", ".safetensors": "weights as safetensors"}
"""Ending -> what such a file is."""

PT2_FILE = "metadata.json"
"""The extra file of a ``pt2`` that holds its words."""

_MOST = 2**26
"""Bytes of words: names of tens of thousands of classes are far less, and a small zip file can stand for far more."""


class MetadataError(ValueError):
    """A file that does not say what it is, or cannot be read."""


def read_words(path: str | os.PathLike[str]) -> dict[str, str]:
    """What an ``.onnx``, ``.pt2`` or ``.safetensors`` file says of itself, whoever wrote it; may be nothing.

    Raises:
        MetadataError: No such file, one of another kind, or a torn one.
        ImportError: Of safetensors: the package is not installed.

    Example:
        >>> read_words("vit.onnx")["exit"]
        '2'
    """
    file = Path(path)
    if not file.is_file():
        raise MetadataError(f"{file}: {'a folder; a file is expected' if file.is_dir() else 'there is no such file'}")
    if file.suffix not in _READERS:
        raise MetadataError(
            f"{file} is none of the files that say what they are: {', '.join(_READERS)}. A PyTorch checkpoint (.pth, "
            ".pt) holds tensors alone: cycledistill convert, or export, writes safetensors"
        )
    if file.suffix == ".safetensors":
        require("safetensors")
        import safetensors  # noqa: F401  (not a fault of the file)
    try:
        return _READERS[file.suffix](file)
    except OSError as error:
        raise MetadataError(f"{file} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # of a damaged file libraries raise what they like
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise MetadataError(f"{file} is torn, or not {FORMATS[file.suffix]}: {said}") from error


def _onnx(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        return onnx_words(file)


def _pt2(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if not any(name.rpartition("/")[2] in ("archive_format", "serialized_exported_program.json") for name in names):
            raise ValueError("a zip file without a program")
        # PyTorch's folder of extra files; it had another name once.
        found = [each for each in names if each.split("/")[-2:] in (["extra", PT2_FILE], ["extra_files", PT2_FILE])]
        if not found:
            return {}
        if archive.getinfo(found[0]).file_size > _MOST:
            raise ValueError(f"{found[0]} is larger than {_MOST} bytes")
        words = json.loads(archive.read(found[0]))
    if not isinstance(words, dict) or not all(isinstance(each, str) for each in words.values()):
        raise ValueError(f"{found[0]}: words by name are expected")
    return words


def safetensors_words(path: Path) -> dict[str, str]:
    """The words of a safetensors file; raises what that library does."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata() or {})


_READERS: dict[str, Callable[[Path], dict[str, str]]] = {
    ".onnx": _onnx,
    ".pt2": _pt2,
    ".safetensors": safetensors_words,
}
