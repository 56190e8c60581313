"""The guide "Your own joints and pictures", step by step: its script, its commands, and what they leave behind."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from cycledistill.commands import frame
from cycledistill.integrations.coco import joints_of
from cycledistill.integrations.coco.trained import load_trained
from tests.docs.pages import ROOT, fences

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

PAGE = ROOT / "docs" / "own_joints.md"


def follow(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """All that the page says to do, in its order, but for the length of the training; what each command prints."""
    printed: dict[str, Any] = {}
    namespace = types.ModuleType("page")
    monkeypatch.setitem(__import__("sys").modules, "page", namespace)
    for fence in fences(PAGE):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            if fence.language == "python":
                code = fence.code.replace("{epochs: 200, milestones: [150]", "{epochs: 5, milestones: [4]")
                code = "\n" * fence.line + code.replace("every: 200", "every: 5")
                exec(compile(code, str(PAGE), "exec"), namespace.__dict__)
                assert fence.printed is None or out.getvalue().rstrip() == fence.printed.rstrip(), fence.line
            elif fence.language == "sh":
                words = shlex.split(fence.code.replace("\\\n", " "))
                assert words[0] == "cycledistill" and frame.main(words[1:]) == 0, fence.code
                printed[" ".join(words[1:])] = out.getvalue()
    return printed


@pytest.mark.slow
def test_every_step_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    printed = follow(monkeypatch)

    # trained: the joints of the file, of all animals but the one that nobody labelled
    trained = json.loads(printed["train coco --config crabs.yaml"])
    assert trained["step"] == 30 and trained["exits"]["1"].keys() >= {"AP", "oks", "pck"}
    assert "1 of 48 annotations left out: no labelled joint" in caplog.text
    assert "no sigmas were given" in caplog.text
    model = load_trained("runs/crabs")
    assert joints_of(model).flip_pairs == ((2, 3), (4, 5)) and joints_of(model).limbs[0] == (0, 1)

    # measured and predicted: the same poses, under the ids of the file
    measured = json.loads(next(Path("measured").rglob("*.json")).read_text())
    assert {each["image_id"] for each in measured} == set(range(6))
    found = json.loads(Path("found/results.json").read_text())
    assert [(each["image_id"], each["category_id"]) for each in found] == [(n, 1) for n in range(6) for _ in range(2)]
    assert len(list(Path("found/drawn").iterdir())) == len(list(Path("found/poses").iterdir())) == 6
    pose = json.loads(next(Path("found/poses").iterdir()).read_text())
    assert "claw_l" in json.dumps(pose)

    # other joints: six tokens are kept
    assert "tokens kept: 6 (head, tail, claw_l, claw_r, leg_l, leg_r)" in caplog.text
    assert "tokens new: 1 (middle)" in caplog.text
    assert len(joints_of(load_trained("runs/crabs7"))) == 7

    # exported: the file says its joints
    import onnxruntime

    metadata = onnxruntime.InferenceSession("crabs.onnx").get_modelmeta().custom_metadata_map
    assert "claw_l" in json.dumps(metadata)
