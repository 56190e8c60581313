"""What all lifting networks have in common: ``stem -> levels -> norm -> head`` on clips of joints."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from cycledistill.hourglass.recovery import table_for

from .config import Lengths, NetworkConfig
from .convention import H36M, Convention
from .hub import LifterHubModel


class Lifter(LifterHubModel):
    """A network that lifts clips of 2D joints to 3D, in the form that the plug-ins take without special cases.

    - `embed`, everything before the stack, all positions included;
    - ``levels``, each (B, F, J, C) to the same shape for any F: no weight of a level belongs to a frame;
    - ``norm``, the last norm of the stack where one stands outside of it;
    - ``head``, (B, F, J, C) to (B, F, J, 3).

    Nothing happens between levels, so ``wrap_cyclic`` follows the chain and ``wrap_hourglass`` drops frames between two
    levels and recovers them between ``norm`` and ``head``.

    ``Lifter.from_pretrained("user/name")`` reads a published one of any kind; ``model.save_pretrained(folder)`` and
    ``model.push_to_hub("user/name")`` write one.

    Attributes:
        config: What was built.
        mode: "seq2seq", the poses of all frames are wanted, or "seq2frame", that of the centre frame, (F - 1) // 2.
        pool: How the joints' tokens of a frame become one for choosing frames: "mean", or "concat" side by side.
        convention: The unit of its poses and the convention of its input; files of weights carry it.
        official: That of the weights which its authors released.
    """

    pool: ClassVar[Literal["mean", "concat"]] = "mean"
    config: NetworkConfig
    levels: nn.ModuleList
    norm: nn.Module
    head: nn.Module
    mode: Literal["seq2seq", "seq2frame"] = "seq2seq"
    resizes: ClassVar[bool] = True
    official: ClassVar[Convention] = H36M

    def embed(self, poses: Tensor) -> Tensor:
        """2D joints (B, F, J, in_channels) to the tokens (B, F, J, C) that enter the stack."""
        raise NotImplementedError

    def forward(self, poses: Tensor) -> Tensor:
        """Lift a batch of clips.

        Args:
            poses: (B, F, J, in_channels), 2D joints in normalised image coordinates (x from -1 to 1 over the width).

        Returns:
            (B, F, J, 3), 3D joints in the unit of ``self.convention``, relative to the root.

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
            remedy = f', or with lengths="any" to resize its positions ("{takes}" now)' if self.resizes else ""
            wanted = {"exact": "clips of just", "shorter": "clips of at most"}[takes]
            raise ValueError(
                f"{frames} frames: this model takes {wanted} {config.frames}; cut or pad the clip, or build the model "
                f"with frames={frames}{remedy}"
            )


def positions_of(table: Tensor, frames: int, lengths: Lengths) -> Tensor:
    """Temporal positions for a clip of ``frames``.

    Args:
        table: (1, F, ...).
        frames: Frames of the clip.
        lengths: As in `NetworkConfig`.

    Returns:
        (1, frames, ...): the table, its first entries, or interpolated linearly along time, its ends kept.

    Example:
        >>> positions_of(torch.tensor([[[0.0], [4.0]]]), 3, "any").flatten().tolist()
        [0.0, 2.0, 4.0]
    """
    if frames == table.shape[1]:
        return table
    return table_for(table.flatten(2), frames, lengths).unflatten(2, table.shape[2:])
