"""Names that a package hands on and loads when they are asked for: a command's help must not wait for torch."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from typing import Any


def hand_on(
    package: str, names: Mapping[str, str], requires: str | None = None
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """What a package needs to hand on names of its modules without importing them.

    The package's modules count as names too, as they do after ``import``.

    Args:
        package: Its ``__name__``.
        names: Public name -> the module that has it, absolute or from ``package`` (``".recipe"``).
        requires: What to install where a module's imports are not there, such as ``"cycledistill[coco]"``.

    Returns:
        The package's ``__all__``, ``__getattr__`` and ``__dir__``.

    Example:
        >>> if not TYPE_CHECKING:  # type checkers read imports that stand under `if TYPE_CHECKING`
        ...     __all__, __getattr__, __dir__ = hand_on(__name__, {"Recipe": ".recipe"})
    """

    def getattr_(name: str) -> Any:
        if name in names:
            try:
                value = getattr(importlib.import_module(names[name], package), name)
            except ModuleNotFoundError as error:
                if requires is None:
                    raise
                raise ModuleNotFoundError(missing(error, package, requires), name=error.name) from error
        elif not name.startswith("_") and importlib.util.find_spec(f"{package}.{name}") is not None:
            value = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)  # the next one who asks does not come here
        return value

    def dir_() -> list[str]:
        return sorted({*vars(sys.modules[package]), *names})

    return sorted(names), getattr_, dir_


def missing(error: ModuleNotFoundError, who: str, requires: str) -> str:
    """One line that says which package ``who`` lacks, and what to install; ``error`` is what an import raised.

    Raises:
        ModuleNotFoundError: A module of cycledistill itself is not there, which no installation mends.

    Example:
        >>> missing(ModuleNotFoundError("No module named 'timm'", name="timm"), "train coco", "cycledistill[coco]")
        "train coco needs timm, which is not installed: pip install 'cycledistill[coco]'"
    """
    if not error.name or error.name.partition(".")[0] == "cycledistill":
        raise error
    return f"{who} needs {error.name.partition('.')[0]}, which is not installed: pip install '{requires}'"
