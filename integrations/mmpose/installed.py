"""Whether what mmpose needs is installed, in versions that work together, and how to install it.

What is needed stands once: in ``requirements.txt``, ``SECOND_COMMAND`` and ``_YOURS``. This file imports nothing but
Python's own, as the check must run where not even PyTorch is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SECOND_COMMAND = 'pip install --no-deps "mmpose>=1.3.2,<2" "mmdet>=3.3.0,<4"'
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")

_YOURS = ("torch", "torchvision")
"""What the commands do not install: which build it is depends on the machine."""

_INSTEAD = {
    "mmcv-lite": ("mmcv",),
    "opencv-python": ("opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless", "opencv"),
}
"""Packages that serve as well as the one that is asked for."""

_NEWEST_PYTHON = (3, 13)
"""mmengine 0.10.7 calls ``pkgutil.find_loader``, which Python 3.14 no longer has."""


def find_problems() -> list[str]:
    """What keeps mmpose from working here, one sentence each; empty if nothing does. Imports none of it.

    Example:
        >>> find_problems()   # in an environment without mmpose
        ['mmpose is not installed: mmpose>=1.3.2,<2 is expected', ...]
    """
    problems = [found for requirement in _requirements() if (found := _problem(requirement))]
    if sys.version_info[:2] > _NEWEST_PYTHON:
        newest = ".".join(map(str, _NEWEST_PYTHON))
        problems.append(f"Python {sys.version_info[0]}.{sys.version_info[1]}: mmengine 0.10 runs up to {newest}")
    return problems


def explain(problems: Sequence[str]) -> str:
    """The problems, and the commands that install what works together."""
    lines = ["the mmpose adapter cannot run here:", *(f"  - {problem}" for problem in problems)]
    advice = f"In an environment of its own that has {' and '.join(_YOURS)}, which go together (https://pytorch.org):"
    return "\n".join([*lines, advice, f'  pip install -r "{_REQUIREMENTS}"', f"  {SECOND_COMMAND}"])


def require_mmpose() -> None:
    """Refuse to go on where mmpose cannot work.

    Raises:
        ImportError: Something is missing or of another version; the message says what, and how to install it.
    """
    problems = find_problems()
    if problems:
        raise ImportError(explain(problems), name="mmpose")


def _requirements() -> Iterator[str]:
    """What must be installed, each as pip has it, such as ``mmdet>=3.3.0,<4``."""
    yield from re.findall(r'"(.+?)"', SECOND_COMMAND)
    yield from _YOURS
    for line in _REQUIREMENTS.read_text(encoding="utf-8").splitlines():
        if requirement := line.partition("#")[0].strip():
            yield requirement


def _problem(requirement: str) -> str | None:
    name, bounds = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()  # type: ignore[union-attr]
    for each in (name, *_INSTEAD.get(name, ())):
        try:
            found = version(each)
        except PackageNotFoundError:
            continue
        return None if _within(found, bounds) else f"{each} {found} is installed: {requirement} is expected"
    return f"{name} is not installed" + (f": {requirement} is expected" if bounds else "")


def _within(found: str, bounds: str) -> bool:
    """Whether a version is within bounds such as ``>=3.3.0,<4``; no others than these two kinds are in use."""
    for least, limit in re.findall(r"(>=|<)([\d.]+)", bounds):
        if (_number(found) >= _number(limit)) != (least == ">="):
            return False
    return True


def _number(text: str) -> tuple[int, ...]:
    parts = [int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3]]
    return (*parts, *[0] * (3 - len(parts)))
