"""What a run starts from: weights of the same joints whole, of other joints those that serve."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.hub.files import can_be_on_hub, find_files
from cycledistill.recipes.run.trained import recipe_of_run
from cycledistill.recipes.weights.checkpoint import find_checkpoint, load_weights, read_recipe
from cycledistill.recipes.weights.files import State, of_file, read_weights, stored_network

from ..data.joints import JOINT_SETS, JointError, JointSet, joint_set_for
from ..data.joints.names import first_difference, readings
from ..models.tokenpose import TokenPose
from ..recipe import Recipe, load_recipe
from ..weights.described import joints_in, other_joints
from ..weights.key_map import from_official, is_ours
from ..weights.loading import check_network, load_imagenet_backbone
from ..weights.suggest import keypoint_count

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """Weights to start from.

    Attributes:
        where: What messages call them.
        state: The weights, under our names.
        network: The config that was stored with them; empty where none was.
        joints: Of which joints they are, where that is told.
    """

    where: str
    state: State
    network: dict[str, Any]
    joints: JointSet | None


def load_starting_weights(model: TokenPose, recipe: Recipe) -> None:
    """Load what ``model.backbone_weights`` and ``model.weights`` name.

    Weights of the recipe's own joints are loaded whole, every tensor. Those of other joints need ``model.new_joints``:
    everything is loaded but the keypoint tokens, and with ``by_name`` also the tokens of joints that both sets have;
    the log says which.

    Args:
        model: The recipe's model, which has its joints.
        recipe: ``model.weights`` is a file, ours or an official one, a run, a checkpoint, a folder that
            ``save_pretrained`` wrote, or a name on the hub.

    Raises:
        CheckpointError: Weights that are missing, broken or of another model; of other joints without
            ``model.new_joints``; or of none that are the model's, with ``by_name``.
    """
    if recipe.model.backbone_weights:
        load_imagenet_backbone(model, Path(recipe.model.backbone_weights))
    if not recipe.model.weights:
        return
    source = _source(recipe.model.weights, model)
    check_network(source.network, model.config, source.where)
    own = recipe.data.joint_set
    tokens = keypoint_count(source.state) or 0
    theirs = source.joints or _unsaid(source.where, tokens, own)
    state, at = source.state, first_difference(theirs.names, own.names)
    if at is not None:
        if recipe.model.new_joints is None:
            raise CheckpointError(
                f"model.weights={source.where}: the weights are of {other_joints(theirs, own, at)}. To start from them "
                "set model.new_joints=by_name, which keeps the tokens of joints that both have, or =random"
            )
        state = _with_new_tokens(source, theirs, own, model, recipe.model.new_joints == "by_name")
    load_weights(model, state, source.where, "check model.name and model.options: all but the joints must be the same")


def _source(weights: str, model: TokenPose) -> Start:
    path = Path(weights)
    if path.is_file():
        return _of_file(path, model)
    if path.is_dir() and not (path / "config.json").is_file():
        folder = find_checkpoint(path)
        joints = recipe_of_run(folder, load_recipe, "coco").data.joint_set
        state = read_weights(folder / "model.safetensors")
        return Start(str(folder), state, read_recipe(folder).get("network", {}), joints)
    if not path.exists() and not can_be_on_hub(weights):
        raise CheckpointError(
            f"model.weights={weights}: there is no such file or folder; a file of weights, a run, or a name on the "
            "hub, user/name, is expected"
        )
    files = find_files(weights)
    network, told = files.config.get("network"), files.config.get("joints")
    if not isinstance(network, dict):
        raise CheckpointError(f"{weights}: its config.json describes no pose model of this library")
    return Start(weights, read_weights(files.weights), network, _joints(told, weights))


def _of_file(path: Path, model: TokenPose) -> Start:
    state = read_weights(path)
    if is_ours(state):
        return Start(str(path), state, stored_network(path), _joints(joints_in(path), path))
    config = replace(model.config, num_keypoints=keypoint_count(state) or model.config.num_keypoints)
    with of_file(path):
        return Start(str(path), from_official(state, config).model, {}, None)


def _joints(told: dict[str, Any] | None, where: object) -> JointSet | None:
    try:
        return None if told is None else JointSet.from_dict(told)
    except JointError as error:
        raise CheckpointError(f"{where}: {error}") from error


def _unsaid(where: str, number: int, own: JointSet) -> JointSet:
    """The joints of weights that do not tell: those that their number stands for, else the recipe's."""
    if number in map(len, JOINT_SETS.values()):
        return joint_set_for(number)
    if number == len(own):
        _logger.warning("%s does not say of which joints it is: they are taken for those of %s", where, own.name)
        return own
    raise CheckpointError(f"{where}: weights of {number} joints that do not say which; {len(own)} are asked for")


def _with_new_tokens(source: Start, theirs: JointSet, own: JointSet, model: TokenPose, by_name: bool) -> State:
    """The weights with a token for each of the model's joints: theirs where the joints agree, else the model's."""
    pairs = _shared(theirs, own) if by_name else []
    if by_name and not pairs:
        raise CheckpointError(
            f"model.new_joints=by_name: no joint of {own.name} ({', '.join(own.names[:4])}, ...) is in the weights of "
            f"{theirs.name} ({', '.join(theirs.names[:4])}, ...): set model.new_joints=random, or call them alike"
        )
    old, new = [one for one, _ in pairs], [other for _, other in pairs]
    state = dict(source.state)
    for name in ("keypoint_token", "pos_embedding"):
        given, fresh = state[name], model.state_dict()[name].detach().cpu().clone()
        if name == "pos_embedding" and model.config.position != "learnable":
            continue  # a table of the patches alone
        tokens = torch.cat([fresh[:, : len(own)], given[:, len(theirs) :].to(fresh.dtype)], dim=1)
        tokens[:, new] = given[:, old].to(tokens.dtype)
        state[name] = tokens
    made = [name for joint, name in enumerate(own.names) if joint not in new]
    left = [name for joint, name in enumerate(theirs.names) if joint not in old]
    for what, names in (("kept", [own.names[each] for each in new]), ("new", made), ("not used", left)):
        _logger.info("%s, tokens %s: %d (%s)", source.where, what, len(names), ", ".join(names) or "none")
    return state


def _shared(theirs: JointSet, own: JointSet) -> list[tuple[int, int]]:
    """Indices of the joints that two sets have in common: by their names, else by their names without style."""
    exact = {name: index for index, name in enumerate(theirs.names)}
    alike: dict[Any, list[int]] = {}
    for index, read in enumerate(readings(theirs.names)):
        alike.setdefault(read, []).append(index)
    pairs, taken = [], set()
    for joint, (name, read) in enumerate(zip(own.names, readings(own.names), strict=True)):
        found = [exact[name]] if name in exact else alike.get(read, [])
        if len(found) == 1 and found[0] not in taken:
            taken.add(found[0])
            pairs.append((found[0], joint))
    return pairs
