"""The pieces of HRNet: convolutions without bias, each followed by BatchNorm, and the two residual units."""

from __future__ import annotations

from torch import Tensor, nn


def conv(channels: int, out: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size, divided by ``stride``."""
    return nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, bias=False)


def conv_bn(channels: int, out: int, kernel: int = 3, stride: int = 1, relu: bool = False) -> nn.Sequential:
    """Convolution, BatchNorm and, on request, ReLU; keys ``0.*`` and ``1.*``."""
    layers: list[nn.Module] = [conv(channels, out, kernel, stride), nn.BatchNorm2d(out)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around an identity: (B, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(channels, channels), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = conv(channels, channels), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the two convolutions make of ``x`` to it."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions, four times as wide at the end: (B, C, H, W) to (B, 4 * width, H, W)."""

    expansion = 4

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        out = self.expansion * width
        self.conv1, self.bn1 = conv(channels, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, out, 1), nn.BatchNorm2d(out)
        self.downsample = conv_bn(channels, out, 1) if channels != out else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the three convolutions make of ``x`` to it, or to its 1x1 projection."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + shortcut)


def init_convolutions(module: nn.Module) -> None:
    """Draw every convolution of ``module`` from N(0, 0.001^2) and reset every BatchNorm, as HRNet for poses does."""
    for each in module.modules():
        if isinstance(each, nn.Conv2d):
            nn.init.normal_(each.weight, std=0.001)
        elif isinstance(each, nn.BatchNorm2d):
            nn.init.ones_(each.weight)
            nn.init.zeros_(each.bias)
