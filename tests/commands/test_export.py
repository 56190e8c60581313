"""``cycledistill export``: names and files to files, int8 where asked for, and what it says to calls that cannot be."""

from __future__ import annotations

import functools
import itertools
import json
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from cycledistill.commands import export as command
from cycledistill.commands.calibration import find_samples, pictures_by, read_batches
from cycledistill.commands.frame import main
from cycledistill.exporter import export
from cycledistill.exporter.export import FORMATS
from cycledistill.exporter.quantize import KINDS
from cycledistill.metadata.read import read_words

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
    assert main([*call, "--calibration-data", str(pictures)]) == 0
    said = capsys.readouterr().out
    assert "random weights, exit 2" in said and "test_vit-int8.onnx: int8 (static)" in said
    assert "compared on the 5 calibration inputs" in said and " MB" in said
    words = {each.key: each.value for each in onnx.load("test_vit-int8.onnx").metadata_props}
    assert words["model"] == "test_vit" and json.loads(words["quantization"])["kind"] == "static"
    assert (words["exit"], words["weights"], words["input_size"]) == ("2", "random", "[32, 32]")
    assert not words.keys() & {"cycles", "distill"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "test_vit-int8.onnx"]


def test_weights_of_a_name(tmp_path: Path, capsys: Lines) -> None:
    assert main(["export", "test_vit", "--output", str(tmp_path / "weights.safetensors")]) == 0
    assert "weights.safetensors: test_vit with random weights, exit 1" in capsys.readouterr().out


@pytest.mark.slow
def test_a_file_in_int8(file: Path, tmp_path: Path, capsys: Lines) -> None:
    inputs = tmp_path / "inputs.npy"
    np.save(inputs, np.zeros((3, 3, 32, 32)))
    out = tmp_path / "small.onnx"
    call = ["export", str(file), "--output", str(out), "--calibration-data", str(inputs), "--int8"]
    assert main(call) == 0
    said = capsys.readouterr().out
    assert "int8 (dynamic)" in said and "the 3 calibration inputs" in said
    assert out.stat().st_size < file.stat().st_size


@pytest.mark.slow
def test_pictures_are_prepared_as_the_file_says(file: Path, pictures: Path) -> None:
    of_file = pictures_by(read_words(file), file.name)
    samples = find_samples(pictures, 3, of_file)
    assert [tuple(sample()[0].shape) for sample in samples] == [(1, 3, 32, 32)] * 3
    assert [len(batch["x"]) for batch in read_batches(samples, file, 3, pictures)] == [3]
    red = pictures / "red"
    red.mkdir()
    pillow.new("RGB", (64, 48), (255, 0, 0)).save(red / "red.png")
    (sample,) = of_file(red)
    expected = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)  # of mean and deviation 0.5, timm's for this model
    torch.testing.assert_close(sample()[0], expected.expand(1, 3, 32, 32))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("wanted", [(32, 32), (24, 33)])
def test_pictures_are_prepared_as_timm_evaluates(
    interpolation: str, crop_mode: str, wanted: tuple[int, int], tmp_path: Path
) -> None:
    transforms = pytest.importorskip("timm.data.transforms_factory")
    said = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "crop_mode": crop_mode, "interpolation": interpolation}
    for size, crop_pct in itertools.product([(50, 40), (32, 32), (31, 70), (7, 90)], [1.0, 0.9, 0.875]):
        pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        pillow.fromarray(pixels).save(tmp_path / "a.png")
        evaluated = transforms.create_transform(wanted, crop_pct=crop_pct, **said)(pillow.fromarray(pixels))
        told = said | {"crop_pct": crop_pct, "input_size": wanted}
        (sample,) = pictures_by({name: json.dumps(value) for name, value in told.items()}, "a model")(tmp_path)
        torch.testing.assert_close(sample()[0][0], evaluated)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((0, 3, 4, 4)), r"holds no inputs: an array of shape \(0, 3, 4, 4\)"),
        (np.zeros((2, 0, 4)), "holds no inputs"),
        (np.array([[0.0, 1.0], [2.0, np.nan]]), "is not finite: 1 of 2 inputs hold nan.* the first is number 1,"),
        (np.array([[0.0, 1e300]]), "is not finite: 1 of 1 inputs hold .*beyond float32"),
    ],
    ids=["none", "empty", "nan", "large"],
)
def test_arrays_of_nothing_or_of_nan_are_refused(array: np.ndarray, reason: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=reason):
        find_samples(tmp_path / "a.npy", 8, lambda _: [])


def test_of_an_array_inputs_are_taken_evenly(tmp_path: Path) -> None:
    """Arrays are often sorted by class: the first ones would be all alike."""
    np.save(tmp_path / "a.npy", np.arange(20).reshape(10, 2))
    (sample,) = find_samples(tmp_path / "a.npy", 4, lambda _: [])
    assert sample()[0][:, 0].tolist() == [0, 4, 10, 14]
    (sample,) = find_samples(tmp_path / "a.npy", 10, lambda _: [])
    assert sample()[0][:, 0].tolist() == list(range(0, 20, 2))


def test_samples_of_nothing_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reads them: a folder, a recording."""
    entry = types.SimpleNamespace(name="x", shape=["batch", 3])
    session = types.SimpleNamespace(get_inputs=lambda: [entry])
    monkeypatch.setattr("cycledistill.commands.calibration.open_session", lambda _: session)
    for samples in ([], [lambda: (torch.zeros(0, 3),)]):
        with pytest.raises(ValueError, match="clips holds no inputs"):
            read_batches(samples, Path("a.onnx"), 8, Path("clips"))


def test_a_way_to_prepare_pictures_that_is_not_known_is_refused() -> None:
    words = {"input_size": "[4, 4]", "mean": "[0, 0, 0]", "std": "[1, 1, 1]"}
    for key in ("crop_mode", "interpolation"):
        with pytest.raises(ValueError, match=f"a model says {key}='random', and .* are known here: give --calibration"):
            pictures_by(words | {key: '"random"'}, "a model")


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
        call = ["export", str(source), "--int8", "static", "--calibration-data", str(given), "--output", str(out)]
        assert main(call) == 2
        assert reason in capsys.readouterr().err
        assert not out.exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["test_vit", "--int8", "static"], "give --calibration-data PATH"),
        (["test_vit", "--int8", "--format", "pt2"], "only ONNX files are quantised"),
        (["test_vit", "--calibration-data", "."], "belong to --int8"),
        (["test_vit", "--int8", "--calibration-data", "nowhere"], "nowhere: there is no such folder or file"),
        (["test_vit", "--exit", "0"], "at least 1"),
        (["test_vit", "--output", "nowhere/a.onnx"], "there is no folder nowhere"),
        (["test_vit", "--output", "a.pt"], "--output a.pt tells no format: a name that ends in one of .onnx, .pt2,"),
        (["test_vit", "--output", "a", "--int8"], "--output a tells no format"),
        (["test_vit", "--output", "a.pt2", "--format", "onnx"], "a.pt2 has the ending of pt2: leave one of them out"),
        (["test_vit", "--blocks", "blocks"], "exit 1 is the plain model's"),
        (["test_vit", "--int8", "--calibration-data", "."], "no picture is in it"),
        (["test_vit", "--ema"], "and test_vit is no run"),
        (["model.onnx"], "is exported already"),
        (["model.onnx", "--int8"], "there is no such file"),
        (["model.onnx", "--int8", "--calibration-data", "."], "model.onnx: there is no such file"),
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


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--exit", "2"], "is a file of one exit"),
        (["--exit", "2", "--blocks", "blocks"], "is a file of one exit"),
        (["--blocks", "blocks"], "is a file of one exit"),
        (["--img-size", "32"], "was exported for one size"),
        (["--ema"], "--ema is for runs and checkpoints, which have an average"),
    ],
)
def test_what_a_file_cannot_follow(words: list[str], reason: str, tmp_path: Path, capsys: Lines) -> None:
    (tmp_path / "model.onnx").touch()
    assert main(["export", str(tmp_path / "model.onnx"), "--int8", *words]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.slow
def test_errors_name_the_model_and_not_a_file_that_nobody_saw(
    tmp_path: Path, capsys: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    smaller = functools.partial(timm.create_model, depth=1, embed_dim=48, num_heads=2)
    monkeypatch.setattr(timm, "create_model", smaller)
    np.save(tmp_path / "wrong.npy", np.zeros((2, 3, 16, 16)))
    assert main(["export", "test_vit", "--img-size", "32", "--int8", "--calibration-data", "wrong.npy"]) == 2
    assert "of shape (2, 3, 16, 16): the file takes ('batch', 3, 32, 32)" in capsys.readouterr().err

    def failing(*_: Path, **__: object) -> None:
        raise ValueError(f"{_[0]}: not today")

    monkeypatch.setattr("cycledistill.commands.export_files.quantize", failing)
    assert main(["export", "test_vit", "--img-size", "32", "--int8"]) == 2
    assert "test_vit as ONNX: not today" in capsys.readouterr().err


def test_help_names_what_the_exporter_takes() -> None:
    assert (tuple(FORMATS.values()), KINDS) == (command.FORMATS, command.KINDS)
