"""Which devices compute in half precision by themselves, and which only emulate it."""

from __future__ import annotations

import torch

_OF_PROCESSORS = {
    torch.bfloat16: ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"),
    torch.float16: ("avx512_fp16", "amx_fp16", "fp16_arith"),
}
"""Type -> the features of x86 and ARM, as ``torch.cpu.get_capabilities`` names them, any of which computes in it."""


def has_units(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a device computes in ``dtype`` by itself; else PyTorch emulates it, several times slower than float32.

    Args:
        device: A processor or a CUDA device is asked; any other is trusted with every type.
        dtype: Types but bfloat16 and float16 are computed everywhere.

    Example:
        >>> has_units(torch.device("cpu"), torch.float32)
        True
    """
    if dtype not in _OF_PROCESSORS:
        return True
    if device.type == "cpu":
        features = torch.cpu.get_capabilities()
        return any(features.get(name) for name in _OF_PROCESSORS[dtype])
    if device.type == "cuda" and dtype is torch.bfloat16:
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return True


def fast_half(device: torch.device) -> torch.dtype | None:
    """The half precision a GPU is to compute in: bfloat16, or float16 where it has no units for that; else ``None``."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if has_units(device, torch.bfloat16) else torch.float16
