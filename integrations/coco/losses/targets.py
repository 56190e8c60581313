"""Heatmap targets: one Gaussian a joint, centred between pixels where the joint is."""

from __future__ import annotations

import torch


def heatmap_targets(
    joints: torch.Tensor,
    visible: torch.Tensor,
    image_size: tuple[int, int],
    heatmap_size: tuple[int, int],
    sigma: float = 2.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unbiased MSRA heatmaps, separable and for a whole batch at once.

    Args:
        joints: Joint positions in input pixels, (B, K, 2), x before y.
        visible: Which joints are labelled, (B, K), boolean or a number above 0.
        image_size: Height and width of the input in pixels.
        heatmap_size: Height and width of the heatmap.
        sigma: Standard deviation in heatmap pixels.

    Returns:
        Heatmaps (B, K, H, W) with maximum 1, and weights (B, K): 0, and an empty map, for a joint that is not labelled
        or whose box of 3 sigma lies off the map.

    Example:
        >>> maps, weights = heatmap_targets(torch.tensor([[[96.0, 128.0]]]), torch.ones(1, 1), (256, 192), (64, 48))
        >>> maps.shape, maps.argmax() % 48
        (torch.Size([1, 1, 64, 48]), tensor(24))

    Source: Xiao et al., "Simple Baselines" (ECCV 2018), with the un-rounded centre of DARK (CVPR 2020), equation 12.
    """
    height, width = heatmap_size
    strides = image_size[1] / width, image_size[0] / height
    # numbers, and no tensors made of them: those would have to travel to the device, which no CUDA graph can do
    centres = [joints[..., axis, None].to(torch.float32) / stride for axis, stride in enumerate(strides)]
    reach = 3 * sigma
    near = [(c - reach < size) & (c + reach + 1 >= 0) for c, size in zip(centres, (width, height), strict=True)]
    on_map = (near[0] & near[1])[..., 0]
    weights = ((visible > 0) & on_map).to(torch.float32)
    x = torch.arange(width, dtype=torch.float32, device=joints.device)
    y = torch.arange(height, dtype=torch.float32, device=joints.device)
    across = torch.exp(-((x - centres[0]) ** 2) / (2 * sigma**2))
    down = torch.exp(-((y - centres[1]) ** 2) / (2 * sigma**2)) * weights[..., None]
    return down[..., :, None] * across[..., None, :], weights
