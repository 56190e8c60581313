"""What a model's forward does beside handing tokens from block to block: what cannot be cycled is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cycledistill import CycleOutput, StackError, wrap_cyclic
from cycledistill.cycle.snapshot import ObjectSnapshot
from tests.cycle.mixing import WIDTH, Box, Cache, Caches, Mix, Model, gated, gated_detached, made, read, tokens
from tests.oracle import Truth, assert_same


class Two(Mix):
    """Hands on two states."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x, y), torch.cat([y, torch.tanh(y)], dim=-1)


class Collects(Mix):
    """Puts its output into a list it is given."""

    def forward(self, x: Tensor, kept: list[Tensor]) -> Tensor:  # type: ignore[override]
        kept.append(super().forward(x))
        return kept[-1]


def halved(m: Any, x: Tensor) -> Tensor:
    x, y = m.embed(x), m.pos.expand(len(x), -1, -1)
    for block in m.blocks:
        x, y = block(x, y)
        y = y[..., :WIDTH] + y[..., WIDTH:]
    return read(m, x)


def changed_between(m: Any, x: Tensor) -> Tensor:
    x = m.embed(x)
    for index, block in enumerate(m.blocks):
        if index:
            x += m.pos
        x = block(x)
    return read(m, x)


def changed_early_output(m: Any, x: Tensor) -> Tensor:
    t = m.embed(x)
    h = t + m.pos
    for block in m.blocks:
        h = block(h)
    t += h
    return read(m, t)


def changed_input(m: Any, x: Tensor) -> Tensor:
    x.sub_(0.5)
    h = m.embed(x)
    for block in m.blocks:
        h = block(h)
    return read(m, h + x)


def changed_argument(m: Any, x: Tensor) -> Tensor:
    beside = m.gate(x) + 0
    h = m.embed(x)
    for block in m.blocks:
        h = block(h, beside)
        beside += 1
    return read(m, h)


def drawn(m: Any, x: Tensor) -> Tensor:
    x, noise = m.embed(x), torch.randn_like(x)
    for block in m.blocks:
        x = block(x, noise)
    return read(m, x)


def collected(m: Any, x: Tensor) -> Tensor:
    x, kept = m.embed(x), []
    for block in m.blocks:
        x = block(x, kept)
    return read(m, torch.stack(kept).sum(0))


def cached(m: Any, x: Tensor) -> Tensor:
    x, cache = m.embed(x), Cache()
    for block in m.blocks:
        x = block(x, cache)
    return read(m, x)


class Reads(Mix):
    """Reads a tensor inside an object, an array or a closure."""

    def forward(self, x: Tensor, where: Any) -> Tensor:  # type: ignore[override]
        beside = where() if callable(where) else getattr(where, "ref", where)
        return super().forward(x, torch.as_tensor(beside))


def boxed(m: Any, x: Tensor) -> Tensor:
    x = m.embed(x)
    for block in m.blocks:
        x = block(x, Box(m.gate(x)))
    return read(m, x)


def box_updated(m: Any, x: Tensor) -> Tensor:
    x, box = m.embed(x), Box(x[..., :1])
    for block in m.blocks:
        box.ref = m.gate(x)
        x = block(x, box)
    return read(m, x)


def closed_over(m: Any, x: Tensor) -> Tensor:
    x = m.embed(x)
    for block in m.blocks:
        gate = m.gate(x)
        x = block(x, lambda gate=gate: gate)
    return read(m, x)


def as_array(m: Any, x: Tensor) -> Tensor:
    x = m.embed(x)
    for block in m.blocks:
        x = block(x, x.detach().numpy())
    return read(m, x)


def reversible(m: Any, x: Tensor) -> Tensor:
    a, b = m.embed(x), m.embed(x) + m.pos
    for block in m.blocks:
        a, b = b, block(b, a)
    return read(m, a + b)


class Kept(dict):  # type: ignore[type-arg]
    """A dict of a class of its own, which no pytree knows."""


class Sums(Mix):
    def forward(self, x: Tensor, kept: Kept) -> Tensor:  # type: ignore[override]
        y = super().forward(x)
        kept["sum"] = kept.get("sum", 0) + y
        return y


def summed(m: Any, x: Tensor) -> Tensor:
    x, kept = m.embed(x), Kept()
    for block in m.blocks:
        x = block(x, kept)
    return read(m, kept["sum"])


def of_forward(m: Any, x: Tensor) -> Tensor:
    x = m.embed(x)
    for block in m.blocks:
        x = block.forward(x)
    return read(m, x)


REFUSED = {
    "an argument computed from tokens": (gated, Mix, "beside its tokens"),
    "an argument computed from tokens, detached": (gated_detached, Mix, "beside its tokens"),
    "tokens changed in place between blocks": (changed_between, Mix, "output of block 0 in place"),
    "its own input changed in place": (changed_input, Mix, "its own input in place"),
    "an argument changed in place": (changed_argument, Mix, "in place|beside its tokens"),
    "an argument drawn at random": (drawn, Mix, "drawn at random"),
    "a list the blocks fill": (collected, Collects, "changes a list"),
    "a cache the blocks fill": (cached, Caches, "changes the Cache"),
    "an object that hangs on tokens": (boxed, Reads, "beside its tokens"),
    "an object changed between blocks": (box_updated, Reads, "beside its tokens"),
    "a closure over tokens": (closed_over, Reads, "beside its tokens"),
    "an array of tokens": (as_array, Reads, "beside its tokens"),
    "two states crossed by the forward": (reversible, Mix, "a state that blocks do not return"),
    "a dict of another class that blocks fill": (summed, Sums, "changes a Kept"),
    "blocks that are not called": (of_forward, Mix, "entered 0 of 3"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("training", [True, False])
def test_refused_in_training_and_at_later_exits(case: str, training: bool) -> None:
    run, block, message = REFUSED[case]
    model = wrap_cyclic(made(run, block), 2, "exits", blocks="blocks").train(training)
    model.cyclic.exit = 2
    with pytest.raises(StackError, match=message):
        model(tokens())
    # ... and left as it was: one cycle still gives what the plain model gives
    model.eval().cyclic.exit = 1
    plain = made(run, block).eval()
    torch.manual_seed(3)
    got = model(tokens())
    torch.manual_seed(3)
    assert_same(got, plain(tokens()))


def test_a_second_state_cut_to_shape_between_blocks() -> None:
    """It hangs on no token, so only the gradient tells that it is handed on."""
    with pytest.raises(StackError, match="computed from blocks before it"):
        wrap_cyclic(made(halved, Two), 2, "exits", blocks="blocks")(tokens())


def test_an_early_output_changed_after_the_stack() -> None:
    """In training it would be changed once a cycle; a later exit runs what follows the stack once, so it is right."""
    plain = made(changed_early_output)
    model = wrap_cyclic(copy.deepcopy(plain), 2, "exits", blocks="blocks")
    with pytest.raises(StackError, match="before the stack in place"):
        model(tokens())
    model.eval().cyclic.exit = 2
    assert_same(model(tokens()), Truth(plain.eval())(2, tokens()), rtol=1e-12)


def test_arguments_are_compared_again_later() -> None:
    """Blocks that begin as the identity leave every cycle's tokens alike, and so the arguments that hang on them."""
    model = made(gated_detached)
    with torch.no_grad():
        for block in model.blocks:
            for layer in (block.a, block.b):
                layer.weight.zero_()
                layer.bias.zero_()
    wrap_cyclic(model, 2, "exits", blocks="blocks")
    assert isinstance(model(tokens()), CycleOutput)
    with torch.no_grad():
        model.blocks[0].a.weight.normal_()
    with pytest.raises(StackError, match="beside its tokens"):
        model(tokens())


def test_a_cache_that_comes_with_a_later_call_is_refused_at_once() -> None:
    """So what hides in objects is looked at in every forward, whether or not it compares arguments."""

    class MayCache(Caches):
        def forward(self, x: Tensor, cache: Cache | None) -> Tensor:  # type: ignore[override]
            return super().forward(x, Cache() if cache is None else cache)

    def run(m: Any, x: Tensor) -> Tensor:
        x, cache = m.embed(x), Cache() if m.use_cache else None
        for block in m.blocks:
            x = block(x, cache)
        return read(m, x)

    model = made(run, MayCache)
    model.use_cache = False
    wrap_cyclic(model, 2, "exits", blocks="blocks").eval()
    model.cyclic.exit = 2
    for _ in range(2):  # the first two forwards compare, the third does not
        model(tokens())
    model.use_cache = True
    with pytest.raises(StackError, match="changes the Cache"):
        model(tokens())


def test_tensors_are_found_in_a_closure_over_an_object_of_objects() -> None:
    """As deep as a closure over the pair of caches of an encoder-decoder, and without end in objects in a circle."""
    layer = Box(torch.zeros(2))
    pair = Box(Box(layer))  # type: ignore[arg-type]
    layer.pair = pair  # type: ignore[attr-defined]
    snapshot = ObjectSnapshot(lambda pair=pair: pair)
    assert not snapshot.changed()
    layer.ref = torch.zeros(2)
    assert snapshot.changed()


def test_the_probe_refuses_at_once_what_gradients_tell() -> None:
    class Sized(Model):
        image_size = 4  # a declared size, so that a probe runs

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flatten(2).transpose(1, 2)[..., :1].expand(-1, -1, WIDTH))

    torch.manual_seed(0)
    model = Sized(gated, Mix)
    model.patch = nn.Conv2d(3, 1, 1)
    with pytest.raises(StackError, match="block 1 takes something beside its tokens"):
        wrap_cyclic(model, 2, blocks="blocks")
    assert type(model) is Sized


def test_a_state_that_is_none_at_first_is_refused() -> None:
    class Residual(Mix):
        def forward(self, x: Tensor, r: Tensor | None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            r = x if r is None else x + r
            return super().forward(r), r

    def run(m: Any, x: Tensor) -> Tensor:
        h, r = m.embed(x), None
        for block in m.blocks:
            h, r = block(h, r)
        return read(m, h + r)

    with pytest.raises(StackError, match="None; a stack needs a tensor"):
        wrap_cyclic(made(run, Residual), 2, blocks="blocks")(tokens())


def test_forward_replaced_on_the_object() -> None:
    model = made(gated)
    model.forward = lambda x: x  # type: ignore[method-assign]
    with pytest.raises(StackError, match="wrap the model first"):
        wrap_cyclic(model, 2, blocks="blocks")
