"""The small backbone of the S and T models: HRNet's stem and first stage."""

from __future__ import annotations

from torch import Tensor, nn

from .layers import Bottleneck, conv, init_convolutions


class StemNet(nn.Module):
    """Two strided 3x3 convolutions and four bottlenecks.

    Takes images (B, 3, H, W), returns features (B, 4 * stage1_width, H/4, W/4). Keys are HRNet's, so its ImageNet
    weights fit a ``stage1_width`` of 64.

    Example:
        >>> StemNet()(torch.zeros(1, 3, 256, 192)).shape
        torch.Size([1, 256, 64, 48])

    Source: TokenPose (ICCV 2021).
    """

    def __init__(self, stage1_width: int = 64) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(3, 64, stride=2), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = conv(64, 64, stride=2), nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        out = Bottleneck.expansion * stage1_width
        self.layer1 = nn.Sequential(*(Bottleneck(64 if index == 0 else out, stage1_width) for index in range(4)))
        init_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Features of a batch of images."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.layer1(x)
