"""Children of a wrapped model that another tool replaced: quantised layers, parametrizations, other attentions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

pytest.importorskip("timm")

from cycledistill import StackError, unwrap_pruning, wrap_cyclic, wrap_hourglass, wrap_pruning
from tests.hourglass.models import FrameModel, build, poses
from tests.prune.oracle import drop_after_whole_layers, embed, finish, images, vit

LAYERS, KEEP = (1, 2), 0.5


class Rounded(nn.Module):
    """A linear layer whose weights were rounded to eight bits, as tools that swap modules put in place of one."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.scale = float(linear.weight.detach().abs().max()) / 3  # coarse, so that other tokens are kept
        self.register_buffer("rounded", (linear.weight.detach() / self.scale).round().to(torch.int8))
        self.register_buffer("bias", linear.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.rounded.to(x.dtype) * self.scale, self.bias)


class Doubled(nn.Module):
    """Calls what it stands around."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.inside(x)


def round_qkv(block: Any) -> None:
    block.attn.qkv = Rounded(block.attn.qkv)


def round_all(block: Any) -> None:
    round_qkv(block)
    block.mlp.fc1, block.mlp.fc2 = Rounded(block.mlp.fc1), Rounded(block.mlp.fc2)


def replace_attention(block: Any) -> None:
    torch.manual_seed(1)
    block.attn = copy.deepcopy(vit().blocks[0].attn)


def surround(*names: str) -> Callable[[Any], None]:
    def change(block: Any) -> None:
        for name in names:
            owner, _, child = name.rpartition(".")
            parent = block.get_submodule(owner)
            setattr(parent, child, Doubled(getattr(parent, child)))

    return change


def weight_norm(block: Any) -> None:
    parametrizations.weight_norm(block.attn.qkv)
    with torch.no_grad():
        block.attn.qkv.parametrizations.weight.original0.mul_(2)


def spectral_norm(block: Any) -> None:
    torch.manual_seed(2)
    parametrizations.spectral_norm(block.attn.qkv)
    parametrizations.spectral_norm(block.mlp.fc1)


def hooked(block: Any) -> None:
    block.attn.qkv.register_forward_hook(lambda module, args, output: output * torch.linspace(1, 3, output.shape[-1]))


CHANGES: dict[str, Callable[[Any], None]] = {
    "rounded qkv": round_qkv,
    "rounded linear layers": round_all,
    "another attention": replace_attention,
    "something around qkv, norm2 and mlp": surround("attn.qkv", "norm2", "mlp"),
    "something around attn": surround("norm1", "attn.proj"),
    "weight norm": weight_norm,
    "spectral norm": spectral_norm,
    "a hook on qkv": hooked,
}


def changed(model: Any, name: str) -> Any:
    for block in model.blocks:
        CHANGES[name](block)
    return model.eval()


@pytest.mark.parametrize("cycles", [False, True], ids=["alone", "with cycles"])
@pytest.mark.parametrize("name", CHANGES)
def test_pruning_acts_in_what_stands_there_now(name: str, cycles: bool) -> None:
    base, x = vit(depth=3), images(3)
    pruned = wrap_pruning(copy.deepcopy(base), LAYERS, KEEP)
    if cycles:
        wrap_cyclic(pruned, cycles=2, distill=None)
    pruned(x)
    changed(pruned, name)
    plain = changed(copy.deepcopy(base), name)
    with torch.no_grad():
        state, index = drop_after_whole_layers(plain.blocks, embed(plain, x), LAYERS, KEEP, slice(0, 1), 1)
        torch.testing.assert_close(pruned(x), finish(plain, state), rtol=1e-10, atol=1e-10)
    assert torch.equal(pruned.pruning.index, index)
    if cycles and name != "spectral norm":  # which estimates another norm in training
        torch.testing.assert_close(pruned.train()(x)[0], finish(plain, state), rtol=1e-10, atol=1e-10)


class Fused(nn.Module):
    """Attention without a layer of its own for queries, keys and values."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads, self.scale = attention.num_heads, attention.scale
        self.weight, self.bias, self.proj = attention.qkv.weight, attention.qkv.bias, attention.proj

    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        q, k, v = nn.functional.linear(x, self.weight, self.bias).chunk(3, -1)
        return self.proj(nn.functional.scaled_dot_product_attention(q, k, v))


class Sigmoid(nn.Module):
    """Attention whose weights are no softmax."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads, self.scale, self.qkv, self.proj = (
            getattr(attention, name) for name in ("num_heads", "scale", "qkv", "proj")
        )
        self.factor = self.scale

    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.proj((q @ k.mT * self.factor).sigmoid() @ v)


class Unscaled(Sigmoid):
    """One that does not say its scale."""

    def __init__(self, attention: Any) -> None:
        super().__init__(attention)
        del self.scale


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        (Fused, r"block 1 has no attn.qkv any more: another tool put a Fused there .* unwrap_pruning\(model\)"),
        (Sigmoid, "attention of block 1, a Sigmoid, is not plain softmax attention"),
        (Unscaled, "attention of block 1, a Unscaled, has no scale"),
    ],
)
def test_attention_that_cannot_be_read_is_refused_by_name(attention: Any, message: str) -> None:
    pruned, x = wrap_pruning(vit(), LAYERS, KEEP), images()
    pruned(x)
    pruned.blocks[1].attn = attention(pruned.blocks[1].attn)
    with pytest.raises(StackError, match=message):
        pruned(x)
    with pytest.raises(StackError, match=message):  # and again
        pruned(x)
    unwrap_pruning(pruned)(x)


def test_a_replaced_part_whose_class_cannot_change_is_refused_by_name() -> None:
    pruned, x = wrap_pruning(vit(), LAYERS, KEEP), images()
    linear = parametrizations.weight_norm(nn.Linear(24, 72).double())
    pruned.blocks[1].attn.qkv = linear
    with pytest.raises(StackError, match="a ParametrizedLinear stands where a plug-in acts, .* before the model is wr"):
        pruned(x)


def test_an_hourglass_refuses_an_attention_it_can_no_longer_read() -> None:
    model = wrap_hourglass(build(FrameModel), layer=2, keep=5, select="attention", recover=False)
    model(poses())
    model.levels[1].attn = nn.Identity()
    with pytest.raises(StackError, match=r"reads levels.1.attn.qkv, which is there no more: another tool put a Ident"):
        model(poses())


def test_an_hourglass_reads_a_quantised_attention() -> None:
    base, x = build(FrameModel), poses(4)
    settings: dict[str, Any] = {"layer": 2, "keep": 4, "select": "attention", "recover": False, "centre": False}
    model, truth = wrap_hourglass(copy.deepcopy(base), **settings), copy.deepcopy(base)
    model(x)
    before = model.hourglass.index
    for each in (model, truth):
        for level in each.levels:
            round_qkv(level)
    wrap_hourglass(truth, **settings)
    torch.testing.assert_close(model(x), truth(x), rtol=1e-12, atol=1e-12)
    assert torch.equal(model.hourglass.index, truth.hourglass.index)
    assert not torch.equal(model.hourglass.index, before)
