"""What insight reports equals what is worked out by hand from the model's own parts."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cycledistill import wrap_cyclic, wrap_pruning
from cycledistill.insight.measures import attention_maps, exit_scores, parameter_profile, token_drift
from tests import toys

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


class Single(nn.Module):
    """One head written out without an axis for it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(DIM, 3 * DIM)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return x + torch.bmm((q @ k.transpose(1, 2) / math.sqrt(DIM)).softmax(2), v)


class Fused3d(Single):
    def forward(self, x: Tensor) -> Tensor:
        return x + F.scaled_dot_product_attention(*self.qkv(x).chunk(3, dim=-1))


@pytest.mark.parametrize("kind", [Single, Fused3d])
def test_a_single_head_without_an_axis_for_it(kind: type[Single]) -> None:
    model = net()
    model.blocks = nn.ModuleList(kind() for _ in range(2))
    q, k, _ = model.blocks[0].qkv(tokens()).chunk(3, dim=-1)  # type: ignore[operator]
    want = (q @ k.transpose(1, 2) / math.sqrt(DIM)).softmax(-1).unsqueeze(1).detach()
    got = attention_maps(model, tokens(), rows=slice(1, 3))
    assert [(m.layer, m.part) for m in got] == [(0, 0), (1, 0)]
    torch.testing.assert_close(got[0].weights, want[:, :, 1:3])


def test_attention_over_channels_is_told_apart() -> None:
    timm = pytest.importorskip("timm")
    images = torch.randn(2, 3, 64, 64)
    with pytest.raises(ValueError, match="over channels, not over tokens"):
        attention_maps(timm.create_model("xcit_nano_12_p16_224", img_size=64), images)
    # DaViT: windows over tokens, 1 of 4 x 4 (padded to 7 x 7) a picture, and channels in turn
    davit = timm.create_model("davit_tiny", depths=(1, 1, 2, 1), embed_dims=(32, 32, 64, 64), num_heads=(2,) * 4)
    maps = attention_maps(davit, images, blocks="stages.2.blocks")
    assert {(m.part, tuple(m.weights.shape[2:])) for m in maps} == {(0, (49, 49))}


def test_windows_come_image_by_image_and_parts_are_told_apart() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=16, depths=(2, 1), num_heads=(2, 2)
    )
    images = torch.randn(2, 3, 32, 32)
    maps = attention_maps(swin, images, blocks="layers.0.blocks")
    assert [tuple(m.weights.shape) for m in maps] == [(2 * 4, 2, 16, 16)] * 2
    second = attention_maps(swin, images[1:], blocks="layers.0.blocks")
    torch.testing.assert_close(maps[0].weights[4:], second[0].weights)

    convit = timm.create_model("convit_tiny", img_size=64)
    maps = attention_maps(convit, images.repeat(1, 1, 2, 2), blocks="blocks[0:10]")
    assert [(m.layer, m.part) for m in maps] == [(layer, part) for layer in range(10) for part in (0, 1)]
    assert not torch.equal(maps[0].weights[0], maps[0].weights[1])  # by content
    torch.testing.assert_close(maps[1].weights[0], maps[1].weights[1])  # by position, whatever the image


def test_the_mean_alone_is_kept_on_request() -> None:
    whole, mean = (attention_maps(net(), tokens(), mean=mean) for mean in (False, True))
    assert mean[0].weights.shape == (1, 1, LENGTH, LENGTH)
    torch.testing.assert_close(mean[1].weights[0, 0], whole[1].weights.mean((0, 1)))


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


def test_nan_is_no_right_answer_and_no_samples_show_nothing() -> None:
    model = wrap_cyclic(net(), 2).eval()
    with torch.no_grad():
        model.head.bias.fill_(float("nan"))  # argmax takes the first nan for the largest
    assert exit_scores(model, [(tokens(), torch.zeros(3, dtype=torch.long))], (1,)) == {1: 0.0}
    for look in (attention_maps, token_drift):
        with pytest.raises(ValueError, match=r"inputs of shape \(0, 6, .*\) hold no samples"):
            look(net(), tokens()[:0])


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"no attention that can be read .*flex_attention"):
        attention_maps(nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))), tokens(), blocks="0")
    with pytest.raises(ValueError, match=r"\(3, 6, 5\)"):
        attention_maps(net(), tokens()[..., :5])
    with pytest.raises(ValueError, match="not wrapped"):
        attention_maps(net(), tokens(), cycles=2)
    for cycles in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match=f"cycles={cycles}: a whole number"):
            attention_maps(wrap_cyclic(net(), 2), tokens(), cycles=cycles)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"cycles={cycles}: a whole number"):
            token_drift(wrap_cyclic(net(), 2), tokens(), cycles=cycles)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"rows=3: a slice"):
        attention_maps(net(), tokens(), rows=3)  # type: ignore[arg-type]
    for rows in (slice(6, 7), slice(5, 9), slice(90, 99)):
        with pytest.raises(ValueError, match=r"rows=slice.*has 6 query tokens"):
            attention_maps(net(), tokens(), rows=rows)
    with pytest.raises(ValueError, match=r"a tensor of shape \(\): .*one number a sample"):
        exit_scores(wrap_cyclic(net(), 2), [(tokens(), torch.tensor([0, 1, 2]))], (1,), F.cross_entropy)
    with pytest.raises(ValueError, match="a float: "):
        exit_scores(wrap_cyclic(net(), 2), [(tokens(), 0)], (1,), lambda output, target: 0.5)
    with pytest.raises(ValueError, match="not wrapped"):
        exit_scores(net(), [], (1,))
    with pytest.raises(ValueError, match="no batches"):
        exit_scores(wrap_cyclic(toys.make(), 2), [], (1,))
    with pytest.raises(ValueError, match="threshold=0"):
        parameter_profile(net(), threshold=0)
    with pytest.raises(ValueError, match="no weights"):
        parameter_profile(nn.LayerNorm(3))
