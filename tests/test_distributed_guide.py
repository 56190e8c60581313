"""The recipes of the guide to several processes, run from the page.

Accelerate's is started by the page's own command. torchrun is started by the tests of stopped commands: its recipe is
run here in two processes that have what it gives them.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.run as torchrun
from torch import Tensor, nn

from cycledistill import CycleLoss, wrap_cyclic
from tests.spawn import run

timm = pytest.importorskip("timm")
pytest.importorskip("accelerate")
safetensors = pytest.importorskip("safetensors.torch")

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
SCRIPTS = {name: code for code, name in re.findall(r"^```py\n(# (\w+\.py)\n.*?)^```$", PAGE, re.M | re.S)}
COMMANDS = re.findall(r"^```sh\n(.*?)\n```$", PAGE, re.M | re.S)
TOLERANCE = 1e-6  # the page states it


def plain_vit() -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=10)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder in which both scripts ran, and what each printed."""
    folder = tmp_path_factory.mktemp("recipes")
    for name, code in SCRIPTS.items():
        (folder / name).write_text(code)
    lines = run(_as_torchrun_starts_it, str(folder), _free_port())
    return folder, {"train_torchrun.py": "".join(lines), "train_accelerate.py": _launch(COMMANDS[1], folder)}


def _as_torchrun_starts_it(rank: int, world: int, folder: str, port: int) -> str:
    dist.destroy_process_group()  # the recipe makes its own
    os.environ["MASTER_PORT"] = str(port)
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path("train_torchrun.py", run_name="__main__")
    return printed.getvalue()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _launch(command: str, folder: Path) -> str:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": programs, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment = {key: value for key, value in environment.items() if not key.startswith("ACCELERATE_")}
    done = subprocess.run(
        shlex.split(command), cwd=folder, env=environment, text=True, capture_output=True, timeout=300
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def weights(launched: tuple[Path, dict[str, str]], launcher: str) -> dict[str, Tensor]:
    return safetensors.load_file(launched[0] / f"{launcher}.safetensors")


def largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.fixture(scope="module")
def alone() -> dict[str, Tensor]:
    """The weights after the same steps in a loop that knows nothing of processes."""
    torch.manual_seed(0)
    images, labels = torch.randn(64, 3, 32, 32), torch.randint(10, (64,))
    model = wrap_cyclic(plain_vit(), cycles=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    criterion = CycleLoss(nn.CrossEntropyLoss())
    for epoch in range(2):
        order = torch.randperm(64, generator=torch.Generator().manual_seed(epoch))
        for batch in order.split(16):
            optimizer.zero_grad()
            criterion(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_the_page_has_two_recipes_and_how_to_start_each() -> None:
    assert list(SCRIPTS) == ["train_torchrun.py", "train_accelerate.py"]
    assert [(shlex.split(command)[0], shlex.split(command)[-1]) for command in COMMANDS] == [
        ("torchrun", "train_torchrun.py"),
        ("accelerate", "train_accelerate.py"),
    ]
    asked = torchrun.parse_args(shlex.split(COMMANDS[0])[1:])  # that script is run otherwise here
    assert (asked.standalone, asked.nproc_per_node, asked.nnodes) == (True, "2", "1:1")


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_both_processes_end_in_equal_weights(launcher: str, launched: tuple[Path, dict[str, str]]) -> None:
    # Both write to one pipe, unbuffered: a line of one may come between the other's and its end of line.
    found = dict(re.findall(r"rank (\d) of 2: weights add up to (\d+\.\d{12})", launched[1][f"train_{launcher}.py"]))
    assert set(found) == {"0", "1"}, launched[1]
    assert found["0"] == found["1"]


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_weights_are_those_of_one_plain_process_on_the_joined_batches(
    launcher: str, launched: tuple[Path, dict[str, str]], alone: dict[str, Tensor]
) -> None:
    saved = weights(launched, launcher)
    torch.manual_seed(0)
    torch.randn(64, 3, 32, 32), torch.randint(10, (64,))
    model = plain_vit()
    assert largest_difference(saved, model.state_dict()) > 0.01, "nothing was trained"
    model.load_state_dict(saved, strict=True)
    assert largest_difference(saved, alone) <= TOLERANCE


def test_both_launchers_end_in_the_same_weights(launched: tuple[Path, dict[str, str]]) -> None:
    difference = largest_difference(weights(launched, "torchrun"), weights(launched, "accelerate"))
    assert difference <= TOLERANCE
