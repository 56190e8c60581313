"""The published lifting networks by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from .frame_lifter import FrameLifter, FrameLifterConfig
from .lifter import Lifter
from .mhformer import MHFormer, MHFormerConfig
from .mixste import MixSTE, MixSTEConfig
from .motionbert import MotionBERT, MotionBERTConfig
from .plugins import LifterConfig, add_plugins

_NETWORKS: Mapping[type, type[Any]] = {each.config_type: each for each in (MixSTE, MotionBERT, MHFormer, FrameLifter)}


def list_lifters(pattern: str = "") -> list[str]:
    """Names that `create_lifter` knows, those that contain ``pattern``.

    Example:
        >>> list_lifters("motionbert")
        ['hot_motionbert', 'motionbert', 'motionbert_lite']
    """
    return sorted(name for name in _MODELS if pattern in name)


def lifter_config(name: str, **overrides: Any) -> LifterConfig:
    """What a name stands for.

    Args:
        name: One of `list_lifters`.
        **overrides: Fields of `LifterConfig` or of its network's config to set otherwise. With other ``frames``, the
            published number of kept frames becomes the same share of them, unless ``keep`` is given.

    Raises:
        ValueError: An unknown name or field, with the nearest known ones, or a value out of its range.

    Example:
        >>> config = lifter_config("hot_mixste", frames=81)
        >>> config.network.frames, config.keep
        (81, 27)
    """
    if name not in _MODELS:
        near = difflib.get_close_matches(name.lower().replace("-", "_"), _MODELS, n=3, cutoff=0.4)
        hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(list_lifters())}"
        raise ValueError(f"{name!r} is no lifting model; {hint} (list_lifters() names them all)")
    config = _MODELS[name]
    of_network = {each.name for each in fields(config.network)}
    of_model = {each.name for each in fields(LifterConfig)} - {"network", "note", "name"}
    for key in overrides:
        if key not in of_network | of_model:
            near = difflib.get_close_matches(key, of_network | of_model, n=1, cutoff=0.0)
            raise ValueError(f"{name} has no option {key!r}; the nearest is {near[0]!r}")
    network = replace(config.network, **{key: value for key, value in overrides.items() if key in of_network})
    if type(config.keep) is int:
        config = replace(config, keep=max(round(config.keep * network.frames / config.network.frames), 1))
    of_the_model = {key: value for key, value in overrides.items() if key in of_model}
    return replace(config, network=network, name=name, **of_the_model)


def build_lifter(config: LifterConfig) -> Lifter:
    """Build what ``config`` describes: the network, its hourglass, its cycles."""
    model: Lifter = _NETWORKS[type(config.network)](config.network)
    model.mode, model.name, model.note = config.mode, config.name, config.note
    return add_plugins(model, config)


def create_lifter(name: str, **overrides: Any) -> Lifter:
    """A published lifting model by name, with fresh weights.

    Args:
        name: One of `list_lifters`.
        **overrides: Fields of the network's config (``frames``, ``joints``, ``dim``, ``lengths``, ...) or of
            `LifterConfig` (``mode``, ``layer``, ``keep``, ``recover``, ``hourglass``, ``cycles``, ``distill``) to set
            otherwise.

    Returns:
        The model: 2D clips (B, F, J, 2), or (B, F, J, 3) with confidences for MotionBERT, to 3D clips (B, F, J, 3);
        with an hourglass that recovers nothing, to the kept frames (B, K, J, 3), numbers in ``model.hourglass.index``.

    Raises:
        ValueError: An unknown name or field, with the nearest known ones, or a value out of its range.

    Example:
        >>> model = create_lifter("motionbert_lite", frames=81)
        >>> model.eval()(torch.zeros(1, 81, 17, 3)).shape
        torch.Size([1, 81, 17, 3])

    Source: MixSTE (CVPR 2022), MHFormer (CVPR 2022), MotionBERT (ICCV 2023), HoT and TPC (CVPR 2024).
    """
    return build_lifter(lifter_config(name, **overrides))


_LITE = MotionBERTConfig(dim=256, mlp_ratio=4)
_HOT = "HoT, CVPR 2024"

_MODELS: dict[str, LifterConfig] = {
    "mixste": LifterConfig(MixSTEConfig(), note="MixSTE, CVPR 2022"),
    "hot_mixste": LifterConfig(MixSTEConfig(), layer=3, keep=81, note=_HOT),
    "tpc_mixste": LifterConfig(MixSTEConfig(), "seq2frame", layer=7, keep=61, recover=False, note=_HOT),
    "mhformer": LifterConfig(MHFormerConfig(), "seq2frame", note="MHFormer, CVPR 2022"),
    "tpc_mhformer": LifterConfig(MHFormerConfig(), "seq2frame", layer=1, keep=117, recover=False, note=_HOT),
    "motionbert": LifterConfig(MotionBERTConfig(), note="MotionBERT, ICCV 2023"),
    "motionbert_lite": LifterConfig(_LITE, note="MotionBERT-Lite, ICCV 2023"),
    "hot_motionbert": LifterConfig(_LITE, layer=1, keep=81, note=f"{_HOT}; on the Lite size"),
    "frame_lifter": LifterConfig(FrameLifterConfig(), note="this library's own, for trials"),
    "hot_frame_lifter": LifterConfig(FrameLifterConfig(), layer=1, keep=27, note="this library's own, for trials"),
}
