"""Small models the property tests run on: each shows one habit real vision transformers have."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIM = 8
FEATURES = 6  # of one raw token
CLASSES = 5


class Attention(nn.Module):
    """Plain two-head self-attention."""

    def __init__(self, dim: int = DIM) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))


class Block(nn.Module):
    """Pre-norm attention block; `out` other than `dim` breaks the chain of equal shapes."""

    def __init__(self, dim: int = DIM, drop: float = 0.0, out: int | None = None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.drop = nn.Dropout(drop)
        self.widen = nn.Identity() if out is None else nn.Linear(dim, out)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.attn(self.norm1(x)))
        return self.widen(x + self.drop(self.mlp(self.norm2(x))))


class Counted(nn.Linear):
    """A linear layer that counts its calls where no hook can miss them."""

    calls: int

    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class ToyViT(nn.Module):
    """Tokens (B, N, 6) -> class logits (B, 5): embed, class token, blocks, norm, head on the class token."""

    def __init__(
        self,
        depth: int = 3,
        drop: float = 0.0,
        linear: type[nn.Linear] = nn.Linear,
        block: Callable[..., nn.Module] = Block,
        container: str = "list",
    ) -> None:
        super().__init__()
        self.num_classes = CLASSES
        self.embed = linear(FEATURES, DIM)
        self.cls_token = nn.Parameter(torch.randn(1, 1, DIM))
        blocks = [block(drop=drop) for _ in range(depth)]
        self.blocks = nn.Sequential(*blocks) if container == "sequential" else nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(DIM)
        self.head = linear(DIM, CLASSES)

    def no_weight_decay(self) -> set[str]:
        return {"cls_token"}

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = x[:, 0]
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


class ScriptableViT(ToyViT):
    """ToyViT with a Sequential, which TorchScript can compile."""

    def __init__(self) -> None:
        super().__init__(container="sequential")

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        return self.head(self.norm(self.blocks(x))[:, 0])


class TapViT(ToyViT):
    """Reads the output of every block: the head sees their concatenation."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__(depth)
        self.head = nn.Linear(depth * DIM, CLASSES)

    def stem(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)

    def read(self, taps: list[Tensor]) -> Tensor:
        return self.head(torch.cat([self.norm(tap)[:, 0] for tap in taps], dim=1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        taps = []
        for block in self.blocks:
            x = block(x)
            taps.append(x)
        return self.read(taps)


class ArgumentBlock(Block):
    """Takes a position tensor, a mask that may be None, a size and a flag beside the tokens."""

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        size: tuple[int, int],
        pos: Tensor | None = None,
        mask: Tensor | None = None,
        scale: bool = False,
    ) -> Tensor:
        assert size[0] * size[1] == x.shape[1]
        y = super().forward(x if pos is None else x + pos)
        y = y if mask is None else y * mask
        return y / size[0] if scale else y


class ArgumentViT(ToyViT):
    """Blocks with extra arguments: positional, keyword, None, tuples of ints, one tensor per depth."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__(depth, block=ArgumentBlock)
        self.pos = nn.Parameter(torch.randn(depth, 1, 1, DIM))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.embed(x)
        for i, block in enumerate(self.blocks):
            i %= len(self.pos)  # lets the truth repeat the blocks
            x = block(x, (1, x.shape[1]), pos=self.pos[i], mask=mask, scale=i == 1)
        return self.head(self.norm(x).mean(1))


class TwoStateBlock(nn.Module):
    """Maps (pixels, patches) to (pixels, patches), as TNT's blocks do."""

    def __init__(self, drop: float = 0.0) -> None:
        super().__init__()
        self.inner, self.outer, self.mix = Block(drop=drop), Block(drop=drop), nn.Linear(DIM, DIM)

    def forward(self, pixel: Tensor, patch: Tensor) -> tuple[Tensor, Tensor]:
        pixel = self.inner(pixel)
        return pixel, self.outer(patch + self.mix(pixel.mean(1, keepdim=True)))


class TwoStateViT(nn.Module):
    """Both states matter to the result: chaining the first alone gives another number."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.embed, self.embed2 = nn.Linear(FEATURES, DIM), nn.Linear(FEATURES, DIM)
        self.blocks = nn.ModuleList(TwoStateBlock() for _ in range(depth))
        self.head = nn.Linear(2 * DIM, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        pixel, patch = self.embed(x), self.embed2(x[:, ::2])
        for block in self.blocks:
            pixel, patch = block(pixel, patch)
        return self.head(torch.cat([pixel.mean(1), patch.mean(1)], dim=1))


class StemMask(nn.Module):
    """Random masking as a module before the stack, as masked pre-training does."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.bernoulli(torch.full_like(x[..., :1], 0.5)) if self.training else x


class NormedViT(nn.Module):
    """BatchNorm before, inside and after the stack; a stem module used twice; a random mask; a shared norm."""

    def __init__(self, depth: int = 2, mask: bool = False) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, DIM)
        self.share = nn.LayerNorm(DIM)
        self.stem_bn = nn.BatchNorm1d(DIM)
        self.mask = StemMask() if mask else nn.Identity()
        self.blocks = nn.ModuleList(NormedBlock(self.share) for _ in range(depth))
        self.tail_bn = nn.BatchNorm1d(DIM)
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        x = torch.cat([self.embed(x[:, :half]), self.embed(x[:, half:])], dim=1)  # two calls, two notes
        x = self.stem_bn(x.transpose(1, 2)).transpose(1, 2)
        x = self.mask(self.share(x))
        for block in self.blocks:
            x = block(x)
        return self.head(self.tail_bn(self.share(x).mean(1)))


class NormedBlock(nn.Module):
    """Attention block with BatchNorm and a norm that other parts of the model share."""

    def __init__(self, share: nn.Module) -> None:
        super().__init__()
        self.share = share
        self.attn = Attention()
        self.bn = nn.BatchNorm1d(DIM, momentum=0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.share(x))
        return x + self.bn(x.transpose(1, 2)).transpose(1, 2)


class DictViT(ToyViT):
    """Returns a dict, as detection and multi-task models do."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        features = self.forward_features(x)
        return {"logits": self.head(features[:, 0]), "dense": features[:, 1:]}


class PairViT(ToyViT):
    """Returns a pair of logits in training and their mean in eval, as the distilled DeiT does."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__(depth)
        self.head_dist = nn.Linear(DIM, CLASSES)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        features = self.forward_features(x)
        pair = self.head(features[:, 0]), self.head_dist(features[:, 1])
        return pair if self.training else (pair[0] + pair[1]) / 2


class TwoStageViT(nn.Module):
    """Two stacks of the same block class and different width: neither is *the* stack."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, DIM)
        self.stages = nn.ModuleList(nn.ModuleList(Block(dim) for _ in range(2)) for dim in (DIM, 2 * DIM))
        self.down = nn.Linear(DIM, 2 * DIM)
        self.head = nn.Linear(2 * DIM, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.stages[0]:
            x = block(x)
        x = self.down(x)
        for block in self.stages[1]:
            x = block(x)
        return self.head(x.mean(1))


class ConvNet(nn.Module):
    """No attention anywhere; two stages of one block class."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, DIM, 3, padding=1)
        self.layer1 = nn.Sequential(*(ConvBlock() for _ in range(2)))
        self.layer2 = nn.Sequential(*(ConvBlock() for _ in range(3)))
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(self.stem(x))
        return self.head(self.layer2(x[..., ::2, ::2]).mean((2, 3)))


class ConvBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(DIM, DIM, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x).relu()


class SlicingViT(ToyViT):
    """Runs slices of its own container."""

    def __init__(self) -> None:
        super().__init__(container="sequential")

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.blocks[:2](self.embed(x))
        return self.norm(self.blocks[2:](x))


def make(cls: type[nn.Module] = ToyViT, seed: int = 0, **options: object) -> nn.Module:
    """Builds a toy in double precision with weights large enough that cycles differ visibly."""
    torch.manual_seed(seed)
    model = cls(**options).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def batch(seed: int = 1, size: int = 3, tokens: int = 4) -> tuple[Tensor, Tensor]:
    """Raw tokens (B, N, 6) and labels (B,)."""
    g = torch.Generator().manual_seed(seed)
    return (
        torch.randn(size, tokens, FEATURES, generator=g, dtype=torch.float64),
        torch.randint(0, CLASSES, (size,), generator=g),
    )
