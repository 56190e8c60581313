"""Where a recipe's files may lie: the tree of the guide, zip files beside missing folders, detections in two places."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pycocotools")

from cycledistill.integrations.coco.data.images import ImageStore, PoseDataError
from cycledistill.integrations.coco.recipe import DataSection, load_recipe
from cycledistill.integrations.coco.training.sources import open_training, open_validation
from tests.coco.figures import SIZE, write_dots

GUIDE = Path(__file__).parents[3] / "docs" / "sdpose_coco.md"


def guides_tree() -> list[str]:
    """The lines below ``/data/coco`` in the guide, without their remarks."""
    found = re.search(r"```text\n/data/coco\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return [line.split()[0] for line in found[1].splitlines()]


def write_zip(folder: Path, inside: str) -> None:
    """Replace a folder by a zip file beside it."""
    with zipfile.ZipFile(folder.with_name(f"{folder.name}.zip"), "w") as archive:
        for file in folder.iterdir():
            archive.write(file, inside + file.name)
    shutil.rmtree(folder)


@pytest.mark.parametrize("zipped", ["no", "flat", "folder"])
def test_the_guides_tree_is_found_by_the_defaults(tmp_path: Path, zipped: str) -> None:
    dots, root = write_dots(tmp_path / "dots"), tmp_path / "coco"
    for line in guides_tree():
        place = root / line
        place.parent.mkdir(parents=True, exist_ok=True)
        if line.endswith("/"):
            shutil.copytree(dots / "pictures", place)
            if zipped != "no":
                write_zip(place, f"{place.name}/" if zipped == "folder" else "")
        elif line.startswith("annotations/"):
            shutil.copy(dots / "annotations" / ("train.json" if "train" in line else "val.json"), place)
        else:
            shutil.copy(dots / "detections.json", place)
    data = load_recipe("sdpose_s_v1", {"data.root": str(root)}).data
    training, validation = open_training(data, SIZE), open_validation(data, SIZE)
    assert training.images.read(training.persons[-1].file_name).shape == (80, 100, 3)
    assert validation.images.read(validation.persons[-1].file_name).shape == (80, 100, 3)
    assert {person.score for person in validation.persons} == {0.9}  # the detections, not the annotated boxes


def test_the_folder_of_detections_goes_before_the_root(tmp_path: Path) -> None:
    root = write_dots(tmp_path / "set")
    files = {"annotations/val.json": "val_annotations", "pictures": "val_images", "found/detections.json": "detections"}
    data = DataSection(root=str(root), **{key: name for name, key in files.items()})
    assert len(open_validation(data, SIZE).persons) == 12
    (root / "found").mkdir()
    (root / "found" / "detections.json").write_text(json.dumps([]))
    assert len(open_validation(data, SIZE).persons) == 0
    (root / "found" / "detections.json").unlink()
    (root / "detections.json").unlink()
    with pytest.raises(PoseDataError, match=r"found/detections\.json nor .*set/detections\.json cannot be read.*null"):
        open_validation(data, SIZE)


def test_a_zip_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "val2017.zip").write_text("nothing")
    with pytest.raises(PoseDataError, match=r"val2017\.zip: cannot be read as a zip"):
        ImageStore(tmp_path / "val2017")


def test_with_skip_the_first_picture_may_be_missing(tmp_path: Path) -> None:
    root = write_dots(tmp_path / "set")
    (root / "pictures" / "1.png").unlink()
    names = {"train_annotations": "annotations/train.json", "train_images": "pictures"}
    with pytest.raises(PoseDataError, match=r"1\.png"):
        open_training(DataSection(root=str(root), **names), SIZE)
    skip = DataSection(root=str(root), broken_images="skip", **names)
    assert len(open_training(skip, SIZE).persons) == 12
    for file in (root / "pictures").iterdir():
        file.unlink()
    with pytest.raises(PoseDataError, match=r"1\.png"):
        open_training(skip, SIZE)


def spoilt(root: Path, file: str, change: Callable[[Any], object]) -> None:
    """One of the set's JSON files, changed."""
    data = json.loads((root / file).read_text())
    change(data)
    (root / file).write_text(json.dumps(data))


VAL = {"val_annotations": "annotations/val.json", "val_images": "pictures", "detections": "detections.json"}


@pytest.mark.parametrize(
    ("file", "change", "options", "says"),
    [
        ("detections.json", lambda found: [each.update(category_id=0) for each in found], {},
         r"^data\.detections detections\.json: none of 12 detections can be used: 12 of .* 0.*data\.joints='coco'"),
        ("detections.json", lambda found: None, {"detection_threshold": 0.95},
         r"12 that score below 0\.95 .*data\.detection_threshold=0\.95"),
        ("detections.json", lambda found: [each.update(bbox=[0.1, 0.1, 0.3, 0.9]) for each in found], {},
         r"^data\.detections detections\.json: detections: none of the numbers of 12 boxes is above 1"),
        ("annotations/val.json", lambda data: None, {"categories": ["horse"]},
         r"^data\.val_annotations .*: the file has no 'horse', but 1 .*data\.categories=\['horse'\]"),
        ("annotations/val.json", lambda data: [each.update(width=200, height=160) for each in data["images"]], {},
         r"^data\.val_images: .*1\.png: the picture has 100 x 80 pixels, and the annotation file says 200 x 160.*exif"),
    ],
    ids=["category", "score", "fractions", "categories", "sizes"],
)  # fmt: skip
def test_errors_name_the_key_to_change(
    tmp_path: Path, file: str, change: Callable[[Any], object], options: dict[str, Any], says: str
) -> None:
    root = write_dots(tmp_path / "set")
    assert len(open_validation(DataSection(root=str(root), **VAL), SIZE).persons) == 12
    spoilt(root, file, change)
    with pytest.raises(PoseDataError, match=says):
        open_validation(DataSection(root=str(root), **VAL, **options), SIZE)


def test_pictures_of_a_phone_are_read_as_they_were_annotated(tmp_path: Path) -> None:
    """Every picture is stored sideways; the sizes in the file are those of the upright ones."""
    root = write_dots(tmp_path / "set")
    upright = ImageStore(root / "pictures").read("1.png")
    exif = Image.Exif()
    exif[0x0112] = 8
    for file in (root / "pictures").iterdir():
        Image.open(file).transpose(Image.Transpose.ROTATE_270).save(file, exif=exif)
    names = {"train_annotations": "annotations/train.json", "train_images": "pictures"}
    for choice, same in (("auto", True), ("apply", True), ("ignore", False)):
        split = open_training(DataSection(root=str(root), exif=choice, **names), SIZE)  # type: ignore[arg-type]
        read = split.images.read("1.png", split.persons[0].size)
        assert np.array_equal(read, upright) == same


def test_categories_reach_both_parts(tmp_path: Path) -> None:
    root = write_dots(tmp_path / "set")
    for part in ("train", "val"):
        spoilt(root, f"annotations/{part}.json", lambda data: [
            entry.update(category_id="cow" if index % 3 else 7) for index, entry in enumerate(data["annotations"])
        ])  # fmt: skip
    names = {"train_annotations": "annotations/train.json", "train_images": "pictures", "detections": None}
    data = DataSection(root=str(root), **{**VAL, **names})  # type: ignore[arg-type]
    assert len(open_training(data, SIZE).persons) == len(open_validation(data, SIZE).persons) == 12
    data.categories = ["cow"]
    training, validation = open_training(data, SIZE), open_validation(data, SIZE)
    assert len(training.persons) == len(validation.persons) == 8
    assert {person.category_id for person in validation.persons} == {"cow"}
    assert len(validation.truth.annotations.counted()) == 8
