"""The words of an ONNX file, without the package onnx and without its graph: of 2 GB a few hundred bytes are read.

A file is one message of protobuf, ``ModelProto``: fields, each a key (number and wire type) and a value.
Source: protobuf.dev, "Encoding"; ``onnx.proto``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

_GRAPH, _WORDS = 7, 14
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


def onnx_words(file: BinaryIO) -> dict[str, str]:
    """What ``metadata_props`` hold.

    Args:
        file: An ONNX file, open at its beginning.

    Raises:
        ValueError: It is none, or ends too early.
    """
    end = os.fstat(file.fileno()).st_size
    words, has_graph = {}, False
    for number, length in _fields(file, end):
        has_graph |= number == _GRAPH
        if number == _WORDS:
            entry = {each: file.read(size).decode() for each, size in _fields(file, file.tell() + length)}
            words[entry.get(1, "")] = entry.get(2, "")
    if not has_graph:
        raise ValueError("it has no graph")
    return words


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Number and length of each field up to ``end``, the file at its value; what is not read of it is skipped."""
    while file.tell() < end:
        key = _varint(file)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            _varint(file)
            continue
        if kind not in (_EIGHT, _BYTES, _FOUR) or not number:
            raise ValueError(f"no field begins at byte {file.tell()}")
        length = {_EIGHT: 8, _FOUR: 4}.get(kind) or _varint(file)
        after = file.tell() + length
        if after > end:
            raise ValueError(f"it ends {after - end} bytes too early")
        if kind == _BYTES:
            yield number, length
        file.seek(after)


def _varint(file: BinaryIO) -> int:
    value = 0
    for place in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it ends inside a number")
        value |= (byte[0] & 0x7F) << place
        if byte[0] < 0x80:
            return value
    raise ValueError("a number has no end")
