"""The joints of one kind of annotations, checked where they are put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from cycledistill.recipes.reading.plain import is_finite

from ..images import PoseDataError
from .names import readings, sides_of

Reference = Literal["torso", "head", "bbox", "none"]
"""What a distance is measured in by PCK."""

Pairs = tuple[tuple[int, int], ...]


class JointError(PoseDataError):
    """Joints that contradict each other, a file, or a model; the message names the joint set and the field."""


@dataclass(frozen=True)
class JointSet:
    """The joints of one annotation format.

    Attributes:
        name: What it is called.
        names: Joint names in annotation order.
        flip_pairs: Index pairs that change places in a mirrored image.
        sigmas: Per-joint standard deviations of OKS, in units of the square root of the object's area.
        limbs: Index pairs to draw lines between.
        upper_body: Joints of the upper half, for the half-body augmentation, which needs joints of both halves.
        has_area: Whether annotations carry a segmentation area; else OKS takes 0.53 times the box.
        pck: What PCK is measured in: ``"torso"`` (shoulder to the other side's hip), ``"head"`` (its top to the neck),
            ``"bbox"`` (the longer side of the box), or ``"none"``: no PCK.
        parts: Runs of joints that are evaluated by themselves too: name, first joint, joint after the last.
        source: Where the sigmas are from, in words.

    Raises:
        JointError: No joints; names that are missing or there twice; as many sigmas as there are not joints; a pair out
            of range, of one joint, or with a joint of another pair; a PCK that these joints cannot be measured by.

    Example:
        >>> tail = JointSet("tail", ("root", "tip"), flip_pairs=(), sigmas=(0.05, 0.1), limbs=((0, 1),))
        >>> len(tail), tail.flip_order
        (2, (0, 1))
    """

    name: str
    names: tuple[str, ...]
    flip_pairs: Pairs
    sigmas: tuple[float, ...]
    limbs: Pairs = ()
    upper_body: tuple[int, ...] = ()
    has_area: bool = True
    pck: Reference = "bbox"
    parts: tuple[tuple[str, int, int], ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        for field in ("names", "sigmas", "upper_body"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        for field in ("flip_pairs", "limbs", "parts"):
            object.__setattr__(self, field, tuple(map(tuple, getattr(self, field))))
        self._check_names()
        self._check_sigmas()
        self._check_pairs("flip_pairs", self.flip_pairs)
        self._check_pairs("limbs", self.limbs)
        taken = [joint for pair in self.flip_pairs for joint in pair]
        again = next((joint for joint in taken if taken.count(joint) > 1), None)
        self._check(again is None, "flip_pairs", lambda: f"{self.names[again or 0]!r} is in two pairs; one is expected")
        inside = all(self._is_joint(joint) for joint in self.upper_body)
        self._check(
            inside and len(set(self.upper_body)) == len(self.upper_body), "upper_body", lambda: f"{self.upper_body}: "
            f"indices from 0 to {len(self) - 1}, each once, are expected",
        )  # fmt: skip
        for name, start, stop in self.parts:
            fine = 0 <= start < stop <= len(self)
            self._check(fine, "parts", f"{name!r} runs from {start} to {stop}, outside the {len(self)} joints")
        self._check_pck()

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

    @cached_property
    def sides(self) -> tuple[str | None, ...]:
        """``"left"``, ``"right"`` or nothing for each joint, by its name."""
        return tuple(sides_of(self.names))

    @cached_property
    def references(self) -> Pairs:
        """The pairs of joints whose distance PCK is measured in, where it is the torso or the head."""
        return () if self.pck not in ("torso", "head") else reference_pairs(self.names, self.pck)

    def part(self, name: str) -> JointSet:
        """One of `parts` as a joint set of its own, with those limbs that lie in it.

        Raises:
            JointError: No part of this name.
        """
        start, stop = next(((a, b) for each, a, b in self.parts if each == name), (0, 0))
        self._check(stop > 0, "parts", f"no part {name!r} among {[each for each, *_ in self.parts]}")

        def inside(pairs: Pairs) -> Pairs:
            return tuple((a - start, b - start) for a, b in pairs if start <= min(a, b) and max(a, b) < stop)

        return JointSet(
            f"{self.name} {name}",
            self.names[start:stop],
            inside(self.flip_pairs),
            self.sigmas[start:stop],
            inside(self.limbs),
            has_area=self.has_area,
            source=self.source,
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data, as files hold it; `from_dict` reads it."""
        return {field: _lists(value) for field, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> JointSet:
        """A joint set from plain data: fields by name; joints of pairs and ``upper_body`` by index or by name.

        Raises:
            JointError: A field that is unknown, missing or of another kind, or as for `JointSet` itself.
        """
        who = f"joints {data.get('name', '')!r}" if isinstance(data, Mapping) else "joints"
        known = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(data, Mapping):
            raise JointError(f"{who}: {data!r:.80}: fields by name are expected: {', '.join(known)}")
        for field in data:
            if field not in known:
                raise JointError(f"{who}: unknown field {field!r}; known: {', '.join(known)}")
        missing = [field for field in known[:4] if field not in data]
        if missing:
            raise JointError(f"{who}: the field {missing[0]!r} is missing")
        for field in ("names", "flip_pairs", "sigmas", "limbs", "upper_body", "parts"):
            if not isinstance(data.get(field, ()), (list, tuple)):
                raise JointError(f"{who}: {field}={data[field]!r:.80}: a list is expected")
        place = {name: index for index, name in enumerate(data["names"]) if isinstance(name, str)}
        read: dict[str, Any] = dict(data)
        for field in ("flip_pairs", "limbs"):
            if field in data:
                read[field] = [_indices(pair, place, f"{who}: {field}") for pair in data[field]]
        if "upper_body" in data:
            read["upper_body"] = _indices(data["upper_body"], place, f"{who}: upper_body")
        for part in data.get("parts", ()):
            if not (isinstance(part, (list, tuple)) and [type(each) for each in part] == [str, int, int]):
                raise JointError(f"{who}: parts: {part!r:.80}: a name, the first joint and the one after the last")
        return cls(**read)

    def _check_names(self) -> None:
        self._check(isinstance(self.has_area, bool), "has_area", f"{self.has_area!r:.80}; true or false is expected")
        for field in ("name", "source"):
            self._check(isinstance(getattr(self, field), str), field, f"{getattr(self, field)!r:.80}: text is expected")
        self._check(len(self.names) > 0, "names", "there are no joints; a list of their names is expected")
        for index, name in enumerate(self.names):
            fine = isinstance(name, str) and bool(name.strip())
            self._check(fine, "names", f"joint {index} is called {name!r:.80}; text is expected")
            self._check(name not in self.names[:index], "names", f"{name!r} is there twice")

    def _check_sigmas(self) -> None:
        given, number = len(self.sigmas), len(self)
        self._check(given == number, "sigmas", f"{given} for {number} joints; one for each is expected")
        for name, sigma in zip(self.names, self.sigmas, strict=True):
            self._check(
                is_finite(sigma) and sigma > 0, "sigmas", f"{sigma!r:.80} of {name!r}; a number above 0 is expected"
            )

    def _check_pairs(self, field: str, pairs: Sequence[Any]) -> None:
        for pair in pairs:
            fine = len(pair) == 2 and all(map(self._is_joint, pair))
            self._check(fine, field, f"{list(pair)!r:.80}; two indices from 0 to {len(self) - 1} are expected")
            self._check(pair[0] != pair[1], field, f"{list(pair)} is one joint; two are expected")

    def _check_pck(self) -> None:
        known = get_args(Reference)
        self._check(self.pck in known, "pck", f"{self.pck!r:.80}; one of {', '.join(known)} is expected")
        if self.pck in ("torso", "head"):
            needed = {"torso": "shoulders and hips of both sides", "head": "the top of the head and a neck"}[self.pck]
            self._check(len(self.references) > 0, "pck", f"{self.pck!r} needs {needed} among the names; use 'bbox'")

    def _is_joint(self, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(self)

    def _check(self, fine: bool, field: str, said: Any) -> None:
        if not fine:
            raise JointError(f"joints {self.name!r}: {field}: {said() if callable(said) else said}")


def reference_pairs(names: Sequence[str], reference: str) -> Pairs:
    """The joints a torso (two diagonals) or a head lies between, found by name; none where they are not there."""
    place = {each: index for index, each in reversed(list(enumerate(readings(names))))}

    def find(side: str | None, *words: str) -> int | None:
        return place.get((side, words))

    if reference == "torso":
        ends = [(find(one, "shoulder"), find(other, "hip")) for one, other in (("left", "right"), ("right", "left"))]
    else:
        upper = find(None, "neck", "upper")
        ends = [(find(None, "head"), find(None, "neck") if upper is None else upper)]
    pairs = [(a, b) for a, b in ends if a is not None and b is not None]
    return tuple(pairs) if len(pairs) == len(ends) else ()


def _indices(given: Any, place: Mapping[str, int], what: str) -> tuple[Any, ...]:
    """Joints by index, of which some may have been named."""
    if not isinstance(given, (list, tuple)):
        raise JointError(f"{what}: {given!r:.80}: a list of joints is expected")
    for joint in given:
        if isinstance(joint, str) and joint not in place:
            raise JointError(f"{what}: there is no joint {joint!r} among {', '.join(place)}")
    return tuple(place[joint] if isinstance(joint, str) else joint for joint in given)


def _lists(value: Any) -> Any:
    return [_lists(each) for each in value] if isinstance(value, tuple) else value
