"""How these tests run things: models moved and cast, code compiled, steps captured, training steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tests import toys
from tests.oracle import scramble

C = TypeVar("C", bound=Callable[..., Any])
MODES = ("default", "reduce-overhead")


def toy(cls: type[nn.Module] = toys.ToyViT, **options: Any) -> nn.Module:
    """A toy in float32, on the CPU."""
    return toys.make(cls, **options).float()


def toy_batch(device: torch.device, size: int = 8, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Raw tokens (B, 8, 6) and labels (B,)."""
    x, target = toys.batch(seed, size, tokens=8)
    return x.float().to(device), target.to(device)


def vit(device: torch.device, **options: Any) -> nn.Module:
    """timm's small ViT, three blocks at 32 px, with weights that are nowhere zero."""
    import timm

    torch.manual_seed(0)
    options = {"img_size": 32, "patch_size": 8, "depth": 3, "num_classes": 10, **options}
    return scramble(timm.create_model("vit_tiny_patch16_224", **options), scale=0.02).to(device)


def images(device: torch.device, size: int = 8, side: int = 32) -> tuple[Tensor, Tensor]:
    """Images (B, 3, S, S) and labels (B,) of ten classes."""
    g = torch.Generator().manual_seed(2)
    x, target = torch.randn(size, 3, side, side, generator=g), torch.randint(10, (size,), generator=g)
    return x.to(device), target.to(device)


def compiled(call: C, device: torch.device, mode: str = "default", **options: Any) -> C:
    """Compiled by inductor on a GPU; on the CPU, where that would wait for a C++ compiler, traced and run as it is."""
    how = {"mode": mode} if device.type == "cuda" else {"backend": "aot_eager"}
    return torch.compile(call, **{"fullgraph": True, **how, **options})


def every_way(model: nn.Module, device: torch.device) -> list[Any]:
    """The model as it is and compiled, on a GPU in both modes."""
    return [model, *(compiled(model, device, mode) for mode in (MODES if device.type == "cuda" else MODES[:1]))]


def new_step(device: torch.device) -> None:
    """Tell ``mode="reduce-overhead"`` that results of the last step are no longer needed."""
    if device.type == "cuda":
        torch.compiler.cudagraph_mark_step_begin()


def captured(call: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """``call`` as a CUDA graph, after the warm-up on a stream of its own that capturing asks for.

    The graph's results are those of the captured call: the same tensors, written anew by each replay. On the CPU it is
    the call itself.
    """
    if device.type != "cuda":
        return call
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()

    def replay() -> Any:
        graph.replay()
        return results

    return replay
