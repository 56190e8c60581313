"""``cycledistill predict`` of classifiers: what it writes, shows and refuses."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cycledistill.commands.frame import main
from cycledistill.integrations.imagenet.predict import predict_classes
from cycledistill.integrations.imagenet.prediction import command, open_model
from tests.imagenet.prediction.test_predict import ORDER
from tests.scripts import exit_code

Lines = pytest.CaptureFixture[str]


def test_files_and_a_table(
    run: Path, photos: Path, tmp_path: Path, capsys: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "SHOWN", 2)
    out = tmp_path / "found"
    words = ["predict", str(run), str(photos / "val"), "--output", str(out), "--device", "cpu", "--exit", "2"]
    assert exit_code(main, words) == 0
    model, settings = open_model(run)
    expected = predict_classes(model, [photos / "val" / name for name in ORDER], exit=2, settings=settings)
    entries = json.loads((out / "classes.json").read_text())
    rows = list(csv.DictReader((out / "classes.csv").read_text(encoding="utf-8").splitlines()))
    assert [entry["picture"] for entry in entries] == ORDER and len(rows) == 14
    for place, (entry, each) in enumerate(zip(entries, expected, strict=True)):
        assert each is not None and (entry["width"], entry["height"]) == each.size
        for rank in range(2):
            found, row = entry["classes"][rank], rows[2 * place + rank]
            assert (found["class"], found["name"]) == (each.classes[rank], each.names[rank])
            assert found["probability"] == round(float(each.probabilities[rank]), 6) and len(found) == 3
            assert row == {
                "picture": ORDER[place],
                "rank": str(rank + 1),
                "class": str(found["class"]),
                "name": found["name"],
                "probability": str(found["probability"]),
                "description": "",
            }
    first, second, *others = capsys.readouterr().out.splitlines()
    assert expected[0] is not None
    name, share = expected[0].names[0], 100 * expected[0].probabilities[0]
    assert first.startswith(f"dark/1.png  {name} {share:.1f} %, ") and second.startswith("dark/2.jpg  ")
    assert others[0] == f"... and 5 more: all are in {out}"
    assert others[1].startswith("7 pictures, ") and others[2] == f"{out}: classes.csv, classes.json"


def test_several_sources_without_files(run: Path, photos: Path, capsys: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    words = ["predict", str(run), "val/pale", "val/dark/1.png", "val/dark/*.jpg", "--top", "1", "--device", "cpu"]
    assert exit_code(main, [*words, "--batch-size", "2"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    names = [*(f"val/pale/{n}" for n in ("1.png", "2.png", "3.png", "4.jpg")), "val/dark/1.png", "val/dark/*.jpg/2.jpg"]
    assert [line.split()[0] for line in lines] == names and last.startswith("6 pictures, ")
    assert all(line.count("%") == 1 for line in lines)
    assert exit_code(main, [*words, "--limit", "5", "--ema"]) == 0
    assert "5 pictures, " in capsys.readouterr().out


def test_a_video_is_a_picture_a_frame(run: Path, tmp_path: Path, capsys: Lines) -> None:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "talk.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 10, (40, 30))
    for shade in (0, 120, 240):
        writer.write(np.full((30, 40, 3), shade, np.uint8))
    writer.release()
    words = ["predict", str(run), str(tmp_path / "talk.avi"), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert exit_code(main, words) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:3]] == ["000000", "000001", "000002"]
    entries = json.loads((tmp_path / "out" / "classes.json").read_text())
    model, settings = open_model(run)
    expected = predict_classes(model, [np.full((30, 40, 3), n, np.uint8) for n in (0, 120, 240)], settings=settings)
    for entry, each in zip(entries, expected, strict=True):
        assert each is not None
        assert entry["classes"][0]["probability"] == pytest.approx(float(each.probabilities[0]), abs=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({1: "no/such/run"}, "no/such/run"),
        ({2: "nothing"}, "nothing: there is no such picture, folder"),
        ({2: "photos/notes.txt"}, "notes.txt: a picture (.bmp, "),
        ({2: "photos/torn.png"}, "torn.png: not a picture, or a broken one"),
        ({2: "keypoints.npz"}, "keypoints.npz is a file of keypoints or boxes, and "),
        ({4: "photos/found"}, "the output photos/found and photos are in each other"),
        ({4: "full"}, "the output full is not empty"),
        ({5: "--top", 6: "0"}, "--top 0: a whole number of at least 1"),
        ({5: "--exit", 6: "0"}, "--exit 0: a whole number"),
        ({5: "--batch-size", 6: "0"}, "--batch-size 0: a whole number"),
        ({5: "--device", 6: "cuda:9"}, "--device='cuda:9' is not here"),
    ],
)
def test_what_cannot_be_used_is_said_and_nothing_is_left(
    changed: dict[int, str],
    message: str,
    run: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Lines,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(photos / "val" / "dark", "photos")
    Path("photos/torn.png").write_bytes(b"\x89PNG cut off")
    Path("photos/notes.txt").write_text("no picture")
    Path("full").mkdir()
    Path("full/a").touch()
    words = ["predict", str(run), "photos", "--output", "found", *([""] * (2 if 5 in changed else 0))]
    for place, word in changed.items():
        words[place] = word
    assert exit_code(main, words) == 2
    assert message in capsys.readouterr().err
    assert sorted(each.name for each in tmp_path.iterdir() if each.name != "found") == ["full", "photos"]
    assert not Path("found").exists() or not any(Path("found").iterdir())


def test_broken_pictures_are_left_out_when_asked(
    run: Path, photos: Path, tmp_path: Path, capsys: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(photos / "val" / "dark", tmp_path / "photos")
    (tmp_path / "photos" / "3.png").write_bytes(b"\x89PNG cut off")
    words = ["predict", str(run), str(tmp_path / "photos"), "--skip-broken", "--device", "cpu"]
    assert exit_code(main, words) == 0
    assert "3 pictures, " in capsys.readouterr().out
    assert f"{tmp_path / 'photos'}: 1 of 4 pictures could not be read and were skipped" in caplog.text
