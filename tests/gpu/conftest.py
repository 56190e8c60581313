"""Where the tests of this folder run: on a CUDA device, else they are skipped; by ``--gpu-device cpu`` on the CPU.

On the CPU the same functions run, so that a machine without a GPU shows that the tests themselves work: compiled code
by a backend that needs no compiler of C++, several processes over gloo, and a captured CUDA graph as a plain call.
"""

from __future__ import annotations

import os

# Read by NVIDIA's libraries when they are first used; processes that tests start inherit them.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # float32 is float32: convolutions would round to TF32
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic algorithms ask for
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "4")  # a pool a test process; by default one a core each

from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A driver's and a compiler's warnings differ with every release, and are no error of this library's."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where models and batches go."""
    if request.config.getoption("--gpu-device") == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device here; --gpu-device cpu runs these tests on the CPU")
    return torch.device("cuda")
