"""Skeletons are where the joints are, in the colours of their sides; what is not shown leaves the picture alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycocotools")
pytest.importorskip("cv2")

from cycledistill.integrations.coco.data.images import ImageStore, PoseDataError
from cycledistill.integrations.coco.data.joints import COCO, CROWDPOSE
from cycledistill.integrations.coco.draw import LEFT, MIDDLE, RIGHT, draw_poses, side_by_side, write_picture

GREY = np.full((300, 240, 3), 128, np.uint8)


def pose(**places: tuple[float, float, float]) -> Any:
    points = np.zeros((1, 17, 3))
    for name, place in places.items():
        points[0, COCO.names.index(name)] = place
    return points


@pytest.mark.parametrize("zoom", [1, 2])
def test_joints_and_limbs_are_drawn_where_they_are(zoom: int) -> None:
    given = pose(left_shoulder=(180, 60, 1), left_elbow=(180, 160, 1), right_shoulder=(60, 60, 1), nose=(120, 20, 2))
    drawn = draw_poses(GREY, given, zoom=zoom)
    assert drawn.shape == (300 * zoom, 240 * zoom, 3)
    at = {name: drawn[int((y + 0.5) * zoom), int((x + 0.5) * zoom)] for name, (x, y) in {
        "elbow": (180, 160), "arm": (180, 110), "right": (60, 60), "shoulders": (120, 60), "nose": (120, 20),
        "nothing": (60, 160),
    }.items()}  # fmt: skip
    for name, colour in {"elbow": LEFT, "arm": LEFT, "right": RIGHT, "shoulders": MIDDLE, "nose": MIDDLE}.items():
        np.testing.assert_allclose(at[name], colour, atol=40)
    np.testing.assert_array_equal(at["nothing"], [128, 128, 128])
    assert (GREY == 128).all()


def test_what_scores_too_low_or_is_not_a_number_is_left_out() -> None:
    weak = pose(left_shoulder=(180, 60, 0.2), left_elbow=(180, 160, 0.9))
    drawn = draw_poses(GREY, weak, threshold=0.2)
    assert (drawn[60, 180] == 128).all() and (drawn[110, 180] == 128).all() and not (drawn[160, 180] == 128).all()
    lost = pose(left_elbow=(float("nan"), 10, 1), left_wrist=(1e12, -1e12, 1))
    np.testing.assert_array_equal(draw_poses(GREY, lost), GREY)
    np.testing.assert_array_equal(draw_poses(GREY, np.empty((0, 17, 3))), GREY)


def test_every_limb_of_both_joint_sets_is_drawn() -> None:
    rng = np.random.default_rng(0)
    for joints in (COCO, CROWDPOSE):
        points = np.ones((1, len(joints), 3))
        points[0, :, :2] = rng.uniform(20, 220, (len(joints), 2))
        drawn = draw_poses(GREY, points, joints)
        for start, end in joints.limbs:
            x, y = (points[0, start, :2] + points[0, end, :2]) / 2
            assert not (drawn[round(y), round(x)] == 128).all()


def test_poses_of_another_joint_set_are_refused() -> None:
    with pytest.raises(ValueError, match=r"poses of shape \(1, 14, 3\): \(N, 17, 3\) is expected"):
        draw_poses(GREY, np.zeros((1, 14, 3)), COCO)


def test_a_row_of_pictures() -> None:
    other = GREY // 2
    row = side_by_side([GREY, other], ["truth", "predicted"])
    assert row.shape[1] == 480 and (row[-300:, :240] == GREY).all() and (row[-300:, 240:] == other).all()
    assert (row[:22, :240] < 128).any()
    assert side_by_side([GREY, other]).shape == (300, 480, 3)
    with pytest.raises(ValueError, match="one shape, and a caption for each or none"):
        side_by_side([GREY, other[1:]])
    with pytest.raises(ValueError, match="2 pictures .* with 1 captions"):
        side_by_side([GREY, other], ["one"])


def test_a_picture_comes_back_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    write_picture(picture, tmp_path / "new" / "a.png")
    np.testing.assert_array_equal(ImageStore(tmp_path / "new").read("a.png"), picture)
    with pytest.raises(PoseDataError, match="a.txt: pictures cannot be written as '.txt'"):
        write_picture(picture, tmp_path / "new" / "a.txt")

    def full(self: Path, data: bytes) -> None:
        self.touch()
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_picture(GREY, tmp_path / "new" / "a.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
    np.testing.assert_array_equal(ImageStore(tmp_path / "new").read("a.png"), picture)
