"""Person crops: geometry against OpenCV on mirrored pictures, statistics of the draws, order, and bad input."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from cycledistill.integrations.coco.data.annotations import annotated_persons, box_to_crop, detected_persons, read_json
from cycledistill.integrations.coco.data.augment import NO_AUGMENTATION, Augmentation, crop_matrix, draw_crop
from cycledistill.integrations.coco.data.dataset import (
    MEAN,
    STD,
    PersonCrops,
    PictureBatches,
    crop_loader,
    prepare_images,
)
from cycledistill.integrations.coco.data.images import ImageStore, PoseDataError
from cycledistill.integrations.coco.data.joints import COCO, CROWDPOSE
from cycledistill.integrations.coco.losses.targets import heatmap_targets
from cycledistill.recipes.errors import OutageError

SIZE = (64, 48)
DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "coco"


def annotations(pictures: int = 4, persons: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    images, entries = [], []
    for number in range(1, pictures + 1):
        images.append({"id": number, "file_name": f"{number}.png", "width": 120, "height": 100})
        for _ in range(persons):
            x, y = rng.uniform(0, 50, 2)
            points = np.concatenate([rng.uniform((x, y), (x + 50, y + 45), (17, 2)), np.full((17, 1), 2.0)], 1)
            box = {"bbox": [float(x), float(y), 50.0, 45.0], "area": 2000.0, "keypoints": points.ravel().tolist()}
            entries.append({"id": len(entries) + 1, "image_id": number, "category_id": 1, **box})
    return {"images": images, "annotations": entries}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    for number in range(1, 5):
        coarse = rng.integers(0, 255, (10, 12, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), cv2.resize(coarse, (120, 100), interpolation=cv2.INTER_CUBIC))
    return tmp_path


def crops(folder: Path, augmentation: Augmentation = NO_AUGMENTATION, **options: Any) -> PersonCrops:
    persons = annotated_persons(annotations(), COCO, SIZE)
    return PersonCrops(persons, ImageStore(folder), COCO, SIZE, augmentation, **options)


@pytest.mark.parametrize("rotation", [0.0, 30.0, -75.0])
def test_the_matrix_maps_the_turned_box_onto_the_input(rotation: float) -> None:
    center, scale = np.array([40.0, 30.0]), np.array([0.3, 0.4])
    matrix = crop_matrix(center, scale, rotation, SIZE)
    turn = np.deg2rad(rotation)
    axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    for corner in ([-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [0.0, 0.0]):
        source = center + axes @ (np.array(corner) * scale * 200)
        want = (np.array(corner) + 0.5) * np.array([SIZE[1], SIZE[0]])
        np.testing.assert_allclose(matrix[:, :2] @ source + matrix[:, 2], want, atol=1e-9)


def test_a_folded_flip_equals_mirroring_the_picture(folder: Path) -> None:
    data = crops(folder)
    picture = data.images.read("1.png")
    person = data.persons[0]
    always, never = Augmentation(flip_probability=1.0), Augmentation(flip_probability=0.0)
    crop = draw_crop(person, 120, COCO, SIZE, always, np.random.default_rng(3))
    mirrored = person.__class__(
        **{
            **vars(person),
            "center": np.array([119 - person.center[0], person.center[1]], np.float32),
            "joints": np.stack([119 - person.joints[:, 0], person.joints[:, 1]], 1)[list(COCO.flip_order)],
        }
    )
    plain = draw_crop(mirrored, 120, COCO, SIZE, never, _shift_mirrored(np.random.default_rng(3)))
    np.testing.assert_allclose(crop.joints, plain.joints, atol=1e-3)
    got = cv2.warpAffine(picture, crop.matrix, (SIZE[1], SIZE[0])).astype(int)
    want = cv2.warpAffine(np.ascontiguousarray(picture[:, ::-1]), plain.matrix, (SIZE[1], SIZE[0])).astype(int)
    assert np.abs(got - want).max() <= 8  # OpenCV rounds positions to 1/32 pixel
    assert np.abs(got - want).mean() < 0.5


def _shift_mirrored(rng: np.random.Generator) -> Any:
    """The same draws, with the sideways move of the crop mirrored along with the picture."""

    class Mirrored:
        def __getattr__(self, name: str) -> Any:
            return getattr(rng, name)

        def uniform(self, low: float, high: float, number: int) -> np.ndarray:
            return rng.uniform(low, high, number) * np.array([-1, 1])

    return Mirrored()


def test_joints_move_with_the_picture(tmp_path: Path) -> None:
    picture = np.zeros((100, 120, 3), np.uint8)
    cv2.circle(picture, (62, 41), 2, (255, 255, 255), -1)
    cv2.imwrite(str(tmp_path / "1.png"), picture)
    flat = np.zeros((17, 3))
    flat[0] = (62, 41, 2)
    entry = {"id": 1, "image_id": 1, "bbox": [40, 20, 40, 50], "area": 2000, "keypoints": flat.ravel().tolist()}
    listing = {"images": [{"id": 1, "file_name": "1.png", "width": 120, "height": 100}], "annotations": [entry]}
    persons = annotated_persons(listing, COCO, SIZE)
    data = PersonCrops(persons, ImageStore(tmp_path), COCO, SIZE, Augmentation())
    for epoch in range(20):
        batch = data[(epoch, 0)]
        joint = int(np.flatnonzero(batch["visible"][0])[0])
        x, y = batch["joints"][0, joint].tolist()
        bright = batch["image"][0, :, :, 0].to(torch.float32)
        if 4 < x < SIZE[1] - 5 and 4 < y < SIZE[0] - 5:
            rows, columns = torch.nonzero(bright > 60, as_tuple=True)
            assert abs(float(columns.float().mean()) - x) < 1.0
            assert abs(float(rows.float().mean()) - y) < 1.0


def test_draws_have_the_published_statistics() -> None:
    person = annotated_persons(annotations(), COCO, (256, 192))[0]
    found = [
        draw_crop(person, 120, COCO, (256, 192), Augmentation(half_body_probability=0.0), np.random.default_rng(seed))
        for seed in range(6000)
    ]
    turns = np.array([c.matrix[:, :2] for c in found], dtype=np.float64)
    flipped = np.linalg.det(turns) < 0
    turns[flipped, :, 0] *= -1
    angles = np.rad2deg(np.arctan2(turns[:, 0, 1], turns[:, 0, 0]))
    factors = 192 / (np.sqrt(np.linalg.det(turns))) / (person.scale[0] * 200)
    assert flipped.mean() == pytest.approx(0.5, abs=0.02)
    assert factors.std() == pytest.approx(0.251, abs=0.01)
    assert (np.abs(angles) > 1e-4).mean() == pytest.approx(0.6, abs=0.02)
    assert angles[np.abs(angles) > 1e-4].std() == pytest.approx(43.2, abs=1.0)
    assert np.abs(angles).max() <= 90.0 + 1e-6


def test_half_bodies_prefer_the_upper_half() -> None:
    person = annotated_persons(annotations(), COCO, SIZE)[0]
    only = Augmentation(0, 0, 0, 8, 1.0, 0, 0, 0)
    upper = 0
    for seed in range(1000):
        matrix = draw_crop(person, 120, COCO, SIZE, only, np.random.default_rng(seed)).matrix
        middle = np.linalg.solve(matrix[:, :2], np.array([SIZE[1] / 2, SIZE[0] / 2]) - matrix[:, 2])
        upper += bool(np.allclose(middle, person.joints[list(COCO.upper_body)].mean(0), atol=1e-2))
    assert upper / 1000 == pytest.approx(0.69, abs=0.04)


def test_of_joints_without_an_upper_half_no_half_is_cut_out() -> None:
    whole = dataclasses.replace(COCO, upper_body=())
    person = annotated_persons(annotations(), whole, SIZE)[0]
    always, never = (Augmentation(half_body_probability=chance) for chance in (1.0, 0.0))
    for seed in range(20):
        cut, left = (draw_crop(person, 120, whole, SIZE, each, np.random.default_rng(seed)) for each in (always, never))
        np.testing.assert_array_equal(cut.matrix, left.matrix)


def test_workers_and_neighbours_change_no_crop(folder: Path) -> None:
    data = crops(folder, Augmentation(), seed=7)
    seen = []
    for workers, size in ((0, 4), (2, 4), (0, 5)):
        batches = PictureBatches(data.persons, size, shuffle=True, seed=7)
        batches.epoch = 3
        rows = {}
        for batch in crop_loader(data, batches, workers):
            for row, person in enumerate(batch["person"].tolist()):
                rows[person] = (batch["image"][row].clone(), batch["joints"][row].clone())
        seen.append(rows)
    assert len(seen[0]) == len(data)
    for other in seen[1:]:
        assert all(torch.equal(seen[0][p][i], other[p][i]) for p in seen[0] for i in (0, 1))


def test_epochs_differ_in_order_and_crops(folder: Path) -> None:
    data = crops(folder, Augmentation())
    batches = PictureBatches(data.persons, 4, shuffle=True)
    first = list(batches)
    batches.epoch = 1
    assert [person for keys in first for _, person in keys] != [person for keys in batches for _, person in keys]
    assert not torch.equal(data[(0, 0)]["joints"], data[(1, 0)]["joints"])


def test_each_picture_of_a_batch_is_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = crops(folder)
    read, names = data.images.read, []
    monkeypatch.setattr(data.images, "read", lambda name, size: names.append(name) or read(name, size))
    for keys in PictureBatches(data.persons, 12, shuffle=True):
        data.__getitems__(keys)
    assert sorted(names) == ["1.png", "2.png", "3.png", "4.png"]


@pytest.mark.parametrize("size", [2, 5])
def test_processes_share_an_epoch(size: int) -> None:
    persons = annotated_persons(annotations(), COCO, SIZE)
    ranks = [list(PictureBatches(persons, size, shuffle=True, rank=rank, world_size=2)) for rank in range(2)]
    assert len(ranks[0]) == len(ranks[1])
    assert {len(keys) for keys in ranks[0] + ranks[1]} == {size}
    assert {person for keys in ranks[0] + ranks[1] for _, person in keys} == set(range(12))


def test_an_epoch_can_go_on_in_the_middle() -> None:
    persons = annotated_persons(annotations(), COCO, SIZE)
    batches = PictureBatches(persons, 4, shuffle=True)
    whole = list(batches)
    batches.start = 2
    assert list(batches) == whole[2:]


def test_images_are_normalised_and_targets_fit(folder: Path) -> None:
    batch = crops(folder).__getitems__([(0, 0), (0, 1)])
    images = prepare_images(batch["image"])
    want = (batch["image"].float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    assert images.shape == (2, 3, *SIZE)
    torch.testing.assert_close(images, want.permute(0, 3, 1, 2), atol=1e-6, rtol=1e-5)
    maps, weights = heatmap_targets(batch["joints"], batch["visible"], SIZE, (16, 12))
    assert maps.shape == (2, 17, 16, 12)
    assert weights.shape == (2, 17)


def test_a_zip_file_serves_like_its_folder(folder: Path) -> None:
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for number in range(1, 5):
            archive.write(folder / f"{number}.png", f"val/{number}.png")
    zipped = ImageStore(folder / "all.zip" / "val")
    assert np.array_equal(zipped.read("2.png"), ImageStore(folder).read("2.png"))


def test_detections_become_persons() -> None:
    found = [{"image_id": 2, "category_id": 1, "bbox": [10, 10, 30, 40], "score": 0.7}]
    person = detected_persons(found, annotations(), COCO, SIZE)[0]
    assert (person.file_name, person.score) == ("2.png", 0.7)
    assert person.area == pytest.approx(30 * 40 * 1.25**2)
    assert detected_persons([], annotations(), COCO, SIZE) == []


def test_a_box_is_widened_to_the_input() -> None:
    center, scale = box_to_crop([10, 20, 100, 40], (256, 192))
    np.testing.assert_allclose(center, [60, 40])
    np.testing.assert_allclose(scale * 200, [125, 125 * 256 / 192], rtol=1e-6)


def edited(change: Any) -> dict[str, Any]:
    listing = annotations()
    change(listing)
    return listing


def _set(key: str, value: Any) -> Any:
    return lambda listing: [entry.__setitem__(key, value) for entry in listing["annotations"]]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: annotated_persons([], COCO, SIZE), "COCO keypoint file"),
        (lambda: annotated_persons(edited(lambda a: a.pop("annotations")), COCO, SIZE), "no list 'annotations'"),
        (lambda: annotated_persons(annotations(), CROWDPOSE, SIZE), "42 are expected"),
        (
            lambda: annotated_persons(edited(_set("bbox", [5, 5, 0, 0])), COCO, SIZE),
            "none of 12 boxes has a size .5, 5, 0, 0",
        ),
        (lambda: annotated_persons(edited(_set("bbox", [500, 5, 9, 9])), COCO, SIZE), "no box inside the picture': 12"),
        (lambda: annotated_persons(edited(_set("keypoints", [0] * 51)), COCO, SIZE), "no labelled joint': 12"),
        (
            lambda: annotated_persons(edited(_set("keypoints", [float("nan")] * 51)), COCO, SIZE),
            "no plain list of finite numbers",
        ),
        (lambda: annotated_persons(edited(_set("image_id", 99)), COCO, SIZE), "image 99, which is not listed"),
        (
            lambda: detected_persons([{"image_id": 9, "bbox": [0, 0, 5, 5], "score": 1}], annotations(), COCO, SIZE),
            "belong to another split",
        ),
        (lambda: detected_persons([{"image_id": 1, "score": 1}], annotations(), COCO, SIZE), "no 'bbox'"),
        (lambda: ImageStore("no/such/place"), "no folder and no zip"),
    ],
)
def test_bad_input_is_named(call: Any, says: str) -> None:
    with pytest.raises(PoseDataError, match=says):
        call()


def test_broken_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": [')
    with pytest.raises(PoseDataError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_a_broken_picture_stops_or_is_skipped_and_counted(folder: Path) -> None:
    (folder / "2.png").write_bytes(b"not a picture")
    (folder / "3.png").unlink()
    keys = [(0, index) for index in range(12)]
    with pytest.raises(PoseDataError, match=r"2\.png: not a picture"):
        crops(folder).__getitems__(keys)
    with pytest.raises(PoseDataError, match=r"3\.png: there is no such file"):
        crops(folder).__getitems__(keys[6:])
    data = crops(folder, broken="skip")
    batch = data.__getitems__(keys)
    assert (data.skipped, len(batch["image"])) == (6, 6)
    assert batch["person"].tolist() == [0, 1, 2, 9, 10, 11]


def test_a_storage_that_fails_is_not_skipped_picture_by_picture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    data = crops(folder, broken="skip")
    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(OutageError, match="cannot be read now .*Input/output error.*look after the storage"):
        data.__getitems__([(0, 0), (0, 1)])


def test_a_batch_of_broken_pictures_is_replaced_by_the_next_that_can_be_read(folder: Path) -> None:
    for name in ("2.png", "3.png"):
        (folder / name).write_bytes(b"not a picture")
    keys = [(1, 3), (1, 4), (1, 5), (1, 6)]  # persons of pictures 2 and 3
    assert crops(folder, broken="skip").__getitems__(keys)["person"].tolist() == []
    data = crops(folder, Augmentation(), broken="skip", refill=True)
    batch = data.__getitems__(keys)
    assert batch["person"].tolist() == [9, 10, 11, 0] and batch["image"].shape[0] == 4
    assert (batch["skipped"], data.skipped) == (4, 4)
    assert torch.equal(batch["image"], data.__getitems__([(1, person) for person in (9, 10, 11, 0)])["image"])
    for name in ("1.png", "4.png"):
        (folder / name).unlink()
    assert data.__getitems__(keys)["person"].tolist() == []


@pytest.mark.skipif(not DATA.is_dir(), reason="the COCO pictures are not beside this checkout")
def test_real_pictures_go_through() -> None:
    archive = DATA / "coco_person_free.zip"
    with zipfile.ZipFile(archive) as file:
        listing = json.loads(file.read("annotations/person_keypoints_val2017.json"))
    persons = annotated_persons(listing, COCO, (256, 192))
    data = PersonCrops(persons, ImageStore(archive / "val2017"), COCO, augmentation=Augmentation())
    seen = sum(len(b["image"]) for b in crop_loader(data, PictureBatches(persons, 16, shuffle=True)))
    assert seen == len(persons) > 10
