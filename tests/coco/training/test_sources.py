"""Where a recipe's files may lie: the tree of the guide, zip files beside missing folders, detections in two places."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest

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
