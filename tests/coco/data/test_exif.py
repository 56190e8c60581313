"""Pictures that their EXIF data turns, against Pillow: read as the annotation file's size says, by whatever name."""

from __future__ import annotations

import io
import logging
import os
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cv2")

from PIL import Image, ImageOps

from cycledistill.integrations.coco.data.annotations import annotated_persons
from cycledistill.integrations.coco.data.dataset import PersonCrops
from cycledistill.integrations.coco.data.exif import orientation, turned
from cycledistill.integrations.coco.data.images import ImageStore, PoseDataError
from cycledistill.integrations.coco.data.joints import COCO
from cycledistill.integrations.coco.data.pictures import GivenPictures

WIDE, TALL = (40, 24), (24, 40)


def pixels(size: tuple[int, int] = WIDE) -> np.ndarray:
    """Four quarters of different colours: no turn looks like another, and JPEG keeps them."""
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    half = (size[1] // 2, size[0] // 2)
    picture[: half[0], : half[1]] = (200, 30, 30)
    picture[: half[0], half[1] :] = (30, 200, 30)
    picture[half[0] :, : half[1]] = (30, 30, 200)
    picture[half[0] :, half[1] :] = (200, 200, 30)
    return picture


def save(path: Path, noted: int | None, size: tuple[int, int] = WIDE) -> Path:
    exif = Image.Exif()
    if noted is not None:
        exif[0x0112] = noted
    Image.fromarray(pixels(size)).save(
        path, exif=exif, **({"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {})
    )
    return path


def as_pillow(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.array(ImageOps.exif_transpose(opened).convert("RGB"))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("noted", [None, *range(1, 9)])
def test_turned_as_pillow_turns(tmp_path: Path, noted: int | None, suffix: str) -> None:
    file = save(tmp_path / f"a{suffix}", noted)
    want = as_pillow(file).astype(int)
    assert orientation(file.read_bytes()) == (noted or 1)
    for read in (ImageStore(tmp_path, exif="apply").read(file.name), GivenPictures([file]).read("0"),
                 GivenPictures([Image.open(file)]).read("0")):  # fmt: skip
        assert read.shape == want.shape and np.abs(read - want).mean() < 6
    assert GivenPictures([file]).size(0) == want.shape[1::-1]
    stored = ImageStore(tmp_path, exif="ignore").read(file.name)
    given = GivenPictures([file], exif="ignore")
    assert stored.shape == pixels().shape and np.abs(stored.astype(int) - pixels()).mean() < 6
    assert np.array_equal(given.read("0"), stored) and given.size(0) == WIDE
    assert np.array_equal(turned(stored, noted or 1), ImageStore(tmp_path, exif="apply").read(file.name))


def test_tiff_files_are_turned_once(tmp_path: Path) -> None:
    """By their decoders, whatever is asked."""
    file = save(tmp_path / "a.tiff", 6)
    for exif in ("apply", "ignore", "auto"):
        for read in (ImageStore(tmp_path, exif=exif).read("a.tiff", TALL), GivenPictures([file], exif).read("0"),  # type: ignore[arg-type]
                     GivenPictures([Image.open(file)], exif).read("0")):  # type: ignore[arg-type]  # fmt: skip
            assert np.array_equal(read, as_pillow(file))
    assert GivenPictures([file]).size(0) == TALL


@pytest.mark.parametrize("bad", [0, 9, 65535])
def test_odd_orientations_turn_nothing(tmp_path: Path, bad: int) -> None:
    assert orientation(save(tmp_path / "a.jpg", bad).read_bytes()) == 1
    assert orientation(b"Exif\0\0 nothing") == orientation(b"") == orientation(b"II*\0") == 1


def test_the_reading_that_has_the_files_size_is_taken(tmp_path: Path) -> None:
    file = save(tmp_path / "a.jpg", 6)
    store = ImageStore(tmp_path)
    assert np.array_equal(store.read("a.jpg", WIDE), ImageStore(tmp_path, exif="ignore").read("a.jpg"))
    assert np.array_equal(store.read("a.jpg", TALL), ImageStore(tmp_path, exif="apply").read("a.jpg"))
    assert not store.undecided
    with pytest.raises(
        PoseDataError, match=r"has 40 x 24 pixels, 24 x 40 when turned by its EXIF data, and .* 80 x 48"
    ):
        store.read("a.jpg", (80, 48))
    for explicit in ("apply", "ignore"):
        ImageStore(tmp_path, exif=explicit).read("a.jpg", (80, 48))  # type: ignore[arg-type]
    save(file, None)
    assert store.read("a.jpg", WIDE).shape == (24, 40, 3)
    with pytest.raises(PoseDataError, match=r"has 40 x 24 pixels, and the annotation file says 24 x 40"):
        store.read("a.jpg", TALL)


def test_a_tie_is_turned_counted_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(10):
        save(tmp_path / f"{number}.jpg", 3)
    save(tmp_path / "square.jpg", 6, (24, 24))
    store = ImageStore(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(store.read("0.jpg", WIDE), ImageStore(tmp_path, exif="apply").read("0.jpg"))
        store.read("0.jpg", WIDE)
        assert [record.message.split(":")[0] for record in caplog.records] == ["0.jpg"]
        square = store.read("square.jpg", (24, 24))
        for number in range(1, 10):
            store.read(f"{number}.jpg")  # a size that is not known decides nothing
    assert np.array_equal(square, ImageStore(tmp_path, exif="apply").read("square.jpg"))
    assert len(store.undecided) == 11
    assert "(1 so far; data.exif=ignore" in caplog.text and "(10 so far" in caplog.text
    assert len(caplog.records) == 2


@pytest.mark.parametrize("noted", [6, 8])
@pytest.mark.parametrize("annotated", [WIDE, TALL], ids=["as stored", "as shown"])
def test_joints_are_on_what_they_were_labelled_on(tmp_path: Path, noted: int, annotated: tuple[int, int]) -> None:
    """A joint in the corner of one colour, in pixels of the stored or the shown picture: the crop has it there."""
    file = save(tmp_path / "a.png", noted)
    picture = pixels() if annotated == WIDE else as_pillow(file)
    point = (6.0, 6.0)
    flat = [*point, 2.0] * 17
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, *annotated], "keypoints": flat}
    image = {"id": 1, "file_name": "a.png", "width": annotated[0], "height": annotated[1]}
    persons = annotated_persons({"images": [image], "annotations": [entry]}, COCO, (64, 48))
    batch = PersonCrops(persons, ImageStore(tmp_path), COCO, (64, 48))[(0, 0)]
    x, y = batch["joints"][0, 0].round().int().tolist()
    np.testing.assert_allclose(batch["image"][0, y, x], picture[6, 6], atol=8)


def test_names_in_other_spellings_are_found(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.fromarray(pixels()).save(data, "png")
    folder = tmp_path / "val"
    (folder / "b").mkdir(parents=True)
    composed, apart = (unicodedata.normalize(form, "b/é日本.png") for form in ("NFC", "NFD"))
    assert composed != apart
    (folder / composed).write_bytes(data.getvalue())
    archives = {"plain": "{}", "dotted": "./{}", "deep": "val/{}", "dotted deep": "./val/{}"}
    for name, form in archives.items():
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr(form.format(apart), data.getvalue())
    with zipfile.ZipFile(tmp_path / "unmarked.zip", "w") as archive:  # bytes of UTF-8 without the flag that says so
        archive.writestr(composed.encode().decode("cp437"), data.getvalue())
    roots: list[Any] = [folder, tmp_path / "deep.zip" / "val", tmp_path / "dotted deep.zip" / "val"]
    roots += [tmp_path / f"{name}.zip" for name in ("plain", "dotted", "unmarked")]
    for root in roots:
        for name in (composed, apart, f"./{composed}", f"b/./{composed[2:]}", composed.replace("/", "\\"),
                     os.path.join(os.path.abspath(root), composed)):  # fmt: skip
            assert np.array_equal(ImageStore(root).read(name), pixels()), (root, name)
    for name in ("..\\val\\a.png", "b\\..\\..\\a.png", str(tmp_path / "deep.zip.png"), f"{folder}/../val/{composed}"):
        with pytest.raises(PoseDataError, match="is not inside"):
            ImageStore(folder).read(name)
    (tmp_path / "val2.zip").write_bytes((tmp_path / "dotted deep.zip").read_bytes())
    (tmp_path / "val").rename(tmp_path / "moved")
    (tmp_path / "val2.zip").rename(tmp_path / "val.zip")
    assert ImageStore(tmp_path / "val").read(composed).shape == (24, 40, 3)  # a zip file beside the missing folder
    outside = str(tmp_path / "moved" / composed)
    assert np.array_equal(ImageStore(tmp_path / "plain.zip", allow_outside=True).read(outside), pixels())


def test_sixteen_bits_of_grey_are_not_white(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 24 * 40).astype(np.uint16).reshape(24, 40)
    for suffix in (".png", ".tiff"):
        file = tmp_path / f"a{suffix}"
        Image.fromarray(ramp).save(file)
        with Image.open(file) as opened:
            assert np.asarray(opened.convert("RGB")).mean() > 250  # as Pillow makes it: white
        for image in (file, Image.open(file)):
            read = GivenPictures([image]).read("0")
            assert read.shape == (24, 40, 3) and np.abs(read[..., 0].astype(int) - (ramp >> 8)).max() <= 1
    with pytest.raises(
        PoseDataError, match=r"images\[0\]: not a picture.*a picture of mode 'F', whose numbers have no known range"
    ):
        GivenPictures([Image.fromarray(ramp.astype(np.float32))]).read("0")
