"""What files say of themselves is read without their weights, and bad files are refused in words."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from cycledistill import export, wrap_cyclic
from cycledistill.metadata.onnx_words import onnx_words
from cycledistill.metadata.read import MetadataError, read_words
from cycledistill.metadata.shape import KEYS
from cycledistill.metadata.told import report_file
from tests import toys

WORDS = {"model": "vit", "class": "ViT", "exit": "2", "cycles": "3", "distill": '"elt"', "é": "ü" * 200}


class Image(nn.Module):
    """Takes images, and says all that a file should."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = toys.make().float()
        self.head = nn.Linear(toys.CLASSES, 2)
        self.pretrained_cfg = {"architecture": "toy_4", "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
        self.config = type("Config", (), {"id2label": {0: "cat", 1: "dog"}})()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.vit(images.flatten(1)[:, :24].unflatten(1, (4, 6)))
        return self.head(out)  # type: ignore[no-any-return]


def onnx_file(path: Path, words: dict[str, str]) -> Path:
    """As the package onnx writes it."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    entry = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    weights = helper.make_tensor("w", onnx.TensorProto.FLOAT, [1000], [0.0] * 1000)
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [entry], [entry], [weights])
    model = helper.make_model(graph, producer_name="someone", doc_string="d" * 300)
    helper.set_model_props(model, words)
    onnx.save(model, path)
    return path


def pt2_file(path: Path, words: object = None) -> Path:
    program = torch.export.export(nn.Identity(), (torch.zeros(2, 1),))
    extra = {} if words is None else {"metadata.json": json.dumps(words)}
    torch.export.save(program, path, extra_files=extra)
    return path


def test_onnx_words_are_those_that_the_package_onnx_reads(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    for number, words in enumerate(({}, WORDS, {"": "", "a": "", "b": "\n"})):
        path = onnx_file(tmp_path / f"{number}.onnx", words)
        theirs = {each.key: each.value for each in onnx.load(path).metadata_props}
        assert read_words(path) == theirs == words


def test_the_graph_of_an_onnx_file_is_not_read(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "a.onnx", WORDS)
    read = 0

    class Counting(io.FileIO):
        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            nonlocal read
            got = super().readinto(buffer)
            read += got
            return got

    with Counting(path) as file:
        assert onnx_words(file) == WORDS  # type: ignore[arg-type]
    assert read < 1500 < path.stat().st_size


def test_every_truncated_onnx_file_is_torn_or_loses_words_alone(tmp_path: Path) -> None:
    whole, torn = onnx_file(tmp_path / "a.onnx", WORDS).read_bytes(), tmp_path / "b.onnx"
    for length in range(0, len(whole), 37):
        torn.write_bytes(whole[:length])
        with pytest.raises(MetadataError, match=r"b\.onnx is torn, or not ONNX: "):
            read_words(torn)


_SLOW = [pytest.param(ending, marks=pytest.mark.slow) for ending in ("onnx", "pt2")]  # torch.export takes seconds


@pytest.mark.parametrize("ending", [*_SLOW, "safetensors"])
def test_what_an_export_says_is_read_back(tmp_path: Path, ending: str) -> None:
    if ending == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    model = wrap_cyclic(Image(), 3, "elt", blocks="vit.blocks").eval()
    model.pretrained_cfg["input_size"] = (3, 4, 2)  # of weights, which no input is given
    path = tmp_path / f"a.{ending}"
    export(model, path, torch.randn(2, 3, 4, 2, dtype=torch.float32), exit=2, metadata={"site": "north\x1b[31m"})
    report = report_file(path)
    assert report.missing == () and set(report.words) - {"format"} == {*KEYS, "site", "assumed"}
    told = str(report)
    for words in (
        "toy_4 (Image)", "exit       2", "3 cycles, scheme elt", "4 x 2 pixels", "mean [0.5, 0.5, 0.5]",
        "2: cat, dog", "cycledistill 0.1.0, torch", "north?[31m",
    ):  # fmt: skip
        assert words in told
    assert ("every exit" in told) == (ending == "safetensors")
    assert report.to_dict()["says"]["classes"] == ["cat", "dog"]
    json.dumps(report.to_dict())


def test_a_file_that_says_nothing_is_asked_for_what_is_missing(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", metadata={"format": "pt"})
    files = [tmp_path / "a.safetensors", pt2_file(tmp_path / "a.pt2"), onnx_file(tmp_path / "a.onnx", {})]
    for path in files:
        assert read_words(path).keys() <= {"format"}
        with pytest.raises(MetadataError, match=rf"{path.name} does not say of which model it is\. Missing are mod"):
            report_file(path)


def test_a_file_that_says_half_is_told_what_it_does_not_say(tmp_path: Path) -> None:
    report = report_file(onnx_file(tmp_path / "a.onnx", {"model": "vit", "exit": "1", "joints": '["nose"]'}))
    assert report.missing == ("class", "cycles", "distill", "input_size", "mean", "std", "versions")
    assert "not said   class (the class of its model); cycles (how many" in str(report)


@pytest.mark.parametrize("ending", ["onnx", "pt2", "safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 64, b"PK\x03\x04", b"{}", b"\xff" * 5000, b"\x08\x08"], ids=range(6)
)
def test_other_files_are_refused(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(content)
    with pytest.raises(MetadataError, match=rf"a\.{ending} is torn, or not "):
        read_words(path)


@pytest.mark.parametrize("ending", [_SLOW[1], "safetensors"])
def test_torn_files_are_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    export(toys.make().float().eval(), path, torch.randn(2, 4, 6, dtype=torch.float32))
    whole = path.read_bytes()
    for length in (1, 9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(MetadataError, match=rf"a\.{ending} is torn, or not "):
            read_words(path)


def test_words_of_a_program_that_are_none_are_refused(tmp_path: Path) -> None:
    for words in ([1], {"model": 3}, "x"):
        with pytest.raises(MetadataError, match="words by name are expected"):
            read_words(pt2_file(tmp_path / "a.pt2", words))
    with zipfile.ZipFile(tmp_path / "b.pt2", "w") as archive:
        archive.writestr("b/data.pkl", b"")
    with pytest.raises(MetadataError, match="a zip file without a program"):
        read_words(tmp_path / "b.pt2")
    with zipfile.ZipFile(tmp_path / "c.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/archive_format", b"pt2")
        archive.writestr("c/extra/metadata.json", b" " * (2**26 + 1))
    with pytest.raises(MetadataError, match="is larger than"):
        read_words(tmp_path / "c.pt2")


def test_no_file_a_folder_and_another_ending(tmp_path: Path) -> None:
    with pytest.raises(MetadataError, match="there is no such file"):
        read_words(tmp_path / "a.onnx")
    with pytest.raises(MetadataError, match="a folder; a file is expected"):
        read_words(tmp_path)
    (tmp_path / "a.pth").touch()
    with pytest.raises(MetadataError, match=r"a\.pth is none of the files .*: \.onnx, \.pt2, \.safetensors\. A PyTo"):
        read_words(tmp_path / "a.pth")


def test_odd_words_are_shown_and_end_nothing(tmp_path: Path) -> None:
    odd = {
        "model": "m\n\x1b]0;t\x07" * 100,
        "exit": "many",
        "cycles": '"x"',
        "distill": "[" * 5000,
        "input_size": "{}",
        "mean": "NaN",
        "classes": '{"a": 1}',
        "joints": '{"name": 5, "names": 7}',
        "versions": "3",
        "frames": "1e999",
        "deep": "[" * 3000 + "]" * 3000,
        "convention": "[]",
    }
    report = report_file(onnx_file(tmp_path / "a.onnx", odd))
    told, written = str(report), json.dumps(report.to_dict(), allow_nan=False)
    assert json.loads(written)["says"]["mean"] == "NaN"
    assert all(each.isprintable() for each in told.splitlines()) and max(map(len, told.splitlines())) < 800


def test_names_of_words_steer_no_terminal_and_fill_no_screen(tmp_path: Path) -> None:
    odd = {"\x1b[2Jmodel\r\n  exit": "1", **{f"k{number}": "v" for number in range(60)}}
    told = str(report_file(onnx_file(tmp_path / "a.onnx", {"model": "vit", **odd})))
    assert "  ?[2Jmodel??  exit 1\n" in told and all(each.isprintable() for each in told.split("\n"))
    assert "k38" in told and "k39" not in told and "  ... and 21 more\n" in told


def test_nonsense_is_shown_and_told_as_no_fact(tmp_path: Path) -> None:
    odd = {
        "model": "vit", "exit": "0", "cycles": "-3", "distill": "[1", "input_size": '["a", null]', "mean": '"hello"',
        "std": "[0.5]", "frames": "true",
    }  # fmt: skip
    told = str(report_file(onnx_file(tmp_path / "a.onnx", odd))).splitlines()
    assert told[2:5] == [
        "  exit       unreadable ('0')",
        "  training   cycles unreadable ('-3'), scheme unreadable ('[1')",
        "  input      input_size unreadable ('[\"a\", null]'); frames unreadable ('true'); "
        "mean unreadable ('\"hello\"'), std [0.5]",
    ]
