"""Joint sets: names, left/right pairs, OKS sigmas and limbs of COCO and CrowdPose persons."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class JointSet:
    """The joints of one annotation format.

    Attributes:
        name: What configs call it.
        names: Joint names in annotation order.
        flip_pairs: Index pairs that change places in a mirrored image.
        sigmas: Per-joint standard deviations of OKS, in units of the square root of the object's area.
        limbs: Index pairs to draw lines between.
        upper_body: Joints of the upper half, for the half-body augmentation.
        has_area: Whether annotations carry a segmentation area; else OKS takes 0.53 times the box.
    """

    name: str
    names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]
    limbs: tuple[tuple[int, int], ...]
    upper_body: tuple[int, ...]
    has_area: bool = True

    def __len__(self) -> int:
        """The number of joints."""
        return len(self.names)

    @cached_property
    def flip_order(self) -> tuple[int, ...]:
        """Index of the joint that takes each place in a mirrored image."""
        order = list(range(len(self.names)))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return tuple(order)

    @cached_property
    def lower_body(self) -> tuple[int, ...]:
        """The joints that are not of the upper half."""
        return tuple(index for index in range(len(self.names)) if index not in self.upper_body)


_PAIRS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")

COCO = JointSet(
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
)  # fmt: skip

CROWDPOSE = JointSet(
    name="crowdpose",
    names=(*(f"{side}_{part}" for part in _PAIRS for side in ("left", "right")), "top_head", "neck"),
    flip_pairs=tuple((left, left + 1) for left in range(0, 12, 2)),
    sigmas=tuple(sigma / 1000 for sigma in (79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89, 79, 79)),
    limbs=(
        (10, 8), (8, 6), (11, 9), (9, 7), (6, 7), (0, 6), (1, 7), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (12, 13),
        (13, 0), (13, 1),
    ),
    upper_body=(0, 1, 2, 3, 4, 5, 12, 13),
    has_area=False,
)  # fmt: skip

JOINT_SETS = {joints.name: joints for joints in (COCO, CROWDPOSE)}
