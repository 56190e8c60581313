"""HRNet up to its third stage, the backbone of the B and L models."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .layers import BasicBlock, Bottleneck, conv_bn, init_convolutions
from .stemnet import StemNet


class HRNet(StemNet):
    """Three stages of HRNet; the last one ends in the branch of highest resolution.

    Takes images (B, 3, H, W) with sides divisible by 16, returns features (B, width, H/4, W/4). Modules and keys are
    HRNet's, so that its ImageNet weights fit once those of stage 4 are left out (`load_imagenet_backbone`).

    Args:
        width: Channels of the first branch: 32 or 48.
        stage1_width: Middle width of the bottlenecks of ``layer1``: 64, or 32 as in the published SDPose-B.

    Example:
        >>> HRNet(32)(torch.zeros(1, 3, 256, 192)).shape
        torch.Size([1, 32, 64, 48])

    Source: HRNet (CVPR 2019, arXiv 1902.09212), section 3.
    """

    def __init__(self, width: int = 32, stage1_width: int = 64) -> None:
        super().__init__(stage1_width)
        widths = [width, 2 * width, 4 * width]
        self.transition1 = _transition([Bottleneck.expansion * stage1_width], widths[:2])
        self.stage2 = nn.Sequential(HRModule(widths[:2]))
        self.transition2 = _transition(widths[:2], widths)
        self.stage3 = nn.Sequential(*(HRModule(widths, branches_out=1 if last else 3) for last in (0, 0, 0, 1)))
        init_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Features of a batch of images."""
        x = super().forward(x)
        branches = self.stage2([each(x) for each in self.transition1])
        # Only the new branch is made by a layer; the others pass as they are.
        branches = [*branches, self.transition2[-1](branches[-1])]
        return self.stage3(branches)[0]


class HRModule(nn.Module):
    """Parallel branches of four residual units each, then an exchange between all of them.

    Takes and returns a list of features, one a branch; branch i has half the size of branch i - 1.
    """

    def __init__(self, widths: Sequence[int], branches_out: int | None = None) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(width) for _ in range(4))) for width in widths)
        targets = range(len(widths) if branches_out is None else branches_out)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_fuse(widths, source, target) for source in range(len(widths))) for target in targets
        )
        self.relu = nn.ReLU(inplace=False)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Run the branches, and sum all of them at every resolution that is wanted."""
        features = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        fused = []
        for layers in self.fuse_layers:
            parts = [layer(x) for layer, x in zip(layers, features, strict=True)]  # type: ignore[call-overload]
            fused.append(self.relu(sum(parts[1:], parts[0])))
        return fused


def _fuse(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """What brings branch ``source`` to the size and width of branch ``target``."""
    if source == target:
        return nn.Identity()
    if source > target:
        up = nn.Upsample(scale_factor=2 ** (source - target), mode="nearest")
        return nn.Sequential(*conv_bn(widths[source], widths[target], 1), up)
    steps = target - source
    return nn.Sequential(
        *(conv_bn(widths[source], widths[source], stride=2, relu=True) for _ in range(steps - 1)),
        conv_bn(widths[source], widths[target], stride=2),
    )


def _transition(before: Sequence[int], after: Sequence[int]) -> nn.ModuleList:
    """Layers that give the first branch its width and start the new one; a branch that stays is an identity."""
    layers: list[nn.Module] = []
    for index, width in enumerate(after):
        if index >= len(before):
            layers.append(nn.Sequential(conv_bn(before[-1], width, stride=2, relu=True)))
        else:
            layers.append(nn.Identity() if before[index] == width else conv_bn(before[index], width, relu=True))
    return nn.ModuleList(layers)
