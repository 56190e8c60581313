"""Files of OpenCV's ``FileStorage``, YAML, XML or JSON, as plain data, read without OpenCV; nothing in them is run.

Its YAML is none that parsers of YAML take (the first line is ``%YAML:1.0``, matrices have a tag of their own), and
OpenCV's own parser, in C++, is not one for files of strangers. Plain YAML and JSON, as people write them by hand and
ROS does, are read too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from cycledistill.recipes.reading.guard import FILE, Kind, reading
from cycledistill.recipes.reading.texts import parse_yaml, read_json

from ...errors import LiftingDataError

SUFFIXES = (".yml", ".yaml", ".xml", ".json")

_XML = Kind("cannot be read as OpenCV's XML")
_FIRST_LINE = re.compile(r"\A\ufeff?%YAML[: ]1\.\d[^\n]*\n")
_TAG = re.compile(r"!!opencv-(nd-)?matrix\b")
_DEEPEST = 20


def read_storage(path: str | Path) -> Any:
    """What a file of calibration holds; matrices are arrays.

    Args:
        path: ``.yml``, ``.yaml``, ``.xml`` or ``.json``.

    Raises:
        LiftingDataError: Another suffix, not there, not of its format, with code or tags, or with a matrix that has not
            as many numbers as rows and columns.

    Example:
        >>> read_storage("intrinsics.yml")["M1"].shape
        (3, 3)
    """
    path = Path(path)
    if path.suffix == ".json":
        data = read_json(path, LiftingDataError)
    elif path.suffix == ".xml":
        data = _read_xml(path)
    elif path.suffix in SUFFIXES:
        with reading(path, FILE, LiftingDataError):
            text = path.read_text(encoding="utf-8")
        data = parse_yaml(_TAG.sub("", _FIRST_LINE.sub("\n", text)), str(path), LiftingDataError)
    else:
        raise LiftingDataError(f"{path}: a file of calibration ends in {', '.join(SUFFIXES)}")
    return _with_arrays(data, str(path))


def _with_arrays(data: Any, where: str, depth: int = 0) -> Any:
    """The same with arrays for OpenCV's matrices: of ``rows`` and ``cols``, or of ``sizes``, as OpenCV 5 has (3,)."""
    if depth > _DEEPEST:
        raise LiftingDataError(f"{where}: more than {_DEEPEST} objects inside each other")
    if isinstance(data, list):
        return [_with_arrays(each, f"{where}[{number}]", depth + 1) for number, each in enumerate(data)]
    if not isinstance(data, dict):
        return data
    if {"rows", "cols", "data"} <= set(data) or {"sizes", "data"} <= set(data):
        return _matrix(data, where)
    return {str(name): _with_arrays(each, f"{where}: {name}", depth + 1) for name, each in data.items()}


def _matrix(data: dict[str, Any], where: str) -> np.ndarray:
    try:
        sides = np.array(data.get("sizes", [data.get("rows"), data.get("cols")]), dtype=np.int64).reshape(-1)
        numbers = np.array(data["data"], dtype=np.float64).reshape(-1)
        if numbers.size != sides.prod() or len(sides) > 4:
            raise ValueError(f"{numbers.size} numbers for {' x '.join(map(str, sides))}")
        return numbers.reshape(sides)
    except (TypeError, ValueError, OverflowError) as error:
        raise LiftingDataError(f"{where}: a matrix with rows, cols (or sizes) and data is expected: {error}") from error


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses what can make a few lines of XML stand for billions."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("a DOCTYPE, which OpenCV does not write")


def _read_xml(path: Path) -> Any:
    with reading(path, _XML, LiftingDataError):
        root = ElementTree.fromstring(path.read_bytes(), ElementTree.XMLParser(target=_NoDoctype()))
    return _of_element(root, str(path))


def _of_element(element: ElementTree.Element, where: str, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise LiftingDataError(f"{where}: more than {_DEEPEST} elements inside each other")
    if len(element) and all(child.tag == "_" for child in element):
        return [_of_element(child, where, depth + 1) for child in element]
    if len(element):
        return {child.tag: _of_element(child, where, depth + 1) for child in element}
    text = (element.text or "").strip()
    words = re.findall(r'"([^"]*)"', text) or text.split()
    values = [_number(word) for word in words]
    if len(values) == 1:
        return values[0]
    return text if any(isinstance(value, str) for value in values) and '"' not in text else values


def _number(word: str) -> Any:
    try:
        value = float(word)
    except ValueError:
        return word
    return int(value) if value.is_integer() and re.fullmatch(r"[+-]?\d+", word) else value
