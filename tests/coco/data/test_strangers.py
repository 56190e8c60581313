"""Pictures, archives and annotations from strangers: read, or refused by the documented error that names the file."""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from cycledistill.integrations.coco.data.annotations import annotated_persons, detected_persons
from cycledistill.integrations.coco.data.images import ImageStore, PoseDataError
from cycledistill.integrations.coco.data.joints import COCO
from cycledistill.integrations.coco.data.pictures import GivenPictures
from cycledistill.integrations.coco.evaluation import evaluate_poses, load_ground_truth
from cycledistill.integrations.coco.recipe import load_recipe
from cycledistill.integrations.coco.training.sources import open_training
from tests.coco.figures import write_dots
from tests.faults.damage import damaged, odd_documents

SIZE = (64, 48)


def picture(suffix: str = ".png") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    return bytes(cv2.imencode(suffix, pixels)[1].tobytes())


def png_of(width: int, height: int) -> bytes:
    """A PNG that says to be of some size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"abc")), (b"IEND", b""))
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("sides", [(2**20, 2**20), (70_000, 70_000), (2**31 - 1, 2), (0, 0)], ids=str)
def test_a_picture_beyond_the_decoders_limit_is_named(tmp_path: Path, sides: tuple[int, int]) -> None:
    (tmp_path / "big.png").write_bytes(png_of(*sides))
    with pytest.raises(PoseDataError, match=r"big\.png: not a picture, or a broken one"):
        ImageStore(tmp_path).read("big.png")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
def test_a_damaged_picture_is_read_or_refused(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    for what, data in damaged(picture(suffix), flips=60, cuts=20):
        file.write_bytes(data)
        for read in (lambda: ImageStore(tmp_path).read(file.name).shape, lambda: GivenPictures([file]).size(0)):
            try:
                read()
            except PoseDataError as error:
                assert file.name in str(error), what


@pytest.mark.parametrize(
    "name", ["a\0b.jpg", "\ud800.jpg", "x" * 5000, ".", ""], ids=["nul", "half", "long", "dot", "no"]
)
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(PoseDataError, match="cannot be read"):
        ImageStore(tmp_path).read(name)


def test_an_opened_picture_that_is_cut_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture()[:-200])
    with Image.open(tmp_path / "a.png") as opened, pytest.raises(PoseDataError, match=r"images\[0\]: not a picture"):
        GivenPictures([opened]).read("0")


def zipped(path: Path, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("val/x.png", picture())
    return path.read_bytes()


def turned(at: int, value: int) -> Callable[[bytes], bytes]:
    """A byte of the member's own header, and of its entry in the list at the end, which lies two bytes further in."""

    def turn(data: bytes) -> bytes:
        found, entry = bytearray(data), data.find(b"PK\x01\x02")
        found[at] = found[entry + at + 2] = value
        return bytes(found)

    return turn


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (turned(6, 1), "is encrypted, password required"),
        (turned(8, 97), "That compression method is not supported"),
        (turned(4, 99), "zip file version"),
        (lambda data: data.replace(data[80:120], bytes(40)), "Error -3|Bad CRC|invalid"),
        (lambda data: data[:-10], "not a zip file"),
    ],
    ids=["encrypted", "method", "version", "damaged", "cut"],
)
def test_a_member_that_cannot_be_read_is_named_and_can_be_skipped(tmp_path: Path, change: Any, says: str) -> None:
    (tmp_path / "a.zip").write_bytes(change(zipped(tmp_path / "a.zip")))
    with pytest.raises(PoseDataError, match=rf"a\.zip/val/x\.png: cannot be read as a zip file, or.*({says})"):
        ImageStore(tmp_path / "a.zip" / "val").read("x.png")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_archive_is_read_or_refused(tmp_path: Path, method: int) -> None:
    file = tmp_path / "val.zip"
    for what, data in damaged(zipped(file, method), flips=80, cuts=20):
        file.write_bytes(data)
        for root in (file / "val", tmp_path / "val"):
            try:
                ImageStore(root).read("x.png")
            except PoseDataError as error:
                assert str(tmp_path) in str(error), what


def test_links_are_followed_in_folders_and_refused_in_archives(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.png").write_bytes(picture())
    (tmp_path / "val").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "y.png").symlink_to("x.png")
    assert ImageStore(tmp_path / "val").read("y.png").shape == (20, 30, 3)
    link = zipfile.ZipInfo("val/x.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "../../etc/passwd")
    with pytest.raises(PoseDataError, match=r"val/x\.png: a link inside a zip file is not followed; put the file"):
        ImageStore(tmp_path / "a.zip" / "val").read_bytes("x.png")


@pytest.mark.parametrize("name", ["../secret.png", "a/../../secret.png", "ABSOLUTE", "..", "./../secret.png"])
def test_names_outside_the_root_are_read_where_that_is_allowed_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "val" / "a").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(picture())
    (tmp_path / "val" / "in.png").write_bytes(picture())
    name = name.replace("ABSOLUTE", str(tmp_path / "secret.png"))
    with pytest.raises(PoseDataError, match=r"is not inside .*/val: pictures are.*data\.allow_outside=true"):
        ImageStore(tmp_path / "val").read(name)
    if name != "..":
        assert ImageStore(tmp_path / "val", allow_outside=True).read(name).shape == (20, 30, 3)
    assert ImageStore(tmp_path / "val").read("./in.png").shape == (20, 30, 3)


def test_a_name_that_goes_out_by_way_of_a_link_is_refused(tmp_path: Path) -> None:
    """By its letters it stays inside: the system follows the link first, and goes up from there."""
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "private.png").write_bytes(picture())
    (tmp_path / "elsewhere" / "deep" / "in.png").write_bytes(picture())
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "val").symlink_to(tmp_path / "elsewhere" / "deep")
    store = ImageStore(tmp_path / "root")
    assert store.read("val/in.png").shape == (20, 30, 3)
    with pytest.raises(PoseDataError, match="is not inside"):
        store.read("val/../private.png")


@pytest.mark.parametrize("broken", ["stop", "skip"])
def test_a_run_stops_at_a_name_outside_also_where_it_skips_broken_pictures(tmp_path: Path, broken: str) -> None:
    root = write_dots(tmp_path / "set")
    file = root / "annotations" / "train.json"
    data = json.loads(file.read_text())
    os.rename(root / "pictures" / data["images"][0]["file_name"], root / "moved.png")
    data["images"][0]["file_name"] = "../moved.png"
    file.write_text(json.dumps(data))
    options = [f"data.root={root}", f"data.broken_images={broken}", "data.train_images=pictures"]
    options += ["data.train_annotations=annotations/train.json"]
    with pytest.raises(PoseDataError, match=r"^data\.train_images: '\.\./moved\.png' is not inside .*pictures"):
        open_training(load_recipe(None, options).data, SIZE)
    split = open_training(load_recipe(None, [*options, "data.allow_outside=true"]).data, SIZE)
    assert split.images.read("../moved.png").ndim == 3


def document() -> dict[str, Any]:
    box = {"bbox": [1, 2, 10, 10], "area": 50.0, "iscrowd": 0, "num_keypoints": 17, "keypoints": [1.0, 2.0, 2] * 17}
    return {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 20, "height": 30, "crowdIndex": 0.5} for n in (1, 2)],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, **box} for n in (1, 2)],
        "categories": [{"id": 1, "name": "person"}],
        "info": {},
    }


def test_annotations_with_any_value_anywhere_are_taken_or_refused() -> None:
    result = {"image_id": 1, "category_id": 1, "keypoints": [1.0, 2.0, 0.9] * 17, "score": 0.5}
    found = [{"image_id": n, "category_id": 1, "bbox": [1, 2, 10, 10], "score": 0.5} for n in (1, 2)]

    def measured(data: Any) -> object:
        return evaluate_poses(load_ground_truth(data, COCO), [dict(result)], COCO)

    readers: tuple[Callable[[Any], object], ...] = (
        lambda data: annotated_persons(data, COCO, SIZE),
        lambda data: detected_persons(found, data, COCO, SIZE),
    )
    for what, data in odd_documents(document()):
        for read in readers:
            try:
                read(data)
            except PoseDataError as error:
                assert str(error), what
    for what, data in odd_documents(document(), (None, 10**400, "x", [], {"a": 1})):
        try:
            measured(data)
        except ValueError as error:
            assert str(error), what
    for _, data in odd_documents(found):
        try:
            detected_persons(data, document(), COCO, SIZE)
        except PoseDataError:
            pass


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("annotations", 0, "iscrowd"), "0", "annotation 1 has iscrowd '0': 0 or 1 is expected, or leave it out"),
        (("annotations", 0, "id"), [1], r"an annotation has id \[1\] .*: a whole number, or text, is expected"),
        (("annotations", 0, "image_id"), {}, r"an annotation has .*image_id {}: a whole number, or text, is expected"),
        (("annotations", 0, "bbox"), [0, 0, 10**400, 1], "annotation 1 has bbox .*: four finite numbers are expected"),
        (("annotations", 0, "num_keypoints"), "x", "annotation 1 has num_keypoints 'x': a finite number is expected"),
        (("annotations", 0, "category_id"), [], r"annotation 1 has category_id \[\]: a whole number, or text, is"),
        (("images", 0, "id"), [1], r"an image of the annotation file has id \[1\]: a whole number, or text,"),
        (("images", 0, "id"), "1", "ids of images are numbers and text: one of the two is expected, for all"),
        (("images", 0, "width"), "20", "image 1 has width '20': a finite number is expected, or leave it out"),
        (("images", 1, "id"), 1, r"image 1 is there twice \('1.jpg' and '2.jpg'\): ids of images must differ"),
        (("categories", 0, "keypoints"), 5, "category 1 has keypoints that are no list of names"),
        (("categories",), 5, "no list 'categories' in the annotation file"),
        (("categories", 0), 5, "a category of the annotation file has no 'id': 5"),
    ],
    ids=str,
)
def test_odd_values_are_said_with_their_entry(place: tuple[Any, ...], value: Any, says: str) -> None:
    data: Any = document()
    holder = data
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    for read in (lambda: annotated_persons(data, COCO, SIZE), lambda: load_ground_truth(data, COCO)):
        with pytest.raises(PoseDataError, match=says):
            read()


def test_persons_without_a_category_are_persons() -> None:
    data = document()
    for entry in data["annotations"]:
        del entry["category_id"]
    assert load_ground_truth(data, COCO).getAnnIds(catIds=[1]) == [1, 2]
