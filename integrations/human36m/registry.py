"""The published lifting networks by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from cycledistill import Distill, wrap_cyclic, wrap_hourglass

from .frames import FrameLifter, FrameLifterConfig
from .host import HostConfig, Lifter
from .mhformer import MHFormer, MHFormerConfig
from .mixste import MixSTE, MixSTEConfig
from .motionbert import MotionBERT, MotionBERTConfig

Mode = Literal["seq2seq", "seq2frame"]

_HOSTS: Mapping[type[HostConfig], type[Any]] = {
    MixSTEConfig: MixSTE,
    MotionBERTConfig: MotionBERT,
    MHFormerConfig: MHFormer,
    FrameLifterConfig: FrameLifter,
}


@dataclass(frozen=True)
class LifterConfig:
    """A lifting model: its network, and the plug-ins on it.

    Args:
        host: The network.
        mode: "seq2seq", the poses of all frames are wanted, or "seq2frame", that of the centre frame, which is then
            always among the kept ones.
        layer: Numbers of the levels before which frames are dropped; ``None``: without ``wrap_hourglass``.
        keep: Frames that are kept there, or shares of the clip; with several layers, one for each.
        recover: How all frames come back, as for ``wrap_hourglass``; ``False``: the model returns the kept ones.
        cycles: How often the stack runs while training; ``None``: without ``wrap_cyclic``. With an hourglass, the
            levels after its last prune point are the stack.
        distill: What later cycles teach earlier ones, as for ``wrap_cyclic``.
        note: Where the model comes from.

    Raises:
        ValueError: ``cycles`` below 1, a preset that does not exist, an unknown mode, one of ``layer`` and ``keep``
            without the other.
    """

    host: HostConfig
    mode: Mode = "seq2seq"
    layer: int | tuple[int, ...] | None = None
    keep: int | float | tuple[int | float, ...] | None = None
    recover: bool | str = True
    cycles: int | None = None
    distill: str | Distill | None = "sdpose"
    note: str = ""

    def __post_init__(self) -> None:
        if self.mode not in ("seq2seq", "seq2frame"):
            raise ValueError(f'mode={self.mode!r}: "seq2seq" or "seq2frame" is expected')
        if (self.layer is None) != (self.keep is None):
            raise ValueError(
                f"layer={self.layer!r}, keep={self.keep!r}: an hourglass needs both, a plain model neither"
            )
        if self.cycles is not None and (type(self.cycles) is not int or self.cycles < 1):
            raise ValueError(f"cycles={self.cycles!r}: a whole number of at least 1, or None, is expected")
        if isinstance(self.distill, str):
            Distill.preset(self.distill)


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
        **overrides: Fields of `LifterConfig` or of its host's config to set otherwise. With other ``frames``, the
            published number of kept frames becomes the same share of them, unless ``keep`` is given.

    Raises:
        ValueError: An unknown name or field, with the nearest known ones, or a value out of its range.

    Example:
        >>> config = lifter_config("hot_mixste", frames=81)
        >>> config.host.frames, config.keep
        (81, 27)
    """
    if name not in _MODELS:
        near = difflib.get_close_matches(name.lower().replace("-", "_"), _MODELS, n=3, cutoff=0.4)
        hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(list_lifters())}"
        raise ValueError(f"{name!r} is no lifting model; {hint} (list_lifters() names them all)")
    config = _MODELS[name]
    of_host = {each.name for each in fields(config.host)}
    of_model = {each.name for each in fields(LifterConfig)} - {"host", "note"}
    for key in overrides:
        if key not in of_host | of_model:
            near = difflib.get_close_matches(key, of_host | of_model, n=1, cutoff=0.0)
            raise ValueError(f"{name} has no option {key!r}; the nearest is {near[0]!r}")
    host = replace(config.host, **{key: value for key, value in overrides.items() if key in of_host})
    if type(config.keep) is int:
        config = replace(config, keep=max(round(config.keep * host.frames / config.host.frames), 1))
    return replace(config, host=host, **{key: value for key, value in overrides.items() if key in of_model})


def build_lifter(config: LifterConfig) -> Lifter:
    """Build what ``config`` describes: the network, its hourglass, its cycles."""
    model: Lifter = _HOSTS[type(config.host)](config.host)
    model.mode = config.mode
    if config.layer is not None and config.keep is not None:
        centre = config.mode == "seq2frame"
        wrap_hourglass(model, layer=config.layer, keep=config.keep, recover=config.recover, centre=centre)
    if config.cycles is not None:
        wrap_cyclic(model, config.cycles, config.distill, blocks="levels" if config.layer is None else "auto")
    return model


def create_lifter(name: str, **overrides: Any) -> Lifter:
    """A published lifting model by name, with fresh weights.

    Args:
        name: One of `list_lifters`.
        **overrides: Fields of the host's config (``frames``, ``joints``, ``dim``, ``lengths``, ...) or of
            `LifterConfig` (``mode``, ``layer``, ``keep``, ``recover``, ``cycles``, ``distill``) to set otherwise.

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
