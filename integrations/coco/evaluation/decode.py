"""From heatmaps back to joints in the picture: flip averaging, sub-pixel decoding, image coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from ..data.annotations import PIXEL_STD

Method = Literal["dark", "quarter", "none"]


_MAPS_AT_ONCE = 512


def flip_back(heatmaps: torch.Tensor, flip_order: Sequence[int], shift: bool = True) -> torch.Tensor:
    """Heatmaps of a mirrored image, as those of the image itself.

    Args:
        heatmaps: (B, K, H, W) predicted for ``image.flip(-1)``.
        flip_order: For each joint the index of its mirror partner.
        shift: Move the result one pixel to the right, which aligns it when strided feature maps are mirrored.
    """
    restored = heatmaps[:, list(flip_order)].flip(-1)
    if shift:
        restored = torch.cat([restored[..., :1], restored[..., :-1]], dim=-1)
    return restored


def decode_heatmaps(
    heatmaps: torch.Tensor, method: Method = "dark", kernel: int = 11
) -> tuple[torch.Tensor, torch.Tensor]:
    """Joint positions and scores of heatmaps.

    Args:
        heatmaps: (B, K, H, W).
        method: ``"dark"`` (one Newton step on the log of the smoothed map), ``"quarter"`` (a quarter pixel towards the
            larger neighbour), or ``"none"``.
        kernel: Side of the Gaussian that DARK smooths with, odd, in heatmap pixels.

    Returns:
        Positions (B, K, 2) in heatmap pixels, x before y, and scores (B, K): the maximum of each map before smoothing.
        A map without a positive value has the position (-1, -1).

    Raises:
        ValueError: Not four dimensions, an unknown method, or an even kernel.

    Source: DARK (Zhang et al., CVPR 2020), equations 7 to 9.
    """
    if heatmaps.ndim != 4:
        raise ValueError(f"heatmaps of shape {tuple(heatmaps.shape)}: (B, K, H, W) is expected")
    if method not in ("dark", "quarter", "none"):
        raise ValueError(f'method={method!r}: "dark", "quarter" or "none" is expected')
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel={kernel}: an odd number of pixels is expected")
    batch, joints, height, width = heatmaps.shape
    maps = heatmaps.reshape(batch * joints, height, width).to(torch.float32)
    scores, index = maps.flatten(1).max(dim=1)
    x, y = index % width, index // width
    position = torch.stack([x, y], dim=-1).to(torch.float32)
    if method == "dark":
        position = position + _newton_steps(maps, x, y, kernel)
    elif method == "quarter":
        position = position + _quarter_step(maps, x, y)
    position = torch.where(scores[:, None] > 0, position, -torch.ones_like(position))
    return position.view(batch, joints, 2), scores.view(batch, joints)


def to_image(
    positions: torch.Tensor,
    centers: torch.Tensor,
    scales: torch.Tensor,
    heatmap_size: tuple[int, int],
) -> torch.Tensor:
    """Heatmap positions in the coordinates of the picture the boxes were cut from.

    Args:
        positions: (B, K, 2) in heatmap pixels.
        centers: Box centres in picture pixels, (B, 2).
        scales: Box width and height in units of 200 pixels, (B, 2).
        heatmap_size: Height and width of the heatmap.
    """
    size = scales.to(torch.float32) * PIXEL_STD
    step = size / torch.tensor([heatmap_size[1], heatmap_size[0]], dtype=torch.float32, device=positions.device)
    return positions * step[:, None] + (centers.to(torch.float32) - size / 2)[:, None]


def _quarter_step(maps: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    height, width = maps.shape[1:]
    near = _windows(maps, x, y, 1)
    gradient = torch.stack([near[:, 1, 2] - near[:, 1, 0], near[:, 2, 1] - near[:, 0, 1]], dim=-1)
    inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    return 0.25 * gradient.sign() * inside[:, None]


def _newton_steps(maps: torch.Tensor, x: torch.Tensor, y: torch.Tensor, kernel: int) -> torch.Tensor:
    if torch.compiler.is_compiling() or maps.device.type != "cpu" or maps.shape[0] == 0:
        return _newton_step(maps, x, y, kernel)
    # On a CPU the padded copies of a few maps at a time fit into memory that the allocator has at hand.
    parts = zip(maps.split(_MAPS_AT_ONCE), x.split(_MAPS_AT_ONCE), y.split(_MAPS_AT_ONCE), strict=True)
    return torch.cat([_newton_step(*part, kernel) for part in parts])


def _newton_step(maps: torch.Tensor, x: torch.Tensor, y: torch.Tensor, kernel: int) -> torch.Tensor:
    """The step from the maximum to that of a Gaussian with the same derivatives, zero at the border."""
    height, width = maps.shape[1:]
    log = _log_smoothed(maps, x, y, kernel)
    dx = (log[:, 2, 3] - log[:, 2, 1]) / 2
    dy = (log[:, 3, 2] - log[:, 1, 2]) / 2
    dxx = (log[:, 2, 4] - 2 * log[:, 2, 2] + log[:, 2, 0]) / 4
    dyy = (log[:, 4, 2] - 2 * log[:, 2, 2] + log[:, 0, 2]) / 4
    dxy = (log[:, 3, 3] - log[:, 1, 3] - log[:, 3, 1] + log[:, 1, 1]) / 4
    determinant = dxx * dyy - dxy**2
    usable = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2) & (determinant != 0)
    divisor = torch.where(usable, determinant, torch.ones_like(determinant))
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], dim=-1) / divisor[:, None]
    usable &= torch.isfinite(step).all(dim=-1)  # a map all but flat at its maximum
    return torch.where(usable[:, None], step, torch.zeros_like(step)).float()


def _log_smoothed(maps: torch.Tensor, x: torch.Tensor, y: torch.Tensor, kernel: int) -> torch.Tensor:
    """Log of the smoothed map in the 5 x 5 pixels around each maximum; the rest of the map is never smoothed.

    The method rescales the smoothed map to the maximum it had. In the logarithm that is a constant, without effect on
    derivatives, except where a value falls under the floor of the logarithm: only those maps are smoothed whole.
    """
    floor = 1e-10
    radius = kernel // 2
    band = _band(kernel, maps.device)
    smooth = band @ _windows(maps, x, y, radius + 2) @ band.T
    low = (smooth < 10 * floor).flatten(1).any(1)
    if torch.compiler.is_compiling() or maps.is_meta:  # a graph, exported or compiled, goes one way for all maps
        smooth = torch.where(low[:, None, None], smooth * _lost_height(maps, kernel), smooth)
    elif low.any():
        smooth[low] = smooth[low] * _lost_height(maps[low], kernel)
    # Second differences of near numbers follow. TensorRT and Apple's GPUs know no doubles; in single precision joints
    # move by up to 4e-6 heatmap pixels, 1.5e-5 of the image (20,000 noisy maps).
    exact = not torch.compiler.is_exporting() and maps.device.type != "mps"
    return (smooth.double() if exact else smooth).clamp_min(floor).log()


def _windows(maps: torch.Tensor, x: torch.Tensor, y: torch.Tensor, radius: int) -> torch.Tensor:
    """The (2 radius + 1)-square around each (x, y), zero outside the map."""
    padded = torch.nn.functional.pad(maps, (radius,) * 4)
    span = torch.arange(2 * radius + 1, device=maps.device)
    rows, columns = y[:, None] + span, x[:, None] + span
    flat = rows[:, :, None] * padded.shape[2] + columns[:, None, :]
    return padded.flatten(1).gather(1, flat.flatten(1)).view(-1, 2 * radius + 1, 2 * radius + 1)


def _gaussian(kernel: int, device: torch.device) -> torch.Tensor:
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8  # the width OpenCV gives a kernel of this size; 2 for 11
    offset = torch.arange(kernel, dtype=torch.float32, device=device) - kernel // 2
    weights = torch.exp(-(offset**2) / (2 * sigma**2))
    return weights / weights.sum()


def _band(kernel: int, device: torch.device) -> torch.Tensor:
    """Matrix (5, kernel + 4) whose row i smooths around pixel i of a window."""
    weights = _gaussian(kernel, device)
    band = torch.zeros(5, kernel + 4, device=device)
    for row in range(5):
        band[row, row : row + kernel] = weights
    return band


def _lost_height(maps: torch.Tensor, kernel: int) -> torch.Tensor:
    """Maximum of each map over that of the smoothed map, (N, 1, 1)."""
    peak = _smooth_whole(maps, kernel).amax((1, 2), keepdim=True)
    return maps.amax((1, 2), keepdim=True) / peak.clamp_min(torch.finfo(torch.float32).tiny)


def _smooth_whole(maps: torch.Tensor, kernel: int) -> torch.Tensor:
    weights, radius = _gaussian(kernel, maps.device), kernel // 2
    rows = torch.nn.functional.conv2d(maps[:, None], weights.view(1, 1, 1, -1), padding=(0, radius))
    return torch.nn.functional.conv2d(rows, weights.view(1, 1, -1, 1), padding=(radius, 0))[:, 0]
