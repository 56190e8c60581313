"""Commands that are stopped say how to go on, and what they say works; under torchrun too."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

pytest.importorskip("accelerate")
pytest.importorskip("timm")

from cycledistill.commands import frame
from cycledistill.integrations.human36m.train import main
from cycledistill.integrations.human36m.training.session import Session
from cycledistill.recipes.run.guard.lock import run_lock
from cycledistill.recipes.run.step import Inputs

RECIPE = {
    "model": {"name": "frame_lifter", "options": {"dim": 8, "depth": 2, "heads": 2}},
    "cyclic": {"cycles": 2},
    "data": {"source": "generated", "sequences": 2, "length": 18, "views": 2, "frames": 9, "batch_size": 2},
    "evaluate": {"every": 1000, "exits": [1]},
    "run": {"device": "cpu", "log_every": 1, "progress": False},
}
ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(RECIPE))  # JSON is YAML
    return ["--config", str(file), "--output", str(tmp_path / "a run"), "--epochs", "1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "program"),
    [
        (lambda words: frame.main(["train", "human36m", *words]), "cycledistill train human36m"),
        (main, "python -m cycledistill.integrations.human36m.train"),
    ],
    ids=["cycledistill", "python -m"],
)
def test_the_command_that_is_printed_goes_on(
    start: Any, program: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terms = Session.terms

    def asked(self: Session, inputs: Inputs, logs: bool) -> dict[str, Tensor]:
        if self.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return terms(self, inputs, logs)

    with monkeypatch.context() as patched:
        patched.setattr(Session, "terms", asked)
        assert start(arguments) == 143
    told, how = capsys.readouterr().err.splitlines()[-2:]
    output = arguments[3]
    assert told == (f"stopped by SIGTERM; the last checkpoint is {output}/checkpoints/step-00000002. Go on from it by:")
    assert how == f"{program} --resume {shlex.quote(output)}"
    assert start(shlex.split(how)[len(program.split()) :]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["finished"], summary["step"]) == (True, 8)
    with run_lock(Path(output)):  # as beside a training
        assert start(["--evaluate", output]) == 0
        assert start(["--resume", output]) == 2
    assert "is in use by the run of process" in capsys.readouterr().err


@pytest.mark.slow
def test_under_torchrun_all_processes_stop_and_the_first_saves(arguments: list[str], tmp_path: Path) -> None:
    """torchrun sends SIGTERM to its processes and to their loaders' workers, which have to outlast it."""
    module = ["-m", "cycledistill.integrations.human36m.train", *arguments[:-1], "100000", "--workers", "1"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    log, output = tmp_path / "errors", Path(arguments[3])
    with log.open("w") as errors:
        process = subprocess.Popen([*launcher, *module], env=env, stderr=errors, stdout=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 240
            while process.poll() is None and not (output / "train.csv").exists() and time.monotonic() < end:
                time.sleep(0.05)
            process.terminate()
            process.wait(120)
        finally:
            process.kill()
    text = log.read_text()
    assert text.count("stopped by SIGTERM; the last checkpoint is ") == 1, text[-3000:]
    (checkpoint,) = (output / "checkpoints").iterdir()
    assert f"the last checkpoint is {checkpoint}. Go on from it by:" in text
    how = "torchrun --nproc-per-node 2 -m cycledistill.integrations.human36m.train --resume "
    assert re.search(rf"^{how}{re.escape(shlex.quote(str(output)))}$", text, re.M)
    assert not (output / "run.lock").exists()
    assert "DataLoader worker" not in text and "RuntimeError" not in text
