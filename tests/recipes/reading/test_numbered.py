"""Numbers of pictures, told by their names."""

from __future__ import annotations

import pytest

from cycledistill.recipes.reading.numbered import natural, picture_numbers


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["front/cam2_000031.jpg", "front/cam2_000033.jpg"], [31, 33]),
        (["000031_cam1.jpg", "000032_cam1.jpg"], [31, 32]),  # the last number is the camera's
        (["s_01_act_02_subact_01_ca_01_000001.jpg", "s_01_act_02_subact_01_ca_01_000006.jpg"], [1, 6]),
        (["s_01_act_02_ca_01_000041.jpg"], [41]),  # one picture: nothing differs, and counters come last
        (["0001_1638291033.png", "0002_1638291071.png", "0003_1638291111.png"], [1, 2, 3]),  # and the time
        (["1638291033_0001.png", "1638291071_0002.png"], [1, 2]),
        (["take1_0001.png", "take1_0002.png", "take2_0001.png"], None),
        (["9.jpg", "10.jpg", "9.jpg"], [9, 10, 9]),  # two persons in a picture
        (["frame.1", "frame.2"], [1, 2]),
        (["a.mp4_1.jpg", "a.mp4_2.jpg"], [1, 2]),
        (["left_1.png", "right_2.png"], None),
        (["x.png"], None),
        (["x.png", "1.png"], None),
        ([], None),
    ],
)
def test_numbers_by_which_names_count(names: list[str], numbers: list[int] | None) -> None:
    assert picture_numbers(names) == numbers


def test_names_are_sorted_by_their_numbers() -> None:
    assert sorted(["a10b2", "a9b3", "a9b20"], key=natural) == ["a9b3", "a9b20", "a10b2"]
