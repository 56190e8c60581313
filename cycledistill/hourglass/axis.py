"""What the token axis of the blocks holds: tokens in front that are no frames, and then frames, one token each.

A class token that were counted as a frame would be dropped; patches of a video that were, would be dropped one by one.
So the length of the axis is held against what the model declares, in every forward, and as early as it is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill.errors import StackError
from cycledistill.hourglass.checks import declared

_FRONT = re.compile(r"(cls|class|dist|distillation|reg|register)_(token|embed|embedding)s?$")
"""Names of parameters that models put in front of their tokens."""


@dataclass(frozen=True)
class TokenAxis:
    """The token axis as a model declares it, and as ``wrap_hourglass`` was told."""

    prefix: int
    """Tokens in front, never dropped nor counted."""
    frames: int | None
    """Frames of a clip, given or declared."""
    patches: int | None
    """Tokens of one frame of a video, or of an image, that the model declares."""
    lengths: str
    """Which other clips are taken, as in `Settings`."""
    is_video: bool
    """Whether the model declares frames of a video, each of several patches."""
    is_image: bool = False
    """Whether the model itself embeds the patches of an image, and declares no frames."""

    def check(self, path: str, tokens: int) -> None:
        """Refuse ``tokens`` in front of a prune point, those in front included, that cannot be one token a frame."""
        frames = tokens - self.prefix
        front = f", {self.prefix} of them in front" if self.prefix else ""
        if frames < 1:
            raise StackError(f"prefix={self.prefix}: {path} receives {tokens} tokens, so no frame is among them")
        if self.is_video and self.patches and self.frames and frames == self.frames * self.patches > self.frames:
            raise StackError(
                f"{path} receives {tokens} tokens{front}, the {self.patches} patches of each of {self.frames} frames, "
                f"and an hourglass drops whole frames: pass layout=(lambda x: x.unflatten(1, (-1, {self.patches})), "
                f"lambda x: x.flatten(1, 2)), with which the patches of a frame stay together, and keep of "
                f"{self.frames} frames"
            )
        if self.frames is None and (self.is_image or frames == self.patches):
            raise StackError(
                f"{path} receives {tokens} tokens{front}, and the model declares the patches of an image and no "
                "frames: an hourglass drops frames, and wrap_pruning drops patches. If each is a frame after all, pass "
                f"frames={frames}"
            )
        if self.frames is not None and frames > self.frames and self.lengths != "any":
            raise StackError(
                f"{path} receives {tokens} tokens{front}, where the clip has {self.frames} frames: pass "
                f"prefix={tokens - self.frames} if so many stand in front and are no frames (a class token), "
                'lengths="any" if clips may be longer, or a layout'
            )


def token_axis(model: nn.Module, prefix: Any, frames: int | None, lengths: str) -> TokenAxis:
    """The token axis of ``model``; ``prefix`` and ``frames`` as ``wrap_hourglass`` was given them."""
    if declared(model, "attention_type") == "divided_space_time":
        raise StackError(
            f"the blocks of {type(model).__name__} divide attention between space and time, and are made for one "
            "number of frames: an hourglass, which leaves them fewer, does not serve them"
        )
    config = getattr(model, "config", None)
    time, patches = _video_frames(model), _patches(model, config)
    own = declared(model, "frames")
    return TokenAxis(
        prefix=declared_prefix(model) if prefix == "auto" else _checked(prefix),
        frames=frames if frames is not None else own if isinstance(own, int) else time,
        patches=None if frames is not None and time is None else patches,
        lengths=lengths,
        is_video=time is not None,
        is_image=isinstance(getattr(getattr(model, "patch_embed", None), "num_patches", None), int),
    )


def declared_prefix(model: nn.Module) -> int:
    """Tokens in front that a model declares: a number, a group of tokens, or the parameters that hold them."""
    number = declared(model, "num_prefix_tokens")
    if isinstance(number, int):
        return number
    group = (getattr(model, "token_groups", None) or {}).get("prefix")
    if isinstance(group, slice) and isinstance(group.stop, int):
        return group.stop
    front = {id(p): p for name, p in model.named_parameters() if _FRONT.match(name.rpartition(".")[2])}
    return sum(1 if p.ndim < 2 else int(p.shape[-2]) for p in front.values())


def _checked(prefix: Any) -> int:
    if isinstance(prefix, bool) or not isinstance(prefix, int) or prefix < 0:
        raise StackError(f'prefix={prefix!r}: "auto", or the number of tokens in front that are no frames, is expected')
    return prefix


def _video_frames(model: nn.Module) -> int | None:
    """Steps in time of a video model: its frames, fewer where several make up one token."""
    number = declared(model, "num_frames")
    if not isinstance(number, int):
        return None
    tubelet = _sizes(getattr(getattr(model, "config", model), "tubelet_size", None))
    return number // (tubelet[0] if tubelet else 1)


def _patches(model: nn.Module, config: Any) -> int | None:
    """Patches of one image, or of one step in time."""
    number = getattr(getattr(model, "patch_embed", None), "num_patches", None)
    if isinstance(number, int):
        return number
    image = _sizes(getattr(config, "image_size", None))
    patch = _sizes(getattr(config, "patch_size", None)) or _sizes(getattr(config, "tubelet_size", None))
    if not image or not patch or 0 in patch:
        return None
    height, width = image[-2:] if len(image) > 1 else image * 2
    rows, columns = patch[-2:] if len(patch) > 1 else patch * 2
    return (height // rows) * (width // columns)


def _sizes(value: Any) -> tuple[int, ...]:
    """A size, one number or several, as a tuple; empty for anything else."""
    value = value if isinstance(value, (tuple, list)) else (value,)
    whole = all(isinstance(each, int) and not isinstance(each, bool) for each in value)
    return tuple(value) if whole else ()


Front = Tensor | tuple[Tensor, ...]


def split_front(tokens: Any, prefix: int) -> tuple[Front | None, Any]:
    """Tokens (B, P + F, ...), or a tuple of such, as those in front and the others; ``None`` where there are none."""
    if not prefix:
        return None, tokens
    if isinstance(tokens, Tensor):
        return tokens[:, :prefix], tokens[:, prefix:]
    return tuple(each[:, :prefix] for each in tokens), tuple(each[:, prefix:] for each in tokens)


def with_front(front: Front | None, tokens: Any) -> Any:
    """What `split_front` split, together again."""
    if front is None:
        return tokens
    if isinstance(front, Tensor):
        return _joined(front, tokens)
    return tuple(_joined(*both) for both in zip(front, tokens, strict=True))


def _joined(front: Tensor, tokens: Tensor) -> Tensor:
    if front.shape[0] != tokens.shape[0]:
        raise StackError(
            f"the tokens in front are {tuple(front.shape)}, and the frames {tuple(tokens.shape)}: prefix counts tokens "
            "on axis 1 of what the blocks take, before any layout, and here that is another axis. Let the model put "
            "its batch first"
        )
    return torch.cat((front, tokens), dim=1)
