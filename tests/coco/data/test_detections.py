"""Detections of persons: filtered, of a list of pictures, outside their picture."""

from __future__ import annotations

import logging

import pytest

pytest.importorskip("pycocotools")

from cycledistill.integrations.coco.data.annotations import detected_persons
from cycledistill.integrations.coco.data.images import PoseDataError
from cycledistill.integrations.coco.data.joints import COCO
from tests.coco.data.tool_files import SIZE, animals, detections, file


def test_detections_filtered_to_nothing_are_refused_with_the_reasons() -> None:
    data = file()
    with pytest.raises(PoseDataError, match=r"none of 6 detections can be used: 6 of category 0 \(what counts: 1\)"):
        detected_persons(detections(data, category_id=0), data, COCO, SIZE)
    mixed = [*detections(data, score=0.1), *detections(data, category_id="dog")]
    with pytest.raises(PoseDataError, match=r"none of 12 .*: 6 that score below 0.3, 6 of category 'dog'"):
        detected_persons(mixed, data, COCO, SIZE, 0.3)
    assert len(detected_persons([*mixed, *detections(data)], data, COCO, SIZE, 0.3)) == 6
    animals(data)
    assert {person.category_id for person in detected_persons(detections(data), data, COCO, SIZE)} == set(range(10, 16))


def test_detections_for_a_list_of_pictures_alone() -> None:
    """COCO's test-dev is published without annotations."""
    data = file()
    found = detections(data)
    del data["annotations"]
    assert [person.file_name for person in detected_persons(found, data, COCO, SIZE)][:3] == ["1.jpg", "1.jpg", "2.jpg"]


def test_detections_outside_their_picture_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    data = file()
    found = detections(data)
    found[0]["bbox"], found[1]["bbox"] = [700, 10, 50, 50], [-60, 10, 50, 50]
    with caplog.at_level(logging.INFO):
        assert len(detected_persons(found, data, COCO, SIZE)) == 4
    assert "2 of 6 detections left out: outside their picture" in caplog.text
