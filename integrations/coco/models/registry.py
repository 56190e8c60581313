"""The published models by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cycledistill.recipes.hub.names import published, split_options

from .config import TokenPoseConfig
from .plugins import PoseModelConfig, add_plugins
from .tokenpose import TokenPose


def list_pose_models(pattern: str = "") -> list[str]:
    """Names that `create_pose_model` knows, those that contain ``pattern``.

    Example:
        >>> list_pose_models("sdpose_s")
        ['sdpose_s_v1', 'sdpose_s_v1_ppt', 'sdpose_s_v2']
    """
    return sorted(name for name in _MODELS if pattern in name)


def pose_model_config(name: str, num_keypoints: int = 17, **overrides: Any) -> PoseModelConfig:
    """What a name stands for.

    Args:
        name: One of `list_pose_models`.
        num_keypoints: Keypoints to predict: 17 for COCO, 14 for CrowdPose.
        **overrides: Fields of `TokenPoseConfig` or `PoseModelConfig` to set otherwise.

    Raises:
        ValueError: An unknown name or field, with the nearest known ones, or a value out of its range.

    Example:
        >>> pose_model_config("sdpose_t", cycles=2, image_size=(384, 288)).network.grid
        (24, 24)
    """
    config = published(_MODELS, name, "pose model", "list_pose_models")
    of_network, of_model = split_options(config, overrides, name)
    network = replace(config.network, num_keypoints=num_keypoints, **of_network)
    return replace(config, network=network, name=name, **of_model)


def build_pose_model(config: PoseModelConfig) -> TokenPose:
    """Build what ``config`` describes: the network, its pruning, its cycles.

    With both, the first cycle prunes and the later ones run on the kept tokens.
    """
    model = add_plugins(TokenPose(config.network), config)
    model.name, model.note = config.name, config.note
    return model


def create_pose_model(name: str, num_keypoints: int = 17, **overrides: Any) -> TokenPose:
    """A published pose model by name, with fresh weights.

    SDPose models are TokenPose models that ``wrap_cyclic`` made cyclic: in training they return a ``CycleOutput``, in
    eval what one cycle predicts, and ``unwrap_cyclic`` gives the plain TokenPose.

    Args:
        name: One of `list_pose_models`.
        num_keypoints: Keypoints to predict: 17 for COCO, 14 for CrowdPose.
        **overrides: Fields of `TokenPoseConfig` (``image_size``, ``stage1_width``, ...) or `PoseModelConfig`
            (``cycles``, ``distill``, ``prune_layers``, ``keep``) to set otherwise.

    Returns:
        The model; images (B, 3, 256, 192) to heatmaps (B, K, 64, 48), or to the regression head's numbers.

    Raises:
        ValueError: An unknown name or field, with the nearest known ones, or a value out of its range.

    Example:
        >>> model = create_pose_model("sdpose_s_v1", num_keypoints=17)
        >>> model.eval()(torch.zeros(1, 3, 256, 192)).shape
        torch.Size([1, 17, 64, 48])

    Source: SDPose (CVPR 2024), TokenPose (ICCV 2021), DistilPose (CVPR 2023), PPT (ECCV 2022).
    """
    return build_pose_model(pose_model_config(name, num_keypoints, **overrides))


_STEM_V1: Mapping[str, Any] = {}
_STEM_V2: Mapping[str, Any] = {"patch_size": (2, 2)}
_W32: Mapping[str, Any] = {"backbone": "hrnet_w32"}
_W32_NARROW: Mapping[str, Any] = {"backbone": "hrnet_w32", "stage1_width": 32}
_W48_D6: Mapping[str, Any] = {"backbone": "hrnet_w48", "depth": 6}
_PRUNED: Mapping[str, Any] = {"prune_layers": (3, 6, 9)}
_TOKENPOSE, _SDPOSE = "TokenPose, ICCV 2021", "SDPose, CVPR 2024"
_ORIGINAL = "attention scale of the original code, 192 to the power -1/2"
_NARROW = "HRNet's first stage at width 32, as the published checkpoint has it"


def _entry(network: Mapping[str, Any], note: str, **model: Any) -> PoseModelConfig:
    return PoseModelConfig(TokenPoseConfig(**network), note=note, **model)


_MODELS: dict[str, PoseModelConfig] = {
    "tokenpose_t": _entry({"backbone": "none", "patch_size": (16, 12), "heads": 16}, _TOKENPOSE),
    "tokenpose_s_v1": _entry(_STEM_V1, f"{_TOKENPOSE}; as re-trained by SDPose"),
    "tokenpose_s_v1_original": _entry({"scale": "dim"}, f"{_TOKENPOSE}; {_ORIGINAL}"),
    "tokenpose_s_v2": _entry(_STEM_V2, f"{_TOKENPOSE}; as re-trained by SDPose"),
    "tokenpose_s_v2_original": _entry({**_STEM_V2, "scale": "dim"}, f"{_TOKENPOSE}; {_ORIGINAL}"),
    "tokenpose_b": _entry(_W32, _TOKENPOSE),
    "tokenpose_b_narrow": _entry(_W32_NARROW, f"{_TOKENPOSE}; as re-trained by SDPose; {_NARROW}"),
    "tokenpose_l_d6": _entry({**_W48_D6, "readouts": 3}, f"{_TOKENPOSE}; three stacks of two layers"),
    "tokenpose_l_d6_plain": _entry(_W48_D6, "the L/D6 of the SDPose and PPT code: one stack, the head of B"),
    "tokenpose_l_d24": _entry(
        {"backbone": "hrnet_w48", "depth": 24, "heads": 12, "readouts": 3},
        f"{_TOKENPOSE}; three stacks of eight layers",
    ),
    "sdpose_t": _entry({"depth": 6}, _SDPOSE, cycles=3),
    "sdpose_s_v1": _entry(_STEM_V1, _SDPOSE, cycles=2),
    "sdpose_s_v2": _entry(_STEM_V2, _SDPOSE, cycles=2),
    "sdpose_b": _entry(_W32, _SDPOSE, cycles=2),
    "sdpose_b_narrow": _entry(_W32_NARROW, f"{_SDPOSE}; {_NARROW}", cycles=2),
    "sdpose_reg": _entry({"head": "rle"}, f"{_SDPOSE}; two cycles are a reading of the paper", cycles=2),
    "sdpose_s_v1_ppt": _entry(_STEM_V1, f"{_SDPOSE}, table 8; the first cycle prunes", cycles=2, **_PRUNED),
    "distilpose_s": _entry({"head": "token_reg"}, "DistilPose, CVPR 2023"),
    "ppt_s": _entry(_STEM_V1, "PPT, ECCV 2022, as re-trained by SDPose", **_PRUNED),
    "ppt_s_original": _entry({"scale": "dim"}, f"PPT, ECCV 2022; {_ORIGINAL}", **_PRUNED),
    "ppt_b": _entry(_W32, "PPT, ECCV 2022", **_PRUNED),
    "ppt_b_narrow": _entry(_W32_NARROW, f"PPT, ECCV 2022, as re-trained by SDPose; {_NARROW}", **_PRUNED),
    "ppt_l_d6": _entry(_W48_D6, "PPT, ECCV 2022, as its code has it", prune_layers=(3,)),
}
