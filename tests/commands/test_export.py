"""``cycledistill export``: names and files to files, int8 where asked for, and what it says to calls that cannot be."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cycledistill.commands import export as command
from cycledistill.commands.calibration import open_inputs
from cycledistill.commands.frame import main
from cycledistill.exporter import export
from cycledistill.exporter.export import FORMATS
from cycledistill.exporter.quantize import KINDS

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
timm = pytest.importorskip("timm")
pillow = pytest.importorskip("PIL.Image")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

Lines = pytest.CaptureFixture[str]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures" / "below"
    folder.mkdir(parents=True)
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        pillow.fromarray(pixels).save(folder / f"{number}.png")
    return folder.parent


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest vision transformer of timm, at exit 1."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, embed_dim=48, num_heads=2, num_classes=9)
    return export(model.eval(), tmp_path_factory.mktemp("file") / "vit.onnx").path


@pytest.mark.slow
def test_a_name_at_a_later_exit_in_int8(
    pictures: Path, tmp_path: Path, capsys: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    smaller = functools.partial(timm.create_model, depth=2, embed_dim=48, num_heads=2)
    monkeypatch.setattr(timm, "create_model", smaller)
    call = ["export", "test_vit", "--img-size", "32", "--exit", "2", "--format", "onnx", "--int8", "static"]
    assert main([*call, "--calibration", str(pictures)]) == 0
    said = capsys.readouterr().out
    assert "random weights, exit 2" in said and "test_vit-int8.onnx: int8 (static)" in said
    assert "compared on the 5 calibration inputs" in said and " MB" in said
    words = {each.key: each.value for each in onnx.load("test_vit-int8.onnx").metadata_props}
    assert words["model"] == "test_vit" and json.loads(words["quantization"])["kind"] == "static"
    assert (words["exit"], words["cycles"], words["distill"], words["input_size"]) == ("2", "2", "null", "[32, 32]")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "test_vit-int8.onnx"]


def test_weights_of_a_name(tmp_path: Path, capsys: Lines) -> None:
    assert main(["export", "test_vit", "--output", str(tmp_path / "weights.safetensors")]) == 0
    assert "weights.safetensors: test_vit with random weights, exit 1" in capsys.readouterr().out


@pytest.mark.slow
def test_a_file_in_int8(file: Path, tmp_path: Path, capsys: Lines) -> None:
    inputs = tmp_path / "inputs.npy"
    np.save(inputs, np.zeros((3, 3, 32, 32)))
    out = tmp_path / "small.onnx"
    call = ["export", str(file), "--output", str(out), "--calibration", str(inputs), "--int8"]
    assert main(call) == 0
    said = capsys.readouterr().out
    assert "int8 (dynamic)" in said and "the 3 calibration inputs" in said
    assert out.stat().st_size < file.stat().st_size


@pytest.mark.slow
def test_pictures_are_prepared_as_the_file_says(file: Path, pictures: Path) -> None:
    batches = open_inputs(pictures, file, limit=3)
    assert [tuple(batch.shape) for batch in batches] == [(3, 3, 32, 32)]
    red = pictures / "red"
    red.mkdir()
    pillow.new("RGB", (64, 48), (255, 0, 0)).save(red / "red.png")
    (batch,) = open_inputs(red, file, limit=3)
    expected = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)  # of mean and deviation 0.5, timm's for this model
    torch.testing.assert_close(batch, expected.expand(1, 3, 32, 32))


@pytest.mark.slow
def test_calibration_that_cannot_be_used(file: Path, tmp_path: Path, capsys: Lines) -> None:
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    empty.mkdir()
    broken.mkdir()
    (broken / "a.png").write_bytes(b"no picture")
    (tmp_path / "a.npy").write_bytes(b"no array")
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    mute = tmp_path / "mute.onnx"
    model = onnx.load(file)
    del model.metadata_props[:]
    onnx.save(model, mute)
    for source, given, reason in (
        (file, empty, "no picture is in it"),
        (file, broken, "a.png: not a picture"),
        (file, tmp_path / "a.npy", "cannot be read as an npy file"),
        (file, tmp_path / "words.npy", "numbers (samples, ...) are expected"),
        (mute, broken, "does not say its input_size, mean, std"),
    ):
        out = tmp_path / "small.onnx"
        call = ["export", str(source), "--int8", "static", "--calibration", str(given), "--output", str(out)]
        assert main(call) == 2
        assert reason in capsys.readouterr().err
        assert not out.exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["test_vit", "--int8", "static"], "give --calibration DIR"),
        (["test_vit", "--int8", "--format", "pt2"], "only ONNX files are quantised"),
        (["test_vit", "--calibration", "."], "belong to --int8"),
        (["test_vit", "--int8", "--calibration", "nowhere"], "nowhere: there is no such folder or file"),
        (["test_vit", "--exit", "0"], "at least 1"),
        (["test_vit", "--output", "nowhere/a.onnx"], "there is no folder nowhere"),
        (["model.onnx"], "is exported already"),
        (["model.onnx", "--int8", "--exit", "2"], "is a file of one exit"),
        (["model.onnx", "--int8"], "there is no such file"),
        (["test_vitt", "--format", "pt2"], "test_vit"),
    ],
)
def test_calls_that_cannot_be(
    words: list[str], reason: str, tmp_path: Path, capsys: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", *words]) == 2
    assert reason in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_help_names_what_the_exporter_takes() -> None:
    assert (tuple(FORMATS.values()), KINDS) == (command.FORMATS, command.KINDS)
