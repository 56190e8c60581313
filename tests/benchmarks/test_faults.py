"""The table of faults: every case is in one column, and one that escaped is told and ends the command with 1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

pytest.importorskip("accelerate")
pytest.importorskip("timm")
pytest.importorskip("cv2")
pytest.importorskip("pycocotools")
pytest.importorskip("huggingface_hub")

from tests.faults.kinds import RIGHT, Kind
from tests.scripts import load_script


@pytest.mark.parametrize(("bad", "code"), [(-1, 0), (7, 1)])
def test_the_table_and_the_record(
    bad: int, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults, out = load_script("benchmarks/faults.py"), tmp_path / "faults.json"

    def check(case: int) -> str:
        if case == bad:
            raise IndexError("list index out of range")
        return RIGHT

    class NoNursery:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: Any) -> None: ...

    kinds = [Kind(name, st.integers(0, 9), check) for name in ("numbers", *faults.COSTLY)]
    monkeypatch.setattr(faults, "PROPERTIES", kinds)
    monkeypatch.setattr(faults, "run_kinds", lambda runs: [])
    monkeypatch.setattr(faults, "Nursery", NoNursery)
    assert faults.main(["--cases", "400", "--seed", "3", "--out", str(out)]) == code
    record, said = json.loads(out.read_text()), capsys.readouterr().out
    assert record["seed"] == 3 and [row["kind"] for row in record["rows"]] == [kind.name for kind in kinds]
    for row in record["rows"]:
        assert row["tried"] == row["documented error"] + row["right result"] + row["escaped"] > 0
        assert row["escaped"] == code
    assert ("escaped, numbers: 7 -> IndexError: list index out of range" in said) == bool(code)


def test_a_case_in_a_hundred_is_a_run() -> None:
    faults = load_script("benchmarks/faults.py")
    number = faults.shares(20000, 200)
    assert sum(number.values()) == pytest.approx(20000, abs=10)
    assert sum(number[name] for name in faults.RUN_KINDS) == pytest.approx(200, abs=6)
