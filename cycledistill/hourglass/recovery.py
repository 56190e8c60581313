"""All frames of a clip again from the kept ones: by a learned attention, or by interpolation along time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cycledistill.errors import StackError


def table_for(table: Tensor, length: int, lengths: str) -> Tensor:
    """A learned table (1, N, C) for another number of frames: (1, length, C), or the table itself for its own.

    With ``lengths="shorter"`` its first entries; else it is interpolated linearly along time, its ends kept.
    """
    if length == table.shape[1]:
        return table
    if lengths == "shorter":
        return table[:, :length]
    return functional.interpolate(table.mT, length, mode="linear", align_corners=True).mT


class RankPositions(nn.Module):
    """What a prune point adds to the frames it keeps, by their rank: ``pos``, (1, K, C), zero at first."""

    def __init__(self, keep: int, width: int) -> None:
        super().__init__()
        self.pos = nn.Parameter(torch.zeros(1, keep, width))

    def forward(self, kept: Tensor, lengths: str = "exact") -> Tensor:
        """Add them to kept tokens (B, K, J, C)."""
        return kept + table_for(self.pos, kept.shape[1], lengths).unsqueeze(2)


class FrameRecovery(nn.Module):
    """Token recovering attention (TRA): a learned query for every frame attends over the kept frames.

    Over time, for each entry of the J axis apart. The residual is the query, which is zero at first: until training
    breaks that, all frames of a clip come out alike.

    With ``local=True`` a kept frame counts the less, the further in time it is from the frame that is recovered:
    :func:`time_bias` is added to the scores. Parameters and their names are the same.

    Args:
        frames: Frames of a clip, F.
        width: Channels of a token, C.
        heads: Attention heads, which divide C.
        local: Whether the attention looks near in time, which is not published.

    Source: HoT (CVPR 2024), section 3.3.
    """

    def __init__(self, frames: int, width: int, heads: int, local: bool = False) -> None:
        super().__init__()
        if width % heads:
            raise StackError(f"heads={heads} do not divide the {width} channels of a token")
        self.heads, self.local = heads, local
        self.query = nn.Parameter(torch.zeros(1, frames, width))
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width) for _ in range(4))

    def forward(
        self, kept: Tensor, frames: int | None = None, lengths: str = "exact", index: Tensor | None = None
    ) -> Tensor:
        """Recover all frames.

        Args:
            kept: Tokens of the kept frames, (B, K, J, C).
            frames: Frames of the clip, by default those of the query.
            lengths: How the query is made to fit another number of frames, as in :func:`table_for`.
            index: Numbers of the kept frames (B, K), which ``local=True`` needs.

        Returns:
            (B, F, J, C).

        Raises:
            ValueError: ``local=True`` without an index.
        """
        batch, _, joints, _ = kept.shape
        query = table_for(self.query, frames or self.query.shape[1], lengths)
        q, k, v = (self._heads(each) for each in (self.q(query).unsqueeze(2), self.k(kept), self.v(kept)))
        bias = None
        if self.local:
            if index is None:
                raise ValueError("index=None: a local recovery needs the numbers of the kept frames, (B, K)")
            bias = time_bias(index, query.shape[1], self.heads, q.dtype).repeat_interleave(joints, 0)
        mixed = functional.scaled_dot_product_attention(q.expand(batch * joints, -1, -1, -1), k, v, attn_mask=bias)
        # (B * J, H, F, D) to (B, F, J, H * D)
        mixed = mixed.unflatten(0, (batch, joints)).permute(0, 3, 1, 2, 4).flatten(3)
        return query.unsqueeze(2) + self.proj(mixed)

    def _heads(self, x: Tensor) -> Tensor:
        """(B, N, J, C) to (B * J, H, N, D)."""
        return x.unflatten(-1, (self.heads, -1)).permute(0, 2, 3, 1, 4).flatten(0, 1)


def time_bias(index: Tensor, frames: int, heads: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """What a local recovery adds to the scores of its attention: minus the distance in time, by a slope for each head.

    Distances are in units of the mean distance between kept frames, F / K. The slopes fall from 2 to 1/4 in equal
    ratios: the first head sees little but the two frames around, the last a dozen.

    Args:
        index: Numbers of the kept frames (B, K).
        frames: Frames of the clip, F.
        heads: Attention heads, H.
        dtype: Of the result; half precision is rounded from single.

    Returns:
        (B, H, F, K).

    Source: linear biases as in ALiBi (Press et al., ICLR 2022), in both directions and with other slopes.
    """
    time = torch.arange(frames, device=index.device)
    wide = torch.promote_types(dtype, torch.float32)
    distance = (time[:, None] - index[:, None]).abs().to(wide) * (index.shape[1] / frames)
    slopes = 2 ** torch.linspace(1, -2, heads, dtype=wide, device=index.device)
    return (-slopes[:, None, None] * distance.unsqueeze(1)).to(dtype)


def recover_nearest(kept: Tensor, index: Tensor, frames: int) -> Tensor:
    """Each frame takes the values of the kept frame nearest in time; of two equally near, the earlier.

    Args:
        kept: Values of the kept frames, (B, K, ...).
        index: Their numbers (B, K), ascending.
        frames: Frames of the clip, F.

    Returns:
        (B, F, ...).
    """
    before, after, share = _between(index, frames)
    return _at_rank(kept, torch.where(share > 0.5, after, before))


def recover_linear(kept: Tensor, index: Tensor, frames: int) -> Tensor:
    """Interpolate linearly along time; frames outside the kept ones take the values of the first or the last.

    Arguments and result as for :func:`recover_nearest`.
    """
    before, after, share = _between(index, frames)
    share = share.to(kept.dtype).reshape(*share.shape, *([1] * (kept.ndim - 2)))
    return torch.lerp(_at_rank(kept, before), _at_rank(kept, after), share)


def _between(index: Tensor, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """For every frame: the ranks of the kept frames before and after it, and its way between them, from 0 to 1."""
    time = torch.arange(frames, device=index.device).expand(index.shape[0], -1)
    passed = (index.unsqueeze(1) <= time.unsqueeze(2)).sum(dim=2)
    before, after = (passed - 1).clamp(min=0), passed.clamp(max=index.shape[1] - 1)
    start, stop = index.gather(1, before), index.gather(1, after)
    wide = torch.float32 if index.device.type == "mps" else torch.float64
    return before, after, ((time - start).to(wide) / (stop - start).clamp(min=1)).clamp(0, 1)


def _at_rank(kept: Tensor, rank: Tensor) -> Tensor:
    rank = rank.reshape(*rank.shape, *([1] * (kept.ndim - 2)))
    return kept.gather(1, rank.expand(-1, -1, *kept.shape[2:]))
