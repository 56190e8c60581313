"""What every test starts from: one thread, one seed, no network, no display, a fresh compiler. How many processes."""

from __future__ import annotations

import os

# Read when the libraries are first imported, so set before any of them is. Inherited by the processes tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: one thread is faster, and results do not depend on cores
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import functools
import gc
import logging
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands.announcing import announce as announce

MOST_WORKERS = 4  # each imports everything first
TESTS = Path(__file__).parent
GPU_TESTS = (TESTS / "gpu", TESTS / "recipes" / "run" / "graph")
"""The folders that hold tests marked ``gpu``."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gpu-device",
        choices=("auto", "cpu"),
        default="auto",
        help="where tests/gpu runs: on a CUDA device where there is one, or on the CPU, to see that the tests work",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """``-m gpu`` reads the folders of its tests alone: importing the others would take a large part of its minutes."""
    if config.option.markexpr != "gpu" or not collection_path.is_relative_to(TESTS):
        return None
    inside = any(collection_path.is_relative_to(folder) for folder in GPU_TESTS)
    above = collection_path.is_dir() and any(folder.is_relative_to(collection_path) for folder in GPU_TESTS)
    return None if inside or above else True


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run tests of whole folders in a process a core, where pytest-xdist is installed and nothing else was asked for.

    Files that are named run in one process: starting others takes longer than most files.
    """
    started_by_us = hasattr(config, "workerinput")
    named = all(argument.partition("::")[0].endswith(".py") for argument in config.args)
    skipped = config.option.markexpr == "gpu" and config.option.gpu_device == "auto" and not torch.cuda.is_available()
    if (
        started_by_us
        or named
        or skipped
        or config.getoption("numprocesses", 0) is not None
        or config.getoption("usepdb")
    ):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    config.option.numprocesses = min(cores, MOST_WORKERS) if cores > 1 else 0
    if config.option.dist == "no":
        config.option.dist = "worksteal"  # files stay whole but for the few that a worker without work takes over


def pytest_collection_finish() -> None:
    """Collect garbage among what tests make alone: the half a million objects of the imported packages stay."""
    _read_operations_once()
    gc.collect()
    gc.freeze()


def _read_operations_once() -> None:
    """Every export to ONNX parses the source of some 500 operations again, for their signatures: a second a file."""
    kind = getattr(sys.modules.get("onnxscript.values"), "TracedOnnxFunction", None)
    read = vars(kind).get("function_ir") if kind else None
    if isinstance(read, property) and read.fget is not None:
        kept = functools.cached_property(read.fget)
        kept.__set_name__(kind, "function_ir")
        kind.function_ir = kept


CUDA_QUERIES = ("is_current_stream_capturing", "current_stream", "current_device", "memory_allocated", "synchronize")
"""What code may ask CUDA eagerly, and what no compiler can follow."""


@pytest.fixture
def cuda_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a GPU is in use, without one: CUDA counts as initialised, and nothing compiled may query it."""

    def query(name: str) -> Callable[..., Any]:
        def answer(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling():
                raise AssertionError(f"torch.cuda.{name} was called while compiling")
            return False if name == "is_current_stream_capturing" else real[name](*args, **kwargs)

        return answer

    real = {name: getattr(torch.cuda, name) for name in CUDA_QUERIES}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    for name in CUDA_QUERIES:
        monkeypatch.setattr(torch.cuda, name, query(name))


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    """Make a test's result independent of the tests that ran before it."""
    torch.set_num_threads(1)
    root = logging.getLogger()
    if root.level != logging.INFO:  # DEBUG is thousands of the compiler's lines; pytest's own setting asks every logger
        root.setLevel(logging.INFO)
    random.seed(0)
    torch.manual_seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    yield
    if "torch._dynamo" in sys.modules:  # compiled code and its counters are kept for the whole process
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
    state = sys.modules.get("accelerate.state")  # one a process: a Trainer's would decide the precision of what follows
    if state is not None and state.AcceleratorState._shared_state:
        state.AcceleratorState._reset_state(reset_partial_state=True)
