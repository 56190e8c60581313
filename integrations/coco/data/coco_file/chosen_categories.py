"""Which categories of a file count: in training, evaluation and prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..images import PoseDataError
from ..joints import JOINT_SETS, JointSet, joined_result, other_than
from ..joints.category_list import Category, asked_categories, id_text, ids_by_text, in_words, shown
from .checks import is_id


def own_categories(entries: Sequence[Mapping[str, Any]], listed: Sequence[Category]) -> list[Any]:
    """The file's own id of each annotation's category, which some give as text, or by name.

    Without one it is of the file's only category, or of 1.
    """
    own, called = {each["id"] for each in listed}, ids_by_text(listed)
    only = listed[0]["id"] if len(listed) == 1 else 1
    given = [only if entry.get("category_id") is None else entry["category_id"] for entry in entries]
    return [each if each in own else called.get(category_name(each), each) for each in given]


def chosen_categories(
    used: Sequence[Any], listed: Sequence[Category], joints: JointSet, wanted: Sequence[Any] | None
) -> dict[Any, Category]:
    """The categories of an annotation file that count, by the file's own ids; see `normalised`.

    Args:
        used: Of each annotation, as `own_categories` gives them.
        listed: The file's ``categories``.
        joints: The joints looked for.
        wanted: Ids or names.
    """
    known: dict[Any, Category] = {each["id"]: each for each in listed}
    known |= {own: {"id": own} for own in used if own not in known}
    others = {own: other_than(each["keypoints"], joints) for own, each in known.items() if each.get("keypoints")}
    if wanted is None:
        # Where no category lists its joints, each annotation's numbers tell.
        chosen = {own: each for own, each in known.items() if not others or others.get(own) == ""}
        if known and not chosen:
            named = JOINT_SETS.get(joints.name) == joints
            hint = ". data.joints=auto takes the file's own joints" if named else ""
            raise PoseDataError(
                f"no category of the file has the {len(joints)} joints of {joints.name}: "
                f"{in_words([*known.values()])}; {next(iter(others.values()))}{hint}"
            )
    else:
        chosen = {each["id"]: each for each in asked_categories([*known.values()], wanted)}
        other = next((own for own in chosen if others.get(own)), None)
        if other is not None:
            raise PoseDataError(f"categories {list(wanted)!r:.200}: {shown(known[other])}: {others[other]}")
    return {own: chosen[own] for own in sorted(chosen, key=lambda own: (isinstance(own, str), own))}


def category_name(given: Any) -> str:
    """What categories are compared by: 1, 1.0 and "1" are one id."""
    return id_text(given) if is_id(given) else str(given)


def categories_of_boxes(
    entries: Sequence[Any],
    listed: Sequence[dict[str, Any]],
    joints: JointSet | None,
    wanted: Sequence[Any] | None,
) -> dict[str, Any]:
    """The categories of a file of boxes that count: the file's own ids, by their ids and names as text.

    Where the file says which joints its categories have, the choice is that of `normalised`; a list of poses of the
    joints says so by itself. Else a file of one category is of what is looked for, and of several somebody must say
    which.

    Args:
        entries: The boxes; of each its ``category_id``, if there is one.
        listed: The file's ``categories``, if it is a file of annotations.
        joints: Those of the model, where they are known.
        wanted: Ids or names of the categories that count.

    Raises:
        PoseDataError: Several categories, and nothing says which are meant, or none of these is there.
    """
    used = {category_name(each["category_id"]): each["category_id"] for each in entries if _has_category(each)}
    if joints is not None and any(each.get("keypoints") for each in listed):
        given = own_categories([each for each in entries if _has_category(each)], listed)
        chosen = chosen_categories(given, listed, joints, wanted)
    else:
        named = {category_name(each["id"]): each for each in listed}
        known = {name: named.get(name, {"id": own}) for name, own in used.items()}
        asked = [str(each) for each in wanted or ()]
        hits = {name: each for name, each in known.items() if name in asked or each.get("name") in asked}
        if len(known) > 1 and not hits and (wanted or not _are_poses(entries, joints)):
            why = f"none of categories {list(wanted)!r:.200} is among them" if wanted else "nothing says which count"
            raise PoseDataError(
                f"the boxes are of {len(known)} categories ({in_words([*known.values()])}), and {why}: name them by "
                "categories (--categories; the run's data.categories if it has any), or give the joints, and "
                "annotations whose categories list theirs"
            )
        chosen = {each["id"]: each for each in (hits if len(known) > 1 and hits else known).values()}
    return ids_by_text([{**each, "id": own} for own, each in chosen.items()]) or {"1": 1}


def _are_poses(entries: Sequence[Any], joints: JointSet | None) -> bool:
    """Whether each entry is a pose of these joints."""
    if joints is None:
        return False
    posed = (isinstance(each, dict) and isinstance(each.get("keypoints"), list) for each in entries)
    return all(posed) and all(len(joined_result(each, joints)["keypoints"]) == 3 * len(joints) for each in entries)


def _has_category(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("category_id") is not None
