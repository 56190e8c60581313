"""Import mmpose with its stand-ins, register what this package adds to it, and find the packaged configs."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path

from .installed import require_mmpose
from .shims import import_shims

_CONFIGS = Path(__file__).with_name("configs")

# Everything of mmpose that its registries or `mmpose.apis` import later, when the stand-ins are gone.
_MMPOSE = ("datasets", "engine", "evaluation", "models", "visualization", "codecs", "apis")
_OURS = ("backbones", "head", "hooks")


def load_mmpose() -> None:
    """Import mmpose and register our head, backbones and hooks with it; calling it again does nothing.

    To be called before anything else imports mmpose. Afterwards mmpose's own interfaces work as usual.

    Raises:
        ImportError: Something is missing or of another version; the message says what, and how to install it.

    Example:
        >>> load_mmpose()
        >>> from mmpose.apis import init_model
        >>> model = init_model(str(config_path("sdpose_t")), device="cpu")
    """
    require_mmpose()
    with import_shims():
        for name in _MMPOSE:
            importlib.import_module(f"mmpose.{name}")
    for name in _OURS:
        importlib.import_module(f"{__package__}.{name}")


def list_configs() -> list[str]:
    """Names of the packaged configs.

    Example:
        >>> list_configs()
        ['sdpose_b', 'sdpose_s_v1', 'sdpose_s_v2', 'sdpose_t']
    """
    return sorted(path.stem for path in _CONFIGS.glob("sdpose_*.py"))


def config_path(name: str | Path) -> Path:
    """The file of a packaged config, or ``name`` itself if it is a file.

    Raises:
        FileNotFoundError: Neither; the nearest name is given.
    """
    path = Path(name)
    if path.is_file():
        return path
    packaged = _CONFIGS / f"{name}.py"
    if str(name) in list_configs():
        return packaged
    near = difflib.get_close_matches(str(name), list_configs(), n=1, cutoff=0.6)
    hint = f"the nearest of those is {near[0]!r}" if near else f"those are {', '.join(list_configs())}"
    raise FileNotFoundError(f"{name}: no such file, nor a packaged config; {hint}")
