"""Scripts that are not installed (examples, benchmarks), loaded as modules, and how commands end."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def load_script(path: str) -> ModuleType:
    """Import a script by its path from the root, afresh, and able to import those beside it, as when it is run."""
    file = ROOT / path
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    spec = importlib.util.spec_from_file_location(f"script_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def exit_code(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """What a process that ran ``main`` would end with: argparse raises it, commands return it."""
    try:
        return main(arguments)
    except SystemExit as stopped:
        assert isinstance(stopped.code, int), stopped.code
        return stopped.code
