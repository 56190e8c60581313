"""A recipe whose joints are in a file, with the joints in it: what a run works with, and keeps."""

from __future__ import annotations

import dataclasses
import logging

from ..data.joints import JointError, joint_fields, joints_from, needs_file
from ..recipe import Recipe, RecipeError
from .sources import read_part

_logger = logging.getLogger(__name__)


def with_joints(recipe: Recipe, part: str = "train_annotations") -> Recipe:
    """The recipe with ``data.joints`` as a mapping that needs no file any more; as it is, where they are known by name.

    Args:
        recipe: A recipe.
        part: Which annotation file ``auto`` looks into: ``"train_annotations"`` or ``"val_annotations"``.

    Raises:
        RecipeError: The joints cannot be used; the message names ``data.joints``.
        PoseDataError: The annotation file cannot be read.
    """
    data, annotations = recipe.data, None
    if isinstance(data.joints, str) and not needs_file(data.joints):
        return recipe
    try:
        given = joint_fields(data.joints)
        if needs_file(given):
            annotations = read_part(data, part)
        joints = joints_from(given, annotations, data.categories)
    except JointError as error:
        where = "" if annotations is None else f" of data.{part} {getattr(data, part)}"
        raise RecipeError(f"data.joints={data.joints!r:.80}{where}: {error}") from error
    if joints.to_dict() == data.joints:  # a run's own, that goes on
        return recipe
    _logger.info("joints %s: %s", joints.name, ", ".join(joints.names))
    flips = {"augment.flip_probability=0": recipe.augment.flip_probability, "evaluate.flip=false": recipe.evaluate.flip}
    mirrored = [off for off, on in flips.items() if on]
    if mirrored and not joints.flip_pairs and "flip_pairs" not in given and len(joints) > 1:
        _logger.warning(
            "joints %s: no two names (%s%s) are left and right of each other, so in mirrored pictures every joint "
            "keeps its name. Where that is wrong give data.joints.flip_pairs, or set %s",
            joints.name,
            ", ".join(joints.names[:4]),
            ", ..." if len(joints) > 4 else "",
            " and ".join(mirrored),
        )
    return dataclasses.replace(recipe, data=dataclasses.replace(data, joints=joints.to_dict()))
