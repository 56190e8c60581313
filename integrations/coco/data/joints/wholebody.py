"""The joints of COCO and of COCO-WholeBody, which are COCO's with feet, a face and two hands.

Source: COCO (ECCV 2014) and its evaluation; COCO-WholeBody (Jin et al., ECCV 2020) and its evaluation, where all sigmas
are from.
"""

from __future__ import annotations

from .joint_set import JointSet, Pairs

_PAIRS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")

BODY = JointSet(
    name="coco",
    names=(
        "nose",
        *(f"{side}_{part}" for part in ("eye", "ear") for side in ("left", "right")),
        *(f"{side}_{part}" for part in _PAIRS for side in ("left", "right")),
    ),
    flip_pairs=tuple((left, left + 1) for left in range(1, 17, 2)),
    sigmas=tuple(
        sigma / 1000 for sigma in (26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89)
    ),
    limbs=(
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
        (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ),
    upper_body=tuple(range(11)),
    pck="torso",
    source="COCO's evaluation",
)  # fmt: skip

_SOURCE = "COCO-WholeBody's evaluation"
_FOOT_SIGMAS = (68, 66, 66, 92, 94, 94)
_FACE_SIGMAS = (
    42, 43, 44, 43, 40, 35, 31, 25, 20, 23, 29, 32, 37, 38, 43, 41, 45, 13, 12, 11, 11, 12, 12, 11, 11, 13, 15, 9, 7, 7,
    7, 12, 9, 8, 16, 10, 17, 11, 9, 11, 9, 7, 13, 8, 11, 12, 10, 34, 8, 8, 9, 8, 8, 7, 10, 8, 9, 9, 9, 7, 7, 8, 11, 8,
    8, 8, 10, 8,
)  # fmt: skip
_HAND_SIGMAS = (29, 22, 35, 37, 47, 26, 25, 24, 35, 18, 24, 22, 26, 17, 21, 21, 32, 20, 19, 22, 31)

_FINGERS = tuple(
    f"{finger}{joint}"
    for finger in ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
    for joint in range(1, 5)
)
_FACE_PAIRS = (
    *((left, 16 - left) for left in range(8)),  # the jaw, from ear to ear
    *((left, 43 - left) for left in range(17, 22)),  # brows
    (31, 35), (32, 34),  # under the nose
    (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46),  # eyes
    (48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67),  # lips
)  # fmt: skip


def _thousandths(values: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(value / 1000 for value in values)


def _moved(pairs: Pairs, by: int) -> Pairs:
    return tuple((a + by, b + by) for a, b in pairs)


def _line(start: int, stop: int) -> Pairs:
    return tuple((each, each + 1) for each in range(start, stop - 1))


_FACE_LIMBS: Pairs = (
    *_line(0, 17), *_line(17, 22), *_line(22, 27), *_line(27, 31), *_line(31, 36),
    *_line(36, 42), (41, 36), *_line(42, 48), (47, 42), *_line(48, 60), (59, 48), *_line(60, 68), (67, 60),
)  # fmt: skip
_HAND_LIMBS: Pairs = tuple(
    limb for first in range(1, 21, 4) for limb in ((0, first), *_line(first, first + 4))
)  # fmt: skip

FACE = JointSet(
    name="wholebody_face",
    names=tuple(f"face-{index}" for index in range(68)),
    flip_pairs=_FACE_PAIRS,
    sigmas=_thousandths(_FACE_SIGMAS),
    limbs=_FACE_LIMBS,
    has_area=False,
    source=_SOURCE,
)
"""The 68 points of a face, in the order of 300-W."""

HAND = JointSet(
    name="wholebody_hand",
    names=("wrist", *_FINGERS),
    flip_pairs=(),  # a mirrored left hand is a right hand, joint by joint
    sigmas=_thousandths(_HAND_SIGMAS),
    limbs=_HAND_LIMBS,
    has_area=False,
    source=_SOURCE,
)
"""The 21 joints of one hand, a left or a right one."""

WHOLEBODY = JointSet(
    name="wholebody",
    names=(
        *BODY.names,
        *(f"{side}_{part}" for side in ("left", "right") for part in ("big_toe", "small_toe", "heel")),
        *FACE.names,
        *(f"{side}_{part}" for side in ("left", "right") for part in ("hand_root", *_FINGERS)),
    ),
    flip_pairs=(
        *BODY.flip_pairs,
        *((foot, foot + 3) for foot in (17, 18, 19)),
        *_moved(FACE.flip_pairs, 23),
        *((joint, joint + 21) for joint in range(91, 112)),
    ),
    sigmas=(*BODY.sigmas, *_thousandths(_FOOT_SIGMAS), *FACE.sigmas, *HAND.sigmas, *HAND.sigmas),
    limbs=(
        *BODY.limbs, (15, 17), (15, 18), (15, 19), (16, 20), (16, 21), (16, 22), *_moved(FACE.limbs, 23), (9, 91),
        *_moved(HAND.limbs, 91), (10, 112), *_moved(HAND.limbs, 112),
    ),
    upper_body=(*BODY.upper_body, *range(23, 133)),
    pck="torso",
    parts=(("body", 0, 17), ("feet", 17, 23), ("face", 23, 91), ("lefthand", 91, 112), ("righthand", 112, 133)),
    source=_SOURCE,
)  # fmt: skip
"""The 133 joints of COCO-WholeBody: those of the body, six of the feet, a face, a left and a right hand."""
