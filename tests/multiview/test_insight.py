"""What the insight report says of a run that it does not show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("timm")

from cycledistill.commands.frame import main


def test_a_run_of_several_views_is_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.json").write_text(json.dumps({"command": "multiview", "recipe": {}}))
    assert main(["insight", str(run), "--output", str(tmp_path / "a.html")]) == 2
    said = capsys.readouterr().err
    assert "train multiview`: its model sees the pictures of several cameras at once, and insight shows models" in said
    assert not (tmp_path / "a.html").exists()
