"""What does a block that drops tokens cost beside the same block by hand? Kernels, bytes moved, and time at batch 1.

    python benchmarks/pruning_kernels.py            # three minutes on a CPU; no GPU is needed

Three versions of a timm model, width 192 (DeiT-Tiny) and 384 (DeiT-Small), layers 3, 6, 9, keep 0.7, float32:

- plain    no token is dropped.
- pruned   a copy under ``wrap_pruning``.
- by hand  a copy whose pruning blocks are written out in plain torch (:class:`HandBlock`): the tokens that stay are
  picked once, before the MLP, and nothing is put back. This is the least that this order of work costs.

"block" is block 3 alone, "model" all of it. Their outputs are compared first. Nothing counted depends on a device, but
for the names of the attention kernels; on a GPU each kernel is a launch, and small ones are bound by these bytes.

- eager     every op that PyTorch dispatches and that computes: no views, no empty tensors, nothing but the shape.
  Bytes: the elements of its inputs and outputs. An op that picks rows reads as many as it writes, one that writes rows
  into a tensor (``index_copy_``) writes these alone.
- training  the same for a forward and the backward of its mean square.
- compiled  the nodes that inductor schedules for a forward (``torch.compile(fullgraph=True)``), each a kernel it
  generates or a call of a library. Its own count of bytes: every buffer that a node reads or writes, whole.

Time: eager forwards, one thread, process CPU time, medians over interleaved rounds of the ratio within a round.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import timm
import torch
import torch.nn.functional as F
from common import Row, columns, conditions, paired_ratio, progress, show, speed_parser, start, write
from torch import Tensor, nn
from torch._inductor.graph import GraphLowering
from torch._inductor.scheduler import NopKernelSchedulerNode
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cycledistill import wrap_pruning
from cycledistill.cost.timing import interleaved

MODELS = ("deit_tiny_patch16_224", "deit_small_patch16_224")
LAYERS, KEEP = (3, 6, 9), 0.7
VERSIONS = ("plain", "pruned", "by hand")
BATCHES = (1, 256)
CALLS = {"block": 20, "model": 2}  # of a callable in one round
NOTHING = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "detach", "_unsafe_view"}
FILL = {"new_zeros", "zeros_like", "new_ones", "ones_like", "full_like", "new_full", "zero_", "fill_"}
PICK = {"gather", "index_select", "index", "embedding"}
PUT = {"index_copy_", "index_copy", "scatter_", "index_put_", "index_add_", "index_add", "_index_put_impl_"}


class HandBlock(nn.Module):
    """A timm ``Block`` that drops tokens, written out."""

    def __init__(self, block: nn.Module, first: int) -> None:
        super().__init__()
        self.block, self.first = block, first

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) to (B, first + k, C)."""
        block: Any = self.block
        attention, first = block.attn, self.first
        batch, number, width = x.shape
        qkv = attention.qkv(block.norm1(x)).reshape(batch, number, 3, attention.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, number, width)
        x = x + attention.proj(mixed)
        with torch.no_grad():
            paid = ((q[:, :, :first] * attention.scale) @ k.transpose(-2, -1)).softmax(dim=-1)[..., first:]
            best = paid.mean(dim=1).sum(dim=1).topk(math.ceil((number - first) * KEEP), dim=1).indices
            grid = torch.arange(batch * number, device=x.device).view(batch, number)
            rows = torch.cat((grid[:, :first], grid[:, first : first + 1] + best), dim=1).flatten()
        x = x.reshape(-1, width).index_select(0, rows).view(batch, -1, width)
        return x + block.mlp(block.norm2(x))


@dataclass
class Count:
    """Kernels and the bytes they read and write."""

    kernels: int = 0
    bytes: int = 0


class Eager(TorchDispatchMode):
    """Counts what is dispatched while it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Count()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        made = _tensors(output)
        if made and not func.is_view and name not in NOTHING:
            self.count.kernels += 1
            self.count.bytes += _moved(name, _tensors((args, kwargs)), made)
        return output


def _tensors(values: Any) -> list[Tensor]:
    return [each for each in tree_leaves(values) if isinstance(each, Tensor)]


def _moved(name: str, given: list[Tensor], made: list[Tensor]) -> int:
    if name in FILL:
        return sum(map(_size, made))
    if name in PICK:
        return 2 * sum(map(_size, made)) + sum(map(_size, given[1:]))
    if name in PUT:
        functional = not name.endswith("_")  # copies the tensor before
        return sum(map(_size, given[1:])) + _size(given[-1]) + functional * 2 * _size(given[0])
    return sum(map(_size, given)) + sum(map(_size, made))


def _size(tensor: Tensor) -> int:
    """Its bytes in memory: an expanded axis holds one entry."""
    held = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or not size]
    return math.prod(held) * tensor.element_size()


def eager(call: Callable[[Tensor], Tensor], x: Tensor) -> Count:
    """A forward as it is; on stand-ins without data, so that a large batch costs nothing."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad(), Eager() as counter:
        call(mode.from_tensor(x))
    return counter.count


def training(call: Callable[[Tensor], Tensor], x: Tensor) -> Count:
    """A forward and a backward."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, Eager() as counter:
        call(mode.from_tensor(x).requires_grad_()).square().mean().backward()
    return counter.count


class _Counted(Exception):
    """Ends a compilation once it is counted: the code of the kernels is not needed."""


def compiled(call: Callable[[Tensor], Tensor], x: Tensor) -> Count:
    """The kernels of a compiled forward."""
    count = Count()

    def stop(graph: Any, *_: Any, **__: Any) -> None:
        graph._update_scheduler()
        sizes = [
            node.get_read_write_buffers_sizes()
            for node in graph.scheduler.nodes
            if not isinstance(node, NopKernelSchedulerNode) and type(node.node).__name__ != "MultiOutput"
        ]
        count.kernels, count.bytes = len(sizes), int(sum(sizes))
        raise _Counted

    torch.compiler.reset()
    with patch.object(GraphLowering, "compile_to_module", stop), torch.no_grad():
        try:
            torch.compile(call, fullgraph=True, dynamic=False)(x)
        except Exception:
            if not count.kernels:
                raise
    return count


FORMS = {"eager": eager, "training": training, "compiled": compiled}


class Case:
    """One model in three versions."""

    def __init__(self, name: str, layers: tuple[int, ...] = LAYERS) -> None:
        torch.manual_seed(0)
        self.block = layers[0]
        plain = timm.create_model(name, num_classes=10).eval()
        hand = copy.deepcopy(plain)
        for number in layers:
            hand.blocks[number] = HandBlock(hand.blocks[number], plain.num_prefix_tokens)
        pruned = wrap_pruning(copy.deepcopy(plain), layers, KEEP)
        self.models: dict[str, Any] = {"plain": plain, "pruned": pruned, "by hand": hand}
        size, _ = plain.patch_embed.img_size
        self.images = torch.randn(1, 3, size, size)
        self.tokens = torch.randn(1, plain.pos_embed.shape[1], plain.embed_dim)
        for what in CALLS:
            pruned, hand = (self.call(what, version)(self.input(what)) for version in VERSIONS[1:])
            torch.testing.assert_close(pruned, hand)

    def input(self, what: str, batch: int = 1) -> Tensor:
        """What the block or the model is given."""
        x = self.tokens if what == "block" else self.images
        return x.expand(batch, *x.shape[1:]).contiguous()

    def call(self, what: str, version: str) -> Callable[[Tensor], Tensor]:
        """The block or the model."""
        model = self.models[version]
        return model.blocks[self.block] if what == "block" else model


def counts(case: Case, what: str, form: str, batch: int) -> Row:
    """Kernels and bytes of the three versions."""
    row: Row = {"what": what, "form": form, "batch": batch}
    for version in VERSIONS:
        count = FORMS[form](case.call(what, version), case.input(what, batch))
        row |= {f"kernels, {version}": count.kernels, f"bytes, {version}": count.bytes}
    return row


def times(case: Case, what: str, repeats: int) -> Row:
    """Eager forwards at batch 1."""
    x = case.input(what)

    def run(call: Callable[[Tensor], Tensor]) -> None:
        with torch.no_grad():
            for _ in range(CALLS[what]):
                call(x)

    calls = {version: partial(run, case.call(what, version)) for version in VERSIONS}
    seconds = interleaved(calls, repeats=repeats, warmup=3)
    row: Row = {"what": what}
    for over in ("plain", "by hand"):
        ratio, spread = paired_ratio(seconds, "pruned", over)
        row |= {f"pruned / {over}": ratio, f"spread, {over}": spread}
    return row | {f"best seconds, {version}": min(each) / CALLS[what] for version, each in seconds.items()}


def table(record: Row) -> str:
    """Both tables as text."""
    head = ["model", "what", "form", "batch", "kernels: plain", "pruned", "by hand"]
    lines = [[*head, "bytes: pruned / plain", "by hand / plain", "pruned / by hand"]]
    for row in record["counts"]:
        plain, pruned, hand = (row[f"bytes, {version}"] for version in VERSIONS)
        ratios = [f"{each:.3f}" for each in (pruned / plain, hand / plain, pruned / hand)]
        kernels = [str(row[f"kernels, {version}"]) for version in VERSIONS]
        lines.append([row["model"], row["what"], row["form"], str(row["batch"]), *kernels, *ratios])
    timed = [["model", "what", "time: pruned / plain", "+-", "pruned / by hand", "+-"]]
    for row in record["times"]:
        figures = ("pruned / plain", "spread, plain", "pruned / by hand", "spread, by hand")
        timed.append([row["model"], row["what"], *(f"{row[figure]:.3f}" for figure in figures)])
    return columns(lines) + "\n\n" + columns(timed)


def main(argv: list[str] | None = None) -> int:
    """Count, measure, print the tables, write the JSON."""
    parser = speed_parser(__doc__, "pruning_kernels", MODELS, "timm vision transformers", repeats=41, device="cpu")
    options = parser.parse_args(argv)
    device = start(parser, options)
    record: Row = {"conditions": conditions(device, options.repeats), "layers": LAYERS, "keep": KEEP}
    record["counts"], record["times"] = [], []
    for name in options.models:
        case = Case(name)
        for what in CALLS:
            for form in FORMS:
                for batch in BATCHES:
                    progress(name, what, form, f"batch {batch}")
                    record["counts"].append({"model": name} | counts(case, what, form, batch))
            progress(name, what, "time")
            record["times"].append({"model": name} | times(case, what, options.repeats))
    show(record, table(record))
    write(options.out, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
