"""Joint sets that users bring: from an annotation file's category, from a YAML file, from fields in a recipe."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cycledistill.recipes.config.overrides import did_you_mean
from cycledistill.recipes.reading.guard import FILE, reading
from cycledistill.recipes.reading.texts import parse_yaml

from .category_list import Category, asked_categories, in_words
from .joint_set import JointError, JointSet, Pairs, reference_pairs
from .known import COCO, JOINT_SETS
from .names import first_difference, mirror_names, readings, sides_of
from .wholebody import BODY, FACE, HAND, WHOLEBODY

_logger = logging.getLogger(__name__)

MEAN_SIGMA = sum(COCO.sigmas) / len(COCO)
"""Of joints whose spread nobody measured: the mean of COCO's, 0.067."""

_UPPER = {
    "nose",
    "eye",
    "ear",
    "head",
    "neck",
    "shoulder",
    "elbow",
    "wrist",
    "hand",
    "thorax",
    "chest",
    "chin",
    "mouth",
}
_LOWER = {"pelvis", "hip", "knee", "ankle", "foot", "heel", "toe"}


def joints_from(
    given: str | Mapping[str, Any], annotations: Any = None, categories: Sequence[int | str] | None = None
) -> JointSet:
    """The joint set that ``data.joints`` means.

    Args:
        given: The name of a joint set; ``"auto"``: what the annotation file's category says; a YAML file; or fields of
            `JointSet` by name, as such a file holds them. Beside them may stand ``preset``, a name of a joint set or
            ``auto``, which the fields change. What neither says follows from the names: pairs of left and right, the
            upper half, the reference of PCK; sigmas become the mean of COCO's, which a warning says.
        annotations: The annotation file's contents, where they are asked for: without names and without a preset.
        categories: Of these, ids or names, the joints are; default: of all that have any, which must agree.

    Raises:
        JointError: An unknown name, a file that cannot be read, fields that contradict each other; or the file's
            categories have no joints, or not the same ones.

    Example:
        >>> joints_from("auto", {"categories": [{"id": 1, "name": "claw", "keypoints": ["l_tip", "r_tip"]}]}).flip_pairs
        ((0, 1),)
    """
    if isinstance(given, str) and given in JOINT_SETS:
        return JOINT_SETS[given]
    fields = joint_fields(given)
    preset = fields.pop("preset", "auto")
    if preset in JOINT_SETS:
        return JointSet.from_dict(JOINT_SETS[preset].to_dict() | fields)
    if preset != "auto":
        raise JointError(f"joints: preset={preset!r:.80}: {_known(preset)}")
    if "names" in fields:
        return _completed({"name": "own"} | fields)
    if annotations is None:
        raise JointError(f"joints {given!r:.80} are read from an annotation file, or give their names")
    return _completed(_of_category(_category(annotations, categories)) | fields)


def needs_file(given: str | Mapping[str, Any]) -> bool:
    """Whether `joints_from` has to look into a file, be it an annotation file or a YAML file.

    Example:
        >>> needs_file("coco"), needs_file("auto"), needs_file({"preset": "coco", "pck": "bbox"})
        (False, True, False)
    """
    if isinstance(given, str):
        return given not in JOINT_SETS
    return "names" not in given and given.get("preset", "auto") == "auto"


def is_joints(given: str) -> bool:
    """Whether a text can mean joints: a name, ``auto``, or the name of a YAML file."""
    return given in JOINT_SETS or given == "auto" or Path(given).suffix in (".yaml", ".yml")


def other_than(names: Sequence[Any], joints: JointSet) -> str:
    """Where the names that an annotation file's category lists are not those of joints, in words; empty where they are.

    Names are compared without their style: ``Left Hip`` is ``hip_l``, and numbers are no names. COCO-WholeBody's files
    list those of the body alone.

    Example:
        >>> other_than(["eye_l", "eye_r"], JointSet("bug", ("left_eye", "tail"), (), (0.1, 0.1)))
        "it has 'eye_r' as joint 1, where bug has 'tail'"
    """
    listed = [str(name) for name in names]
    whole = joints.names in (WHOLEBODY.names, HAND.names, FACE.names)
    at = first_difference(listed, joints.names)
    if at is None or (whole and first_difference(listed, BODY.names) is None):
        return ""
    if len(listed) != len(joints):
        return f"it has {len(listed)} joints ({', '.join(listed[:4])}, ...), and {joints.name} has {len(joints)}"
    return f"it has {listed[at]!r} as joint {at}, where {joints.name} has {joints.names[at]!r}"


def joint_fields(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a joint set as ``data.joints`` gives them: as they are, or read from a YAML file.

    Raises:
        JointError: An unknown name, or a file that cannot be read.
    """
    if isinstance(given, Mapping):
        return dict(given)
    if given in JOINT_SETS or given == "auto":
        return {"preset": given}
    if not is_joints(given):
        raise JointError(f"joints {given!r:.80}: {_known(given)}")
    if not Path(given).is_file():
        raise JointError(f"{given}: there is no such file; a YAML file with the names of joints is expected")
    with reading(given, FILE, JointError):
        text = Path(given).read_text(encoding="utf-8")
    fields = parse_yaml(text, given, JointError)
    if not isinstance(fields, dict):
        raise JointError(f"{given}: a mapping is expected: names, flip_pairs, sigmas, limbs, upper_body, pck")
    return {"name": Path(given).stem} | fields


def _known(word: object) -> str:
    names = [*JOINT_SETS, "auto"]
    return f"one of {', '.join(names)} or a YAML file is expected.{did_you_mean(str(word), names)}"


def _categories(annotations: Any) -> list[dict[str, Any]]:
    found = annotations.get("categories", []) if isinstance(annotations, dict) else []
    if not isinstance(found, list) or not all(isinstance(each, dict) and "id" in each for each in found):
        raise JointError("the annotation file's 'categories' is no list of entries with an 'id'")
    return found


def _category(annotations: Any, wanted: Sequence[int | str] | None) -> Category:
    """The category whose joints a file is about."""
    every = _categories(annotations)
    asked = every if wanted is None else asked_categories(every, wanted)
    able = [each for each in asked if each.get("keypoints")]
    if not able:
        which = "of the annotation file" if wanted is None else f"among {list(wanted)!r:.80}"
        raise JointError(
            f"no category {which} has a list 'keypoints' with names of joints (the file has {in_words(every)}): "
            "give data.joints a YAML file with names"
        )
    first = _names(able[0])
    for other in able[1:]:
        at = first_difference(first, _names(other))
        if at is not None:
            shown = [f"{each.get('name', each['id'])} ({len(_names(each))})" for each in (able[0], other)]
            raise JointError(
                f"the annotation file's categories have different joints: {' and '.join(shown)} differ from joint {at} "
                "on. Say by data.categories which are meant, or give data.joints a YAML file"
            )
    return able[0]


def _names(category: Mapping[str, Any]) -> list[str]:
    names = category["keypoints"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise JointError(
            f"category {category.get('name', category['id'])!r}: keypoints={names!r:.80}: a list of names is expected"
        )
    return names


def _of_category(category: Mapping[str, Any]) -> dict[str, Any]:
    names = _names(category)
    fields = {"name": str(category.get("name", "own")), "names": names, "limbs": _skeleton(category, len(names))}
    if "sigmas" in category:
        fields |= {"sigmas": category["sigmas"], "source": "the annotation file's category"}
    return fields


def _skeleton(category: Mapping[str, Any], number: int) -> Pairs:
    """Limbs from a COCO category, which counts joints from 1; some tools count from 0."""
    given = category.get("skeleton") or []
    pairs = [tuple(pair) for pair in given if isinstance(pair, (list, tuple)) and len(pair) == 2]
    whole = [pair for pair in pairs if all(isinstance(end, int) for end in pair)]
    least = 0 if any(0 in pair for pair in whole) else 1
    if whole and not any(end in (0, number) for pair in whole for end in pair):
        _logger.info("the category's skeleton names neither joint 0 nor joint %d: taken as counted from 1", number)
    fine = [(a - least, b - least) for a, b in whole if a != b and least <= min(a, b) and max(a, b) < number + least]
    if len(fine) != len(given):
        # CrowdPose's own files have COCO's skeleton, which leads to joints that they do not have
        _logger.warning("the category's skeleton names joints that it does not have: no limbs are drawn")
        return ()
    return tuple(fine)


def _completed(fields: dict[str, Any]) -> JointSet:
    """Fields of a joint set, and for those that are not given what the names tell."""
    names = fields["names"]
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise JointError(f"joints: names={names!r:.80}: a list of text is expected")
    if "flip_pairs" not in fields:
        fields["flip_pairs"] = _pairs_by_name(names)
    if "sigmas" not in fields:
        fields["sigmas"] = [MEAN_SIGMA] * len(names)
        fields["source"] = "the mean of COCO's 17: none were given"
        _logger.warning(
            "joints %s: no sigmas were given, so OKS and AP take the mean of COCO's, %.3f, for each of the %d joints",
            fields["name"],
            MEAN_SIGMA,
            len(names),
        )
    if "upper_body" not in fields:
        fields["upper_body"] = _upper_by_name(names)
    if "pck" not in fields:
        fields["pck"] = next((each for each in ("torso", "head") if reference_pairs(names, each)), "bbox")
    return JointSet.from_dict(fields)


def _pairs_by_name(names: Sequence[str]) -> list[tuple[int, int]]:
    order = mirror_names(names)
    pairs = [(joint, mirror) for joint, mirror in enumerate(order) if joint < mirror]
    sides = zip(order, sides_of(names), strict=True)
    alone = [names[joint] for joint, (mirror, side) in enumerate(sides) if joint == mirror and side]
    if alone:
        _logger.warning(
            "%s: the names tell a side, and no other joint, or more than one, is their mirror image; in a mirrored "
            "picture they keep their place. Give flip_pairs where that is wrong",
            ", ".join(alone),
        )
    _logger.info("pairs of left and right by their names: %d of %d joints", 2 * len(pairs), len(names))
    return pairs


def _upper_by_name(names: Sequence[str]) -> list[int]:
    """The upper half, where every joint is one of a person's; else nothing, and no half is cut out in training."""
    words = [set(words) for _, words in readings(names)]
    if not all(each & (_UPPER | _LOWER) for each in words):
        return []
    return [joint for joint, each in enumerate(words) if each & _UPPER]
