"""Adaptive exits on a GPU, eager and compiled, against the fixed exits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cycledistill import at_exit, wrap_cyclic
from cycledistill.adaptive import AdaptiveExit
from tests.gpu.running import images, vit

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("cast", [False, True], ids=["float32", "bfloat16"])
def test_rows_are_those_of_the_fixed_exits(cast: bool, compiled: bool, device: torch.device) -> None:
    pytest.importorskip("timm")
    model = wrap_cyclic(vit(device), 3, "exits").eval()
    how: Any = ({} if device.type == "cuda" else {"backend": "aot_eager"}) if compiled else False
    adaptive = AdaptiveExit(model, (1, 2, 3), compile=how)
    x, _ = images(device, size=32)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=cast):
        assert adaptive.calibrate([x], budget=1.8).cost <= 1.8
        outputs, exits = adaptive(x, return_exits=True)
        assert exits.device.type == device.type and len(set(exits.tolist())) == 3
        for each in (1, 2, 3):
            with at_exit(model, each):
                expected = model(x)[exits == each]
            tolerance = 0.05 if cast else 1e-3
            torch.testing.assert_close(outputs[exits == each], expected, rtol=tolerance, atol=tolerance)
