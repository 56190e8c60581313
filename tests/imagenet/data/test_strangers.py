"""Images, tar and Parquet files from strangers: read, or refused by the documented error that names the file."""

from __future__ import annotations

import gc
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("timm")

from cycledistill.integrations.imagenet.data.splits import ImageSource, open_images
from cycledistill.recipes.errors import DataError
from tests.faults.damage import damaged, odd_documents


def image(form: str = "PNG") -> bytes:
    pixels, held = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(held, form)
    return held.getvalue()


def folders(root: Path) -> Path:
    for split in ("train", "validation"):
        for name in "ab":
            (root / split / name).mkdir(parents=True)
            (root / split / name / "0.png").write_bytes(image())
    return root


def read_all(root: Path) -> None:
    train = open_images(ImageSource(dir=str(root))).train
    train.transform = lambda picture: picture
    for index in range(len(train)):
        train[index]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP", "tar"])
def test_what_is_damaged_is_read_or_refused(tmp_path: Path, form: str) -> None:
    folders(tmp_path / "set")
    file, root = tmp_path / "set" / "train" / "a" / "0.png", tmp_path / "set"
    whole = image(form if form != "tar" else "PNG")
    if form == "tar":
        root = tmp_path / "tar"
        root.mkdir()
        for split in ("train", "validation"):
            with tarfile.open(root / f"{split}.tar", "w") as archive:  # timm leaves it open where it is damaged
                archive.add(tmp_path / "set" / split, arcname=split)
        file = root / "train.tar"
        whole = file.read_bytes()
    for what, data in damaged(whole, flips=60, cuts=20):
        file.write_bytes(data)
        try:
            read_all(root)
        except DataError as error:
            assert any(each in str(error) for each in ("train", "class", "training")), (what, str(error))
    gc.collect()  # while the warnings above are allowed


def parquet(root: Path, rows: list[dict[str, Any]], metadata: Any = None, name: str = "{}") -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    root.mkdir(exist_ok=True)
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": json.dumps(metadata)})
    for split in ("train", "validation"):
        pq.write_table(table, root / f"{name.format(split)}.parquet")
    return root


def rows(**changes: Any) -> list[dict[str, Any]]:
    held = [{"image": {"bytes": image(), "path": f"{n}.png"}, "label": n % 2} for n in range(4)]
    held[0] |= changes
    return held


FEATURES = {"info": {"features": {"label": {"names": ["a", "b"]}}}}


def test_a_damaged_parquet_file_is_read_or_refused(tmp_path: Path) -> None:
    file = parquet(tmp_path / "p", rows(), FEATURES) / "train.parquet"
    for what, data in damaged(file.read_bytes(), flips=120):
        file.write_bytes(data)
        try:
            read_all(tmp_path / "p")
        except DataError as error:
            assert str(error), what


def test_parquet_metadata_with_any_value_anywhere(tmp_path: Path) -> None:
    for what, metadata in odd_documents(FEATURES):
        parquet(tmp_path / "p", rows(), metadata)
        try:
            read_all(tmp_path / "p")
        except DataError as error:
            assert str(error), what


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"label": None}, r"train\.parquet: 1 rows have no image or no label"),
        ({"image": None}, r"train\.parquet: 1 rows have no image or no label"),
        ({"image": {"bytes": None, "path": "x"}}, "broken image x .*: not a picture.*holds no image bytes"),
    ],
    ids=["label", "image", "bytes"],
)
def test_rows_that_lack_something_are_counted(tmp_path: Path, changes: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_all(parquet(tmp_path / "p", rows(**changes), FEATURES))


def test_parts_of_several_forms_and_text_for_bytes_are_said(tmp_path: Path) -> None:
    parquet(tmp_path / "p", rows(), FEATURES, "{}-0")
    parquet(tmp_path / "p", [{**row, "label": float(row["label"])} for row in rows()], FEATURES, "{}-1")
    with pytest.raises(DataError, match=r"train-1\.parquet: column 'label' is double, expected whole numbers"):
        read_all(tmp_path / "p")
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.Table.from_pylist(rows())
    pq.write_table(table.set_column(1, "label", table["label"].cast(pa.int32())), tmp_path / "p" / "train-1.parquet")
    with pytest.raises(DataError, match=r"2 files .*: tables of one form are expected \(Schema at index 1"):
        read_all(tmp_path / "p")
    text = parquet(tmp_path / "t", [{"image": {"bytes": "x", "path": "x"}, "label": n} for n in (0, 1)], FEATURES)
    with pytest.raises(DataError, match=r"train\.parquet: 'image\.bytes' is string, expected bytes"):
        read_all(text)
