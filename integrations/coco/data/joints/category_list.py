"""The categories of an annotation file: by id or by name, and what there is where one is not found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .joint_set import JointError

Category = Mapping[str, Any]


def asked_categories(known: Sequence[Category], wanted: Sequence[Any]) -> list[Category]:
    """Those of the categories that are asked for, each by its id, also as text, or by its name.

    Raises:
        JointError: One is not there, or none is asked for; what the file has is listed.

    Example:
        >>> asked_categories([{"id": 1, "name": "horse"}, {"id": 2, "name": "cow"}], ["cow", "1"])
        [{'id': 1, 'name': 'horse'}, {'id': 2, 'name': 'cow'}]
    """
    asked = f"categories {list(wanted)!r:.200}"
    if not len(wanted):
        raise JointError(f"{asked}: none is asked for; leave them out for all, or name some: {in_words(known)}")
    found = []
    for each in wanted:
        hits = [own for own in known if each in (own["id"], own.get("name")) or str(each) == id_text(own["id"])]
        if not hits:
            raise JointError(f"{asked}: the file has no {each!r:.80}, but {in_words(known)}")
        found += hits
    return [own for own in known if own in found]


def ids_by_text(known: Sequence[Category]) -> dict[str, Any]:
    """The ids of the categories by what other entries may call them: the id or the name, as text."""
    named = {own["name"]: own["id"] for own in known if isinstance(own.get("name"), str)}
    return named | {id_text(own["id"]): own["id"] for own in known}


def in_words(known: Sequence[Category]) -> str:
    """The first categories in words: id, name, and how many joints each lists."""
    told = [shown(own) + (f" with {len(own['keypoints'])} joints" if own.get("keypoints") else "") for own in known]
    return ", ".join(told[:10]) + (f" and {len(told) - 10} more" if len(told) > 10 else "") or "no categories"


def shown(category: Category) -> str:
    """Id and name of a category."""
    return f"{category['id']!r:.40}" + (f" {category['name']!r:.40}" if category.get("name") else "")


def id_text(own: Any) -> str:
    """1, 1.0 and "1" are one id."""
    return own if isinstance(own, str) else str(int(own))
