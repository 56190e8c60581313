"""What all lifting networks have in common: ``stem -> levels -> norm -> head`` on clips of joints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional

Lengths = Literal["exact", "shorter", "any"]


@dataclass(frozen=True)
class HostConfig:
    """What every lifting network is told.

    Args:
        frames: Frames of a clip, F, for which the temporal positions are learned.
        joints: Joints of the skeleton, J.
        in_channels: Numbers a joint comes with: 2 (x, y), or 3 with the detector's confidence.
        dim: Channels of a token, C.
        heads: Attention heads, which divide ``dim``.
        lengths: Clips of other lengths than ``frames`` are refused ("exact"), taken if shorter, with the first of the
            temporal positions ("shorter"), or all taken, with the positions interpolated along time ("any").

    Raises:
        ValueError: A number below 1, ``dim`` that ``heads`` do not divide, an unknown word.
    """

    frames: int = 243
    joints: int = 17
    in_channels: int = 2
    dim: int = 512
    heads: int = 8
    lengths: Lengths = "exact"

    def __post_init__(self) -> None:
        for name in ("frames", "joints", "in_channels", "dim", "heads"):
            self.check_count(name)
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} is not divisible by heads={self.heads}")
        if self.lengths not in ("exact", "shorter", "any"):
            raise ValueError(f'lengths={self.lengths!r}: "exact", "shorter" or "any" is expected')

    def check_count(self, name: str, least: int = 1) -> None:
        """Refuse a field that is no whole number of at least ``least``."""
        value = getattr(self, name)
        if type(value) is not int or value < least:
            raise ValueError(f"{name}={value!r}: a whole number of at least {least} is expected")

    def check_rate(self, name: str) -> None:
        """Refuse a field that is no share below 1."""
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise ValueError(f"{name}={value!r}: a share of at least 0 and below 1 is expected")


class Lifter(nn.Module):
    """A network that lifts clips of 2D joints to 3D, in the form that the plug-ins take without special cases.

    - `embed`, everything before the stack, all positions included;
    - ``levels``, each (B, F, J, C) to the same shape for any F: no weight of a level belongs to a frame;
    - ``norm``, the last norm of the stack where one stands outside of it;
    - ``head``, (B, F, J, C) to (B, F, J, 3).

    Nothing happens between levels, so ``wrap_cyclic`` follows the chain and ``wrap_hourglass`` drops frames between two
    levels and recovers them between ``norm`` and ``head``.

    Attributes:
        config: What was built.
        mode: "seq2seq", the poses of all frames are wanted, or "seq2frame", that of the centre frame, (F - 1) // 2.
        pool: How the joints' tokens of a frame become one for choosing frames: "mean", or "concat" side by side.
    """

    pool: ClassVar[Literal["mean", "concat"]] = "mean"
    config: HostConfig
    levels: nn.ModuleList
    norm: nn.Module
    head: nn.Module
    mode: Literal["seq2seq", "seq2frame"] = "seq2seq"
    resizes: ClassVar[bool] = True

    def embed(self, poses: Tensor) -> Tensor:
        """2D joints (B, F, J, in_channels) to the tokens (B, F, J, C) that enter the stack."""
        raise NotImplementedError

    def forward(self, poses: Tensor) -> Tensor:
        """Lift a batch of clips.

        Args:
            poses: (B, F, J, in_channels), 2D joints in normalised image coordinates (x from -1 to 1 over the width).

        Returns:
            (B, F, J, 3), 3D joints in the unit of the training targets (metres, relative to the root).

        Raises:
            ValueError: Poses of another shape, or of a number of frames that the model does not take.
        """
        self._check(poses)
        tokens = self.embed(poses)
        for level in self.levels:
            tokens = level(tokens)
        return self.head(self.norm(tokens))

    def _check(self, poses: Tensor) -> None:
        config = self.config
        given, expected = tuple(poses.shape), (config.joints, config.in_channels)
        if len(given) != 4 or given[2:] != expected or 0 in given:
            raise ValueError(
                f"poses of shape {given}: (B, F, {config.joints}, {config.in_channels}) is expected, clips, frames, "
                "joints and numbers of a joint; build the model with joints=... and in_channels=... for another "
                "skeleton or for confidences"
            )
        frames, takes = given[1], config.lengths
        if frames != config.frames and (takes == "exact" or (takes == "shorter" and frames > config.frames)):
            wanted = {"exact": "clips of just", "shorter": "clips of at most"}[takes]
            raise ValueError(
                f"{frames} frames: this model takes {wanted} {config.frames}; cut or pad the clip, or build the model "
                f"with frames={frames}{_remedy(self, takes)}"
            )


def _remedy(model: Any, takes: Lengths) -> str:
    return f', or with lengths="any" to resize its positions ("{takes}" now)' if model.resizes else ""


def positions_of(table: Tensor, frames: int, lengths: Lengths) -> Tensor:
    """Temporal positions for a clip of ``frames``.

    Args:
        table: (1, F, ...).
        frames: Frames of the clip.
        lengths: As in `HostConfig`.

    Returns:
        (1, frames, ...): the table, its first entries, or `resize_positions` of it.
    """
    if frames == table.shape[1]:
        return table
    return table[:, :frames] if lengths == "shorter" else resize_positions(table, frames)


def resize_positions(table: Tensor, frames: int) -> Tensor:
    """A table over frames, interpolated linearly along time, its ends kept.

    Args:
        table: (1, F, ...).
        frames: The number wanted.

    Returns:
        (1, frames, ...).

    Example:
        >>> resize_positions(torch.tensor([[[0.0], [4.0]]]), 3).flatten().tolist()
        [0.0, 2.0, 4.0]
    """
    lines = table.flatten(2).transpose(1, 2)
    resized = functional.interpolate(lines, frames, mode="linear", align_corners=True)
    return resized.transpose(1, 2).unflatten(2, table.shape[2:])
