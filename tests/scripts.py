"""Scripts that are not installed (examples, benchmarks): loaded as modules, run as programs; and how commands end."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType

from tests.spawn import alone

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


def run_program(path: str, *arguments: object) -> CompletedProcess[str]:
    """Run a script by its path from the root as ``python PATH`` does, in a process that has imported the libraries."""
    words = [str(each) for each in arguments]
    return CompletedProcess([path, *words], *alone(_as_program, runpy.run_path, str(ROOT / path), words))


def run_module(name: str, *arguments: object) -> CompletedProcess[str]:
    """The same for ``python -m NAME``."""
    words = [str(each) for each in arguments]
    return CompletedProcess(["-m", name, *words], *alone(_as_program, runpy.run_module, name, words))


def _as_program(run: Callable[..., object], name: str, arguments: list[str]) -> tuple[int, str, str]:
    sys.argv = [name, *arguments]
    sys.path.insert(0, str(Path(name).parent))
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
        code = exit_code(lambda _: run(name, run_name="__main__") is None, [])
    return code, out.getvalue(), errors.getvalue()


def exit_code(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """What a process that ran ``main`` would end with: argparse raises it, commands return it."""
    try:
        return main(arguments)
    except SystemExit as stopped:
        assert isinstance(stopped.code, int), stopped.code
        return stopped.code
