"""The benchmark of prediction's memory predicts on as many photographs as it says."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pycocotools")

from tests.scripts import load_script


def test_every_photograph_is_predicted_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load_script("benchmarks/predict_memory.py")
    monkeypatch.setattr(module, "SIZE", (96, 54))
    monkeypatch.setattr(module, "DIFFERENT", 2)
    row = module.measure(module.network(None), 12, tmp_path)
    assert (row["pictures"], row["persons"]) == (12, 12)
    assert row["bytes before"] <= row["bytes after a tenth"] <= row["bytes"] and row["pictures a second"] > 0
    assert [len(list((tmp_path / part / "drawn").iterdir())) for part in ("first", "all")] == [1, 12]
    (tmp_path / "more").mkdir()
    module.photographs(tmp_path / "more", 5)
    files = sorted((tmp_path / "more").iterdir())
    assert len({file.stat().st_ino for file in files}) == 2 and files[4].samefile(files[0])
