"""Which device computes in half precision by itself: asked of the processor and of the GPU, here of stand-ins."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from cycledistill.recipes.run.precision import fast_half, has_units

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets whether the GPU has bfloat16; one that has not can always emulate it."""

    def made(bfloat16: bool) -> None:
        entered: list[torch.device] = []

        def supported(including_emulation: bool = True) -> bool:
            assert entered == [GPU], "asked of another GPU"
            return bfloat16 or including_emulation

        monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext(entered.append(device)))
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)

    return made


@pytest.mark.parametrize(
    ("features", "bfloat16", "float16"),
    [
        ({"architecture": "x86_64", "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False, False),
        ({"architecture": "x86_64", "avx512_bf16": True, "avx512_fp16": False}, True, False),
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": True, "amx_fp16": True}, True, True),
        ({"architecture": "aarch64", "neon": True, "bf16": True, "fp16_arith": True}, True, True),
        ({"architecture": "another"}, False, False),
    ],
)  # fmt: skip
def test_processors(monkeypatch: pytest.MonkeyPatch, features: Any, bfloat16: bool, float16: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert has_units(CPU, torch.bfloat16) is bfloat16
    assert has_units(CPU, torch.float16) is float16
    assert has_units(CPU, torch.float32) and has_units(CPU, torch.float64)
    assert fast_half(CPU) is None


def test_the_names_are_those_that_torch_has() -> None:
    features = torch.cpu.get_capabilities()
    if features["architecture"] != "x86_64":
        pytest.skip("the names below are those of x86")
    assert {"avx512_bf16", "amx_bf16", "avx512_fp16", "amx_fp16"} <= set(features)


def test_gpus(gpu: Any) -> None:
    gpu(bfloat16=True)
    assert has_units(GPU, torch.bfloat16)
    gpu(bfloat16=True)
    assert fast_half(GPU) is torch.bfloat16
    gpu(bfloat16=False)
    assert not has_units(GPU, torch.bfloat16)
    assert has_units(GPU, torch.float16)
    gpu(bfloat16=False)
    assert fast_half(GPU) is torch.float16


def test_other_accelerators_are_left_as_they_are() -> None:
    assert fast_half(torch.device("mps")) is None
    assert has_units(torch.device("mps"), torch.bfloat16)
