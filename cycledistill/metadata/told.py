"""What a file says of itself, in plain words."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cycledistill.metadata.read import FORMATS, MetadataError, read_words
from cycledistill.metadata.shape import ASSUMED, KEYS, RANDOM, WEIGHTS, missing, name_in
from cycledistill.plugin.beside import speaks_of
from cycledistill.plugin.plain import SAVED

_LONGEST = 160
_MOST = 40
"""Words of its own that a report shows; the rest it counts."""
_BUILT = {"built_from", "config", "config_class", "format"}
_TOLD = {*KEYS, *_BUILT, WEIGHTS, ASSUMED, "joints", "convention", "frames"}


@dataclass(frozen=True)
class FileReport:
    """What a file says of itself. Printed, it is a few lines for people.

    Attributes:
        path: The file.
        size: Its bytes.
        words: What it says, by name, as it stands there.
        missing: What it should say and does not, of `KEYS`.
    """

    path: Path
    size: int
    words: Mapping[str, str]
    missing: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: what stands in the file as JSON is read."""
        words = {name: _read(text) for name, text in self.words.items()}
        return {"file": str(self.path), "bytes": self.size, "says": words, "missing": list(self.missing)}

    def __str__(self) -> str:
        """A few lines for people."""
        said = {name: _read(text) for name, text in self.words.items()}
        rows = {
            "model": _model(self.words),
            "exit": _exit(self.words.get("exit"), self.path.suffix),
            "weights": _weights(self.words.get(WEIGHTS)),
            "training": _training(said, self.words),
            "input": _input(said, self.words),
            "assumed": _assumed(said.get(ASSUMED)),
            "classes": _names(said.get("classes")),
            "joints": _joints(said),
            "made with": _pairs(said.get("versions")),
            "built from": "this file alone: it says every size" if "built_from" in said else "",
        }
        more = [name for name in self.words if name not in _TOLD]
        lines = [f"{self.path}: {FORMATS[self.path.suffix]}, {self.size / 1e6:.2f} MB"]
        lines += [f"  {name:<10} {row}" for name, row in rows.items() if row]
        lines += [f"  {_plain(name[:40]):<10} {_plain(self.words[name])}" for name in more[:_MOST]]
        lines += [f"  ... and {len(more) - _MOST} more"] if len(more) > _MOST else []
        if self.missing:
            lines.append(f"  not said   {'; '.join(f'{name} ({KEYS[name]})' for name in self.missing)}")
        return "\n".join(lines)


def report_file(path: str | os.PathLike[str]) -> FileReport:
    """What an ``.onnx``, ``.pt2`` or ``.safetensors`` file says of itself; its weights are not read.

    Where it says nothing, as weights that Hugging Face's ``save_pretrained`` wrote, what `save_wrapping` put beside it,
    if that is of these weights: to know it, they are read.

    Raises:
        MetadataError: No such file, one of another kind, a torn one, or one that says nothing.

    Example:
        >>> report_file("weights.safetensors").words["cycles"]
        '2'
    """
    file, words = Path(path), read_words(path)
    words = words if words.keys() & KEYS.keys() else words | _said_beside(file)
    if not words.keys() & _TOLD - {"format"}:
        raise MetadataError(
            f"{file} does not say of which model it is. Missing are {', '.join(KEYS)} (or joints). Files that "
            "cycledistill exports and trains say them: export the model anew, where metadata={...} adds what the model "
            "does not know, or ask who made the file"
        )
    return FileReport(file, file.stat().st_size, words, tuple(missing(words)))


def _said_beside(file: Path) -> dict[str, str]:
    """What the file that `save_wrapping` writes says of weights whose own file another library wrote."""
    try:
        found = json.loads((file.parent / SAVED).read_bytes())
        if not speaks_of(found, file):
            return {}
        cyclic = found.get("cyclic", {"cycles": 1, "distill": None})
        told = {"cycles": cyclic["cycles"], "distill": cyclic["distill"], "versions": found["versions"]}
        return {
            "model": str(found["model"]),
            "class": str(found["model"]),
            **{name: json.dumps(value) for name, value in told.items()},
        }
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):  # torn, or another program's
        return {}


def _read(text: str) -> Any:
    """JSON where it is; numbers that JSON does not know, or brackets too deep, stay text."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value


def _plain(value: Any) -> str:
    """In one line, without what would steer a terminal, and not too long."""
    text = value if isinstance(value, str) else json.dumps(value)
    shown = "".join(each if each.isprintable() else "?" for each in text[: _LONGEST + 1])
    return shown if len(text) <= _LONGEST else f"{shown[:_LONGEST]}... ({len(text)} characters)"


def _model(words: Mapping[str, str]) -> str:
    name, own = name_in(words), words.get("class")
    return _plain(f"{name} ({own})" if name and own else name or own or words.get("model") or "")


def _exit(exit: str | None, suffix: str) -> str:
    if exit is None:
        return ""
    if not _count(_read(exit)):
        return _unreadable(exit)
    every = suffix == ".safetensors"
    return f"{exit}{'; the weights serve every exit' if every else ': what it gives is the output of this cycle'}"


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _numbers(value: Any) -> bool:
    held = value if isinstance(value, list) else [value]
    return bool(held) and all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in held)


def _unreadable(text: str) -> str:
    """What cannot be meant is shown, and not told as a fact."""
    return f"unreadable ('{_plain(text)}')"


def _weights(told: str | None) -> str:
    return "random, as the model is made: nothing was trained" if told == RANDOM else _plain(told or "")


def _training(said: Mapping[str, Any], words: Mapping[str, str]) -> str:
    if "cycles" not in said:
        return ""
    cycles, scheme = said["cycles"], said.get("distill")
    if not _count(cycles):
        number = f"cycles {_unreadable(words['cycles'])}"
    else:
        number = "1 cycle, as a plain model" if cycles == 1 else f"{_plain(cycles)} cycles"
    if scheme is None:
        return f"{number}, no scheme"
    named = isinstance(scheme, str) and re.fullmatch(r"[\w-]+", scheme)
    return f"{number}, scheme {_pairs(scheme) if named or isinstance(scheme, dict) else _unreadable(words['distill'])}"


def _input(said: Mapping[str, Any], words: Mapping[str, str]) -> str:
    parts = []
    if "input_size" in said:
        size = said["input_size"]
        if isinstance(size, list) and len(size) == 2 and all(map(_count, size)):
            parts.append(f"images of {_plain(size[0])} x {_plain(size[1])} pixels (height x width)")
        else:
            parts.append(f"input_size {_unreadable(words['input_size'])}")
    if "frames" in said:
        frames = said["frames"]
        parts.append(
            f"clips of {_plain(frames)} frames" if _count(frames) else f"frames {_unreadable(words['frames'])}"
        )
    pixels = {name: _numbers(said[name]) for name in ("mean", "std") if name in said}
    if pixels:
        told = [f"{name} {_plain(said[name]) if good else _unreadable(words[name])}" for name, good in pixels.items()]
        parts.append(", ".join(["(pixel / 255 - mean) / std"] * all(pixels.values()) + told))
    if "convention" in said:
        parts.append(f"numbers by {_pairs(said['convention'])}")
    return "; ".join(parts)


def _assumed(names: Any) -> str:
    if names is None:
        return ""
    told = ", ".join(map(str, names)) if isinstance(names, list) else names
    return f"{_plain(told)}: timm's default for this name, not told of these weights"


def _joints(said: Mapping[str, Any]) -> str:
    joints = said.get("joints")
    if not isinstance(joints, dict):
        return _names(joints)
    names = joints.get("names", joints.get("joints"))
    return f"{_plain(joints.get('name', ''))}: {_names(names)}"


def _names(names: Any) -> str:
    if names is None:
        return ""
    if not isinstance(names, list):
        return _plain(names)
    return _plain(f"{len(names)}: " + ", ".join(map(str, names)))


def _pairs(value: Any) -> str:
    if not isinstance(value, dict):
        return "" if value is None else _plain(value)
    return _plain(
        ", ".join(f"{name} {each if isinstance(each, str) else json.dumps(each)}" for name, each in value.items())
    )
