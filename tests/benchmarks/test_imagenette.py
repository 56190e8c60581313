"""benchmarks/imagenette.py runs, goes on where it stopped, and its numbers are what it says they are."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from tests.scripts import load_script

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "imagenette.py"
SMALL = [
    "--steps",
    "3",
    "--batch",
    "4",
    "--dim",
    "16",
    "--depth",
    "2",
    "--patch",
    "8",
    "--seeds",
    "2",
    "--device",
    "cpu",
]


@pytest.fixture(scope="module")
def study() -> ModuleType:
    return load_script("benchmarks/imagenette.py")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("validation", 6)):
        rows = []
        for _ in range(count):
            file = io.BytesIO()
            Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file, "PNG")
            rows.append({"bytes": file.getvalue(), "path": "x.png"})
        table = pa.table({"image": rows, "label": [index % 3 for index in range(count)]})
        (tmp_path / "set").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "set" / f"{split}.parquet")
    return tmp_path / "set"


def call(study: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr("sys.argv", ["imagenette.py", *map(str, arguments)])
    return int(study.main())


@pytest.mark.slow
def test_it_runs_every_arm_and_goes_on_where_it_stopped(
    study: ModuleType,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out.json"
    assert call(study, monkeypatch, pictures, *SMALL, "--output", out, "--minutes", "1e-9") == 0
    assert "10 runs are left" in capsys.readouterr().out
    assert call(study, monkeypatch, pictures, *SMALL, "--output", out, "--arms", "base", "sdpose") == 0
    half = json.loads(out.read_text())
    assert [(run["arm"], run["seed"]) for run in half["runs"]] == [(a, s) for s in (0, 1) for a in ("base", "sdpose")]
    capsys.readouterr()
    assert call(study, monkeypatch, pictures, *SMALL, "--output", out) == 0
    record, text = json.loads(out.read_text()), capsys.readouterr().out
    assert record["runs"][:4] == half["runs"]
    assert {run["arm"] for run in record["runs"]} == {"base", "exits", "sdpose", "mct", "base_eq"}
    assert len(record["runs"]) == 10
    for run in record["runs"]:
        assert run["deployed_equal"] is True
        assert run["steps"] == (round(3 * record["sdpose_cost"]) if run["arm"] == "base_eq" else 3)
        assert f"{run['arm']} " in text
    sdpose = next(run for run in record["runs"] if run["arm"] == "sdpose")
    terms = sdpose["last_tenth"]
    parts = [terms[name] for name in ("task_1", "task_2", "token_prefix", "token_patch")]
    assert sum(parts) == pytest.approx(terms["loss"], rel=1e-5)
    assert {"token_rms_1", "token_rms_2"} < terms.keys()
    assert str(tmp_path) not in out.read_text()


@pytest.mark.slow
def test_other_settings_are_refused(
    study: ModuleType, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.json"
    assert call(study, monkeypatch, pictures, *SMALL, "--output", out, "--arms", "base") == 0
    with pytest.raises(SystemExit, match=r"other settings .*'lr': \(0.001, 0.002\).*--output"):
        call(study, monkeypatch, pictures, *SMALL, "--output", out, "--lr", "0.002")


def test_a_folder_without_the_files_is_named(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"holds no train\.parquet"):
        call(study, monkeypatch, tmp_path, *SMALL)
    with pytest.raises(SystemExit):
        call(study, monkeypatch, tmp_path, *SMALL, "--batch", "0")
    assert "--batch 0: a number above 0" in capsys.readouterr().err


def test_paired_difference_is_scipys(study: ModuleType) -> None:
    draw = np.random.default_rng(1)
    one, two = draw.normal(70, 2, (4, 3)), draw.normal(69, 2, (4, 3))
    runs = [{"arm": "sdpose", "seed": seed, "top1": one[seed].tolist()} for seed in range(4)]
    runs += [{"arm": "base", "seed": seed, "top1": two[seed].tolist()} for seed in (3, 1, 2)]  # any order, one missing
    found = study.paired(runs, "sdpose@2-base@1")
    interval = stats.ttest_rel(one[1:, 1], two[1:, 0]).confidence_interval(0.95)
    assert (found["low"], found["high"], found["seeds"]) == pytest.approx((interval.low, interval.high, 3))
    assert study.paired(runs[:1], "sdpose@2-base@1") is None


def test_augmentation_keeps_range_shape_and_seed(study: ModuleType) -> None:
    # A horizontal ramp: crops are ramps too, increasing or (flipped) decreasing, and never wider than the original.
    ramp = torch.linspace(-1, 1, 32).expand(64, 3, 32, 32)
    views = [study.augment(ramp, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*views)
    assert views[0].shape == ramp.shape
    slope = views[0][:, 0, 16, 1:] - views[0][:, 0, 16, :-1]
    rising, falling = (slope >= -1e-6).all(1), (slope <= 1e-6).all(1)
    assert (rising | falling).all()
    assert 16 < rising.sum() < 48
    span = (views[0][:, 0, 16, -1] - views[0][:, 0, 16, 0]).abs() / 2
    assert span.max() <= 1
    assert span.min() > (0.35 * 3 / 4) ** 0.5 - 0.07  # the narrowest box, less half a pixel at each side


def test_batches_visit_every_image_once_an_epoch(study: ModuleType) -> None:
    images = torch.arange(12).view(12, 1, 1, 1).expand(12, 3, 4, 4).to(torch.uint8)
    seen = torch.cat([labels for _, labels in study.batches((images, torch.arange(12)), 6, 4, seed=0)])
    assert seen[:12].sort().values.tolist() == list(range(12))
    assert seen[12:].sort().values.tolist() == list(range(12))
    assert seen[:12].tolist() != seen[12:].tolist()
