"""Lifting models on the Hugging Face hub: what their ``config.json`` and their model card say."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, ClassVar, TypeVar

import torch

from cycledistill.plugin.install import handle_of
from cycledistill.recipes.errors import RecipeError
from cycledistill.recipes.hub.card import ModelFacts
from cycledistill.recipes.hub.config import cycles_of, read_model_fields
from cycledistill.recipes.hub.model import HubModel

from .config import NetworkConfig
from .convention import Convention, convention_words, plain_convention
from .plugins import STACK, LifterConfig, Mode, add_plugins

M = TypeVar("M", bound="LifterHubModel")

_UNITS = {"metres": "metres", "picture": "half widths of the picture (no metres: MotionBERT's own unit)"}
_OPTIONS = ("select", "pool", "frames", "prefix", "lengths", "centre", "neighbours", "noise", "exact", "tie")


class LifterHubModel(HubModel, tags=["human-pose-estimation", "3d-human-pose-estimation"]):
    """A lifting model that the hub holds; every `Lifter` is one.

    ``config.json`` has the fields of `LifterConfig`, those that apply, the name in the registry, and the `Convention`.
    """

    hub_options: ClassVar[tuple[str, ...]] = ("mode", "layer", "keep", "recover", "hourglass", "cycles", "distill")
    config_type: ClassVar[type[NetworkConfig]] = NetworkConfig
    config: NetworkConfig
    mode: Mode
    convention: Convention = Convention()

    def hub_config(self) -> dict[str, Any]:
        """The network, its hourglass and its cycles, as plain data.

        Raises:
            RecipeError: An hourglass that is made with functions or tensors.
        """
        described: dict[str, Any] = {"network": asdict(self.config), "mode": self.mode, **cycles_of(self)}
        described["convention"] = asdict(self.convention)
        handle = handle_of(self, "hourglass")
        if handle is None:
            return described
        described |= {"layer": handle.layers, "keep": handle.keep, "recover": handle.recover}
        with torch.device("meta"):
            plain = {name: value for name, value in described.items() if name not in ("cycles", "distill")}
            usual = self.own_class().from_hub_config(plain)
        options = _options(self, usual)
        return described | ({"hourglass": options} if options else {})

    def export_metadata(self) -> dict[str, str]:
        """What an exported file says of the model, each as JSON: the convention of its numbers, and its window."""
        words = {"frames": json.dumps(self.config.frames), "mode": json.dumps(self.mode)}
        if self.name is not None:
            words["model"] = self.name
        return words | convention_words(self.convention, self.config.in_channels)

    @classmethod
    def from_hub_config(cls: type[M], config: dict[str, Any]) -> M:
        """The model of a config, with fresh weights.

        Raises:
            ValueError: A field that is missing or unknown, or a value out of its range.
        """
        fields = dict(config)
        convention = plain_convention(fields.pop("convention", {}))
        whole = read_model_fields(LifterConfig, cls.config_type, fields)
        model = cls(whole.network)
        model.mode, model.convention = whole.mode, convention
        return add_plugins(model, whole)

    def hub_facts(self) -> ModelFacts:
        """What the model card says of the model itself."""
        config = self.config
        numbers = {2: "x and y", 3: "x, y and confidence"}.get(config.in_channels, f"{config.in_channels} numbers")
        shape = (config.frames, config.joints, config.in_channels)
        frames = {"exact": "exactly", "shorter": "at most", "any": "about"}[config.lengths]
        handle = handle_of(self, "hourglass")
        gives = f"poses (B, {config.frames}, {config.joints}, 3) of all frames"
        if handle is not None and handle.recover is False:
            gives = f"poses (B, K, {config.joints}, 3) of the frames that it keeps"
        centre = "; the pose of the centre frame is what it is made for" if self.mode == "seq2frame" else ""
        return ModelFacts(
            module="cycledistill.integrations.human36m",
            loader="Lifter",
            does=(
                f"clips of {frames} {config.frames} frames of 2D joints, (B, {', '.join(map(str, shape))}), {numbers} "
                f"of each in normalised image coordinates, and gives {gives}, in {_UNITS[self.convention.unit]}, "
                f"relative to the root{centre}"
            ),
            inputs=torch.zeros(1, *shape, device="meta"),
            example=f"one clip of {config.frames} frames",
            stack=STACK if handle is None else "auto",
        )


def _options(model: Any, usual: Any) -> dict[str, Any]:
    """Arguments of ``wrap_hourglass`` by which a model differs from one that was wrapped without any.

    Raises:
        RecipeError: One that is no plain value.
    """
    own, other = ({name: getattr(each.hourglass.settings, name) for name in _OPTIONS} for each in (model, usual))
    for each, found in ((model, own), (usual, other)):
        found["recover_after"] = each.hourglass.recover_after
        found["heads"] = getattr(getattr(each, "recover", None), "heads", None)
    options = {name: value for name, value in own.items() if not _same(value, other[name])}
    for name, value in options.items():
        if not isinstance(value, (str, int, float, bool, type(None))):
            raise RecipeError(
                f"this model's hourglass has a {type(value).__name__} for {name}, and a config holds words and numbers "
                f"alone, no code: wrap the model with a {name} that wrap_hourglass knows by name"
            )
    return options


def _same(one: Any, other: Any) -> bool:
    """Whether two arguments are the same; ``0`` and ``False`` are not."""
    return one is other or (type(one) is type(other) and bool(one == other))
