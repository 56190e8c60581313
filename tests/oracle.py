"""What N cycles must give, worked out without any of the library's code.

`Truth` is a deep copy of the plain model whose own container holds the blocks M times. The model's own forward then
runs stack, stack, ..., tail; with M = 1..N it yields what each cycle must return. The copies share parameters, so the
gradients of a sum of losses over M are the gradients the wrapped model must have.
"""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

Adjust = Callable[[nn.Module, int], Any]


class Again(nn.Module):
    """Runs one module several times over its first argument: the truth for a stack that is one module."""

    def __init__(self, module: nn.Module, times: int) -> None:
        super().__init__()
        self.module, self.times = module, times

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._modules["module"], name)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        for _ in range(self.times):
            x = self.module(x, *args, **kwargs)
        return x


class Truth:
    """The plain model with its stack repeated inside its own container.

    Args:
        model: The model before wrapping; copied, never touched.
        path: Container ("blocks", "layers.2.blocks"), slice of one ("blocks[0:10]") or one module.
        adjust: Called with the copy and M before a run, for models that count depth elsewhere; may return an undo.
    """

    def __init__(self, model: nn.Module, path: str = "blocks", adjust: Adjust | None = None) -> None:
        self.model = copy.deepcopy(model)
        self.path, self.adjust = path, adjust

    @contextmanager
    def repeated(self, times: int) -> Iterator[nn.Module]:
        """The copy whose stack runs `times` times; running statistics are put back afterwards."""
        name, start, stop = re.fullmatch(r"([\w.]+)(?:\[(\d*):(\d*)\])?", self.path).groups()
        owner = self.model.get_submodule(name)
        buffers = {key: value.clone() for key, value in statistics(self.model).items()}
        parent, _, leaf = name.rpartition(".")
        is_container = isinstance(owner, (nn.Sequential, nn.ModuleList)) or (not callable_on_tokens(owner))
        kept = owner._modules
        undo = None
        try:
            if is_container:
                inner = list(kept.values())
                low, high = int(start or 0), int(stop or len(inner))
                inner = inner[:low] + inner[low:high] * times + inner[high:]
                owner._modules = OrderedDict((str(i), block) for i, block in enumerate(inner))
            else:
                setattr(self.model.get_submodule(parent), leaf, Again(owner, times))
            undo = self.adjust(self.model, times) if self.adjust else None
            yield self.model
        finally:
            owner._modules = kept
            if not is_container:
                setattr(self.model.get_submodule(parent), leaf, owner)
            if undo:
                undo()
            for key, value in statistics(self.model).items():
                value.data.copy_(buffers[key])  # past the version counter: backward of BatchNorm still needs the buffer

    def __call__(self, times: int, *args: Any, method: str = "forward", **kwargs: Any) -> Any:
        """What the model returns after `times` cycles."""
        with self.repeated(times) as model:
            run = model if method == "forward" else getattr(model, method)
            return run(*args, **kwargs)

    def cycles(self, count: int, *args: Any, **kwargs: Any) -> list[Any]:
        """What the model returns after 1, 2, ... `count` cycles."""
        return [self(times, *args, **kwargs) for times in range(1, count + 1)]

    def gradients(self) -> dict[str, Tensor | None]:
        return gradients(self.model)


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """The running statistics of every BatchNorm, by name."""
    names = ("running_mean", "running_var", "num_batches_tracked")
    return {name: buffer for name, buffer in model.named_buffers() if name.rpartition(".")[2] in names}


def callable_on_tokens(module: nn.Module) -> bool:
    return type(module).forward is not nn.Module.forward


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    """Gradients by parameter name."""
    return {name: p.grad for name, p in model.named_parameters()}


def scramble(model: nn.Module, scale: float = 0.05, seed: int = 7) -> nn.Module:
    """Moves every parameter off its initial value, so that zero-initialised scales hide nothing."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.empty_like(p).uniform_(-scale, scale, generator=g))
    return model


def calm(model: nn.Module) -> nn.Module:
    """Switches dropout and drop path off wherever modules hold them, so that runs can be compared."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        if isinstance(getattr(module, "drop_prob", None), float):
            module.drop_prob = 0.0
    return model


def scale_of(tree: Any) -> float:
    """Largest absolute value in a tree of tensors."""
    return max(float(leaf.detach().abs().max()) for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def assert_same(got: Any, want: Any, rtol: float = 0.0, what: str = "") -> None:
    """Two trees of tensors agree: exactly, or within `rtol` of the largest value of each tensor."""
    got, want = tree_leaves(got), tree_leaves(want)
    assert len(got) == len(want), f"{what}: {len(got)} leaves against {len(want)}"
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        if not isinstance(a, Tensor):
            assert a == b, f"{what}: leaf {i} is {a!r}, not {b!r}"
            continue
        assert a.shape == b.shape, f"{what}: leaf {i} has shape {tuple(a.shape)}, not {tuple(b.shape)}"
        assert bool(torch.isfinite(b).all()), f"{what}: the truth itself is not finite"
        gap = float((a.detach() - b.detach()).abs().max()) if a.numel() else 0.0
        allowed = rtol * float(b.detach().abs().max()) if a.numel() else 0.0
        assert gap <= allowed, f"{what}: leaf {i} differs by {gap:.3g} (allowed {allowed:.3g})"


def assert_differ(a: Any, b: Any, fraction: float = 1e-3) -> None:
    """Guards a comparison against being empty: two cycles of a scrambled model must not agree."""
    gap = max(
        float((x.detach() - y.detach()).abs().max())
        for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True)
        if isinstance(x, Tensor) and x.is_floating_point()
    )
    assert gap > fraction * scale_of(b), f"cycles differ by {gap:.3g} only: this comparison would prove nothing"


def assert_same_gradients(got: dict[str, Tensor | None], want: dict[str, Tensor | None], rtol: float) -> None:
    """Same parameters get a gradient, and the same one (None and zero are told apart)."""
    assert got.keys() == want.keys()
    assert any(g is not None and bool(g.abs().max() > 0) for g in want.values()), "the truth has no gradient at all"
    largest = max(float(g.abs().max()) for g in want.values() if g is not None)
    for name, b in want.items():
        a = got[name]
        assert (a is None) == (b is None), f"{name}: gradient is {'missing' if a is None else 'unexpected'}"
        if a is not None and b is not None:
            gap = float((a - b).abs().max())
            assert gap <= rtol * largest, f"{name}: gradients differ by {gap:.3g} (allowed {rtol * largest:.3g})"


def snapshot(model: nn.Module) -> dict[str, tuple[Any, ...]]:
    """All that wrapping may touch: class, attributes and hooks of every module. Equal snapshots mean 'as before'."""
    return {
        name: (
            type(module),
            tuple(sorted(vars(module))),
            tuple(len(vars(module)[key]) for key in sorted(vars(module)) if key.endswith("hooks")),
            tuple(module._modules),
        )
        for name, module in model.named_modules(remove_duplicate=False)
    }
