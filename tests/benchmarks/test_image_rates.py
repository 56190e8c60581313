"""The benchmark of image rates measures every part, and counts cores from the records."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("timm")
pytest.importorskip("torchcodec")

from tests.scripts import load_script


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load_script("benchmarks/image_rates.py")
    monkeypatch.setattr(module, "PICTURE", (60, 45))
    monkeypatch.setattr(module, "BATCH", 4)
    return module


def test_a_record_holds_both_ways_part_by_part(
    rates: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rates.json"
    monkeypatch.setattr(sys, "argv", ["image_rates", "--pictures", "8", "--repeats", "1", "--out", str(out)])
    rates.main()
    record = json.loads(out.read_text())
    found = {row["what"] for row in record["rows"]}
    shared = {f"{decoder}, {part}" for decoder in rates.DECODERS for part in ("whole", "decode", "crop", "batch")}
    assert shared | {"read", "pillow, numbers, erasing", "torchcodec, bytes"} <= found
    speed = {row["what"]: row["images/s"] for row in record["rows"]}
    step = json.loads((rates.RESULTS / "pruning-nvidia-h100-80gb-hbm3.json").read_text())["rows"]
    seconds = [row["best seconds, plain"] for row in step if (row["what"], row["cycles"]) == ("model training", 1)]
    need = next(need for need in record["needs"] if need["cycles"] == 1)
    assert need["images/s"] in [256 / each for each in seconds]
    assert need["cores, pillow"] == pytest.approx(need["images/s"] / speed["pillow, whole"])
    assert "cores, torchcodec" in capsys.readouterr().out


def test_a_draft_has_room_only_in_large_pictures(rates: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for size in ((500, 375), (1000, 750), (8000, 6000)):
        monkeypatch.setattr(rates, "PICTURE", size)
        found.append(rates.room_for_draft(200))
    assert found[0] == 0
    assert 0 < found[1] < found[2] == 1
