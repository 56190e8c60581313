"""What insight reports equals what is worked out by hand from the model's own parts."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cycledistill import wrap_cyclic, wrap_pruning
from cycledistill.insight import attention_maps, exit_scores, parameter_profile, token_drift

from . import toys

DIM, HEADS, LENGTH = 8, 2, 6


class Fused(nn.Module):
    """A block with fused attention, or with the same written out."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.qkv, self.out, self.fused = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM), fused

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1) @ v
        return x + self.out(y.transpose(1, 2).flatten(2))


class Net(nn.Module):
    def __init__(self, fused: bool = True, depth: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Fused(fused) for _ in range(depth))
        self.head = nn.Linear(DIM, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def net(fused: bool = True) -> Net:
    torch.manual_seed(0)
    return Net(fused)


def tokens() -> Tensor:
    return torch.randn(3, LENGTH, DIM, generator=torch.Generator().manual_seed(1))


def by_hand(model: Net, x: Tensor, cycles: int) -> tuple[list[Tensor], list[Tensor]]:
    """Attention weights layer by layer, and the tokens before and after every cycle."""
    weights, states = [], [x]
    with torch.no_grad():
        for _ in range(cycles):
            for block in model.blocks:
                q, k, _ = block.split(x)  # type: ignore[operator]
                weights.append((q @ k.transpose(-2, -1) / math.sqrt(DIM / HEADS)).softmax(-1))
                x = block(x)
            states.append(x)
    return weights, states


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("rows", [None, slice(0, 2)])
def test_attention_by_layer_and_cycle(fused: bool, rows: slice | None) -> None:
    model = net(fused)
    want, _ = by_hand(model, tokens(), 3)
    wrap_cyclic(model, 2).train()
    got = attention_maps(model, tokens(), cycles=3, rows=rows)
    assert [(m.cycle, m.layer) for m in got] == [(c, i) for c in (1, 2, 3) for i in (0, 1)]
    for one, weights in zip(got, want, strict=True):
        torch.testing.assert_close(one.weights, weights[:, :, rows or slice(None)])
    assert model.training and model.cyclic.exit == 1
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in model.blocks)


def test_masks_causal_order_and_grouped_queries() -> None:
    class Kinds(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    class Masked(Fused):
        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.split(x)
            keep = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=keep, scale=0.5)
            z = F.scaled_dot_product_attention(q, k[:, :1], v[:, :1], is_causal=True, scale=0.5, enable_gqa=True)
            return x + self.out((y + z).transpose(1, 2).flatten(2))

    torch.manual_seed(0)
    model = Kinds()
    model.blocks = nn.ModuleList(Masked(True) for _ in range(2))
    masked, grouped = attention_maps(model, tokens())[:2]
    with torch.no_grad():
        q, k, _ = model.blocks[0].split(tokens())  # type: ignore[operator]
    later = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
    for got, keys in ((masked, k), (grouped, k[:, :1].expand_as(k))):
        want = (q @ keys.transpose(-2, -1) * 0.5).masked_fill(later, -math.inf).softmax(-1)
        torch.testing.assert_close(got.weights, want)


def test_attention_of_torch_encoders_and_hugging_face() -> None:
    layer = nn.TransformerEncoderLayer(DIM, HEADS, 16, dropout=0.1, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    got = attention_maps(encoder, tokens(), blocks="layers")
    want = layer.self_attn.eval()(tokens(), tokens(), tokens(), average_attn_weights=False)[1]
    torch.testing.assert_close(got[0].weights, want.detach())
    assert len(got) == 2 and encoder.training

    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    model = transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=8, **sizes))
    images = torch.randn(2, 3, 16, 16)
    fused = attention_maps(
        model, {"pixel_values": images}, blocks="encoder.layer" if hasattr(model, "encoder") else "auto"
    )
    model.set_attn_implementation("eager")
    eager = model.eval()(images, output_attentions=True).attentions
    for a, b in zip(fused, eager, strict=True):
        torch.testing.assert_close(a.weights, b.detach(), rtol=1e-4, atol=1e-6)


def test_scores_of_a_pruning_layer_are_not_shown_as_a_second_attention() -> None:
    timm = pytest.importorskip("timm")
    model = wrap_pruning(timm.create_model("test_vit", img_size=64), (2,), keep=0.5)
    maps = attention_maps(model, torch.randn(1, 3, 64, 64))
    assert [(m.layer, m.weights.shape[-1]) for m in maps] == [(0, 17), (1, 17), (2, 17), (3, 9), (4, 9), (5, 9)]


def test_drift_of_tokens() -> None:
    model = net()
    _, states = by_hand(model, tokens(), 3)
    drifts = token_drift(wrap_cyclic(model, 2), tokens(), cycles=3)
    assert [d.cycle for d in drifts] == [1, 2, 3]
    for drift, a, b in zip(drifts, states, states[1:], strict=False):
        assert drift.norm == pytest.approx(float(b.norm(dim=-1).mean()), rel=1e-5)
        assert drift.step == pytest.approx(float(((b - a).norm(dim=-1) / a.norm(dim=-1)).mean()), rel=1e-5)
        assert drift.cosine == pytest.approx(float(F.cosine_similarity(a, b, dim=-1).mean()), rel=1e-5)
        # CKA as the correlation of centred Gram matrices, the other way of writing it
        grams = [x.flatten(0, 1).double() for x in (a, b)]
        grams = [(x - x.mean(0)) @ (x - x.mean(0)).T for x in grams]
        want = float((grams[0] * grams[1]).sum() / (grams[0].norm() * grams[1].norm()))
        assert drift.cka == pytest.approx(want, rel=1e-5)


def test_profile_of_parameters() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.005, -0.05], [0.15, 9.0]]))  # type: ignore[operator]
    profile = parameter_profile(model, threshold=0.01, limit=0.2, bins=4)
    assert (profile.count, profile.near_zero) == (4, 0.25)
    torch.testing.assert_close(profile.density, torch.tensor([0.0, 0.25, 0.25, 0.5]))
    torch.testing.assert_close(profile.edges, torch.tensor([-0.2, -0.1, 0.0, 0.1, 0.2]))


def test_scores_at_exits() -> None:
    model = net()
    x, target = tokens(), torch.tensor([0, 1, 2])
    _, states = by_hand(model, x, 3)
    with torch.no_grad():
        want = {k: float((model.head(states[k].mean(1)).argmax(-1) == target).float().mean()) for k in (1, 3)}
    wrap_cyclic(model, 2)
    assert exit_scores(model, [(x[:2], target[:2]), (x[2:], target[2:])], (1, 3)) == pytest.approx(want)
    assert model.training and model.cyclic.exit == 1


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="no attention"):
        attention_maps(nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))), tokens(), blocks="0")
    with pytest.raises(ValueError, match=r"\(3, 6, 5\)"):
        attention_maps(net(), tokens()[..., :5])
    with pytest.raises(ValueError, match="not wrapped"):
        attention_maps(net(), tokens(), cycles=2)
    with pytest.raises(ValueError, match="not wrapped"):
        exit_scores(net(), [], (1,))
    with pytest.raises(ValueError, match="no batches"):
        exit_scores(wrap_cyclic(toys.make(), 2), [], (1,))
    with pytest.raises(ValueError, match="threshold=0"):
        parameter_profile(net(), threshold=0)
    with pytest.raises(ValueError, match="no weights"):
        parameter_profile(nn.LayerNorm(3))
