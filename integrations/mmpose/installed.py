"""Whether what mmpose needs is installed, in versions that work together, and how to install it."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

Version = tuple[int, ...]

SECOND_COMMAND = "pip install --no-deps mmpose==1.3.2 mmdet==3.3.0"
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")

# Names of which one must be installed, and the releases that serve: from the first, up to and without the second.
_VERSIONS: tuple[tuple[tuple[str, ...], Version, Version], ...] = (
    (("mmpose",), (1, 3), (2,)),
    (("mmengine",), (0, 10, 7), (1,)),
    (("mmcv-lite", "mmcv"), (2, 0), (2, 2)),
    (("mmdet",), (3, 3), (4,)),
)
_MODULES = (
    "pkg_resources", "pycocotools", "scipy", "json_tricks", "munkres", "matplotlib", "cv2", "six", "shapely",
    "terminaltables", "tqdm", "safetensors", "huggingface_hub",
)  # fmt: skip
_COMES_FROM = {"pkg_resources": '"setuptools<81"', "cv2": "opencv-python"}
_NEWEST_PYTHON = (3, 13)
"""mmengine 0.10.7 calls ``pkgutil.find_loader``, which Python 3.14 no longer has."""


def find_problems() -> list[str]:
    """What keeps mmpose from working here, one sentence each; empty if nothing does. Imports none of it.

    Example:
        >>> find_problems()   # in an environment without mmpose
        ['mmpose is not installed: 1.3 or later, before 2, is expected', ...]
    """
    problems = [found for names, least, below in _VERSIONS if (found := _wrong_version(names, least, below))]
    for module in _MODULES:
        if importlib.util.find_spec(module) is None:
            problems.append(f"{module} is not installed: it comes with {_COMES_FROM.get(module, module)}")
    if sys.version_info[:2] > _NEWEST_PYTHON:
        newest = ".".join(map(str, _NEWEST_PYTHON))
        problems.append(f"Python {sys.version_info[0]}.{sys.version_info[1]}: mmengine 0.10 runs up to {newest}")
    return problems


def explain(problems: Sequence[str]) -> str:
    """The problems, and the two commands that install what works together."""
    lines = ["the mmpose adapter cannot run here:", *(f"  - {problem}" for problem in problems)]
    return "\n".join([*lines, "In an environment of its own, these two commands install what it needs:", *commands()])


def commands() -> list[str]:
    """The two commands that install what the adapter needs."""
    return [f'  pip install -r "{_REQUIREMENTS}"', f"  {SECOND_COMMAND}"]


def require_mmpose() -> None:
    """Refuse to go on where mmpose cannot work.

    Raises:
        ImportError: Something is missing or of another version; the message says what, and how to install it.
    """
    problems = find_problems()
    if problems:
        raise ImportError(explain(problems), name="mmpose")


def _wrong_version(names: tuple[str, ...], least: Version, below: Version) -> str | None:
    expected = f"{_dotted(least)} or later, before {_dotted(below)}, is expected"
    for name in names:
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        number = tuple(int(part) for part in re.findall(r"\d+", found.split("+")[0])[:3])
        return None if least <= number < below else f"{name} {found} is installed: {expected}"
    return f"{names[0]} is not installed: {expected}"


def _dotted(number: Version) -> str:
    return ".".join(map(str, number))
