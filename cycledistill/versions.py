"""Whether packages are as new as ``pyproject.toml`` asks: pip sees to it, until someone changes one by hand.

The floors are read from the metadata of the installed cycledistill, so that they stand in one place. Where there is no
metadata, of cycledistill or of a package, nothing is asked: an import says by itself what is missing.
"""

from __future__ import annotations

import functools
import re
from importlib import metadata

_REQUIREMENT = re.compile(r"([\w.-]+)\s*(?:\[[^]]*\])?\s*\(?([^;)]*)\)?\s*(?:;\s*extra\s*==\s*['\"][^'\"]*['\"]\s*)?")


class VersionError(ImportError):
    """A package is older than cycledistill works with."""


def require(*packages: str) -> None:
    """Refuse to go on with packages that are older than what cycledistill asks for.

    Whoever imports a package that has a floor calls this first, or imports what does.

    Args:
        packages: By their names on PyPI. One that is not installed, or has no floor, is passed over.

    Raises:
        VersionError: One is older; the message names it, what is there, and what is needed. Where extras ask for
            different versions, the oldest of them counts.

    Example:
        >>> require("torch")
    """
    for package in packages:
        floor, found = _floors().get(_normal(package)), _installed(package)
        if floor is not None and found is not None and () < _number(found) < _number(floor):
            raise VersionError(
                f"cycledistill needs {package} {floor} or newer, and {found} is installed: "
                f"pip install --upgrade '{package}>={floor}'",
                name=package,
            )


def made_with(*packages: str) -> dict[str, str]:
    """The versions that a file is written with, for what the file says of itself; by default those that all have.

    Example:
        >>> sorted(made_with())
        ['cycledistill', 'torch']
    """
    return {name: _installed(name) or "unknown" for name in packages or ("cycledistill", "torch")}


@functools.cache
def _floors() -> dict[str, str]:
    """Package -> the oldest version that a requirement of cycledistill takes."""
    try:
        requirements = metadata.requires("cycledistill") or []
    except metadata.PackageNotFoundError:
        return {}
    floors: dict[str, str] = {}
    for requirement in requirements:
        parsed = _REQUIREMENT.fullmatch(requirement)  # None: it holds on some systems alone
        least = parsed and re.search(r">=\s*([^,\s]+)", parsed[2])
        if parsed and least:
            name = _normal(parsed[1])
            floors[name] = min(floors.get(name, least[1]), least[1], key=_number)
    return floors


@functools.cache
def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _number(version: str) -> tuple[int, ...]:
    """The release: (2, 11) of 2.11.0 and of 2.11.0a0+nv26.1, as a vendor calls what is to be 2.11; () if unknown."""
    release = re.match(r"\d+(?:\.\d+)*", version)
    parts = [int(part) for part in release[0].split(".")] if release else []
    while parts and not parts[-1]:
        parts.pop()
    return tuple(parts)
