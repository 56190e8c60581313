"""What a model's forward may do beside handing tokens from block to block: equal to the truth."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cycledistill import StackError, unwrap_cyclic, wrap_cyclic
from tests.cycle.mixing import WIDTH, Mix, Model, gated, made, read, tokens
from tests.oracle import Truth, assert_same, assert_same_gradients


class OnDict(Mix):
    """Takes its state in a dict, changes the dict and returns it."""

    def forward(self, d: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        d["x"] = super().forward(d["x"])
        return d


def appended(m: Any, x: Tensor) -> Tensor:
    kept = m.stem(x)
    h = kept[0]
    for block in m.blocks:
        h = block(h)
    kept.append(h)
    return read(m, torch.stack(kept).sum(0))


def rewritten(m: Any, x: Tensor) -> Tensor:
    d = m.stem(x)
    d["x"] = d["x"] + m.pos
    h = d["x"]
    for block in m.blocks:
        h = block(h)
    d["x"] = d["x"] + h
    return read(m, d["x"])


def on_dict(m: Any, x: Tensor) -> Tensor:
    d = {"x": m.embed(x)}
    for block in m.blocks:
        d = block(d)
    d["x"] = torch.tanh(d["x"])
    return read(m, d["x"])


def on_dict_ignoring(m: Any, x: Tensor) -> Tensor:
    d = {"x": m.embed(x)}
    for block in m.blocks:
        block(d)
    return read(m, d["x"])


def with_table(m: Any, x: Tensor) -> Tensor:
    x = m.embed(x)
    for index, block in enumerate(m.blocks):
        x, _ = block(x, m.pos * (index % 3 + 1))
    return read(m, x)


def swallowing(m: Any, x: Tensor) -> Tensor:
    h = m.embed(x)
    for block in m.blocks:
        try:
            h = block(h)
        except BaseException:  # as a careless context manager does
            h = h * 2
    return read(m, h)


def translating(m: Any, x: Tensor) -> Tensor:
    h = m.embed(x)
    try:
        for block in m.blocks:
            h = block(h)
    except BaseException as error:  # as a framework that names the layer at fault does
        raise RuntimeError("a layer failed") from error
    return read(m, h)


def forgetting(m: Any, x: Tensor) -> Tensor:
    h, kept = m.embed(x), []
    with suppress(BaseException):
        for block in m.blocks:
            h = block(h)
            kept.append(h)
    return read(m, kept[len(m.blocks) - 1])


class Fills(nn.Linear):
    """Puts a tensor into a list it is given, as a stem keeps its scales."""

    def forward(self, x: Tensor, kept: list[Tensor]) -> Tensor:  # type: ignore[override]
        y = super().forward(x)
        kept.append(torch.tanh(y))
        return y


def filled(m: Any, x: Tensor) -> Tensor:
    kept: list[Tensor] = []
    h = m.stem(x, kept)
    for block in m.blocks:
        h = block(h)
    for each in kept:
        h = h + each
    return read(m, h)


class Passes(Mix):
    """Hands a memory on as it is, and takes a bias made of it."""

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x, memory * bias), memory


def with_memory(m: Any, x: Tensor) -> Tensor:
    x, memory = m.embed(x), m.gate(x)
    bias = torch.tanh(memory)
    for block in m.blocks:
        x, memory = block(x, memory, bias)
    return read(m, x)


class Listed(nn.Linear):
    def forward(self, x: Tensor) -> Any:
        return [super().forward(x)]


class Named(nn.Linear):
    def forward(self, x: Tensor) -> Any:
        return {"x": super().forward(x)}


class WithMap(Mix):
    def forward(self, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x, table), torch.tanh(x)


SERVED = {
    "a list from before the stack, appended to": (appended, Mix, Listed),
    "a dict from before the stack, written to": (rewritten, Mix, Named),
    "a dict as state, written to after the stack": (on_dict, OnDict, None),
    "a dict as state, what is returned ignored": (on_dict_ignoring, OnDict, None),
    "a table a depth, and outputs of its shape": (with_table, WithMap, None),
    "a list that a module before the stack fills": (filled, Mix, Fills),
    "a memory handed on, and a bias made of it": (with_memory, Passes, None),
    "an early end that the model catches": (swallowing, Mix, None),
    "an early end that the model makes an error of": (translating, Mix, None),
    "an early end that the model fails over": (forgetting, Mix, None),
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("case", SERVED)
def test_served_exactly(case: str, batch: int) -> None:
    run, block, stem = SERVED[case]
    plain = made(run, block)
    if stem is not None:
        plain.stem = stem(WIDTH, WIDTH).double()
    x = tokens()[:batch]
    truth = Truth(plain)
    model = wrap_cyclic(plain, 3, "exits", blocks="blocks")
    out = model(x)
    want = [truth(cycle, x) for cycle in (1, 2, 3)]
    assert_same(list(out.outputs), want, rtol=1e-12)
    sum(o.square().sum() for o in out.outputs).backward()
    sum(o.square().sum() for o in want).backward()
    got = {name: p.grad for name, p in model.named_parameters()}
    assert_same_gradients(got, {name: p.grad for name, p in truth.model.named_parameters()}, rtol=1e-10)
    model.eval()
    for cycle in (1, 2, 3):
        model.cyclic.exit = cycle
        assert_same(model(x), want[cycle - 1], rtol=1e-12)


def test_a_single_module_takes_its_first_argument_whatever_the_order_of_the_call() -> None:
    class Pair(Mix):
        def forward(self, x: Tensor, p: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x) * p

    def run(m: Any, x: Tensor) -> Tensor:
        return read(m, m.blocks[0](p=m.pos.expand(len(x), -1, -1), x=m.embed(x)))

    torch.manual_seed(0)
    plain = Model(run, Pair).double()
    x = tokens()
    with torch.no_grad():
        first = plain.blocks[0](plain.embed(x), plain.pos.expand(2, -1, -1))
        want = read(plain, plain.blocks[0](first, plain.pos.expand(2, -1, -1)))
    wrap_cyclic(plain, 2, "exits", blocks="blocks.0")
    assert_same(plain(x)[1], want, rtol=1e-12)


def test_static_and_class_methods_named_forward_keep_working() -> None:
    class Pools(Model):
        @staticmethod
        def forward_pool(x: Tensor) -> Tensor:
            return x.mean(1)

        @classmethod
        def forward_kind(cls) -> str:
            return cls.__name__

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            for block in self.blocks:
                x = block(x)
            return self.head(self.forward_pool(x))

    torch.manual_seed(0)
    model = Pools(gated, Mix).double().eval()
    want = model(tokens())
    wrap_cyclic(model, 2, blocks="blocks")
    assert torch.equal(model(tokens()), want) and model.forward_kind() == "Pools"


def test_a_part_of_a_wrapped_model_can_be_freed() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = made(plain_run)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    def plain_run(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        for block in m.blocks:
            x = block(x)
        return read(m, x)

    outer = wrap_cyclic(Outer(), 2, blocks="inner.blocks")
    part = copy.deepcopy(outer.inner)
    with pytest.raises(StackError, match="unwrap_cyclic"):
        wrap_cyclic(part, 2, blocks="blocks")
    unwrap_cyclic(part)
    assert type(part) is Model and all(type(block) is Mix for block in part.blocks)
    assert len(wrap_cyclic(part, 3, blocks="blocks")(tokens())) == 3
    assert len(outer(tokens())) == 2
    fresh = type(outer)()
    with pytest.raises(StackError, match="unwrap_cyclic"):
        wrap_cyclic(fresh, 2, blocks="inner.blocks")
    assert type(unwrap_cyclic(fresh)) is Outer
    with pytest.raises(StackError, match="nothing to undo"):
        unwrap_cyclic(nn.Sequential(outer))


def test_cycles_run_in_the_precision_of_the_first() -> None:
    def half(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        with torch.autocast("cpu", torch.bfloat16):
            for block in m.blocks:
                x = block(x)
        return read(m, x.float())

    def guarded(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x).float()
        with torch.autocast("cpu", enabled=False):
            for block in m.blocks:
                x = block(x)
        return read(m, x)

    x = tokens().float()
    for run, outer in ((half, False), (guarded, True)):
        plain = made(run).float()
        truth = Truth(plain)
        model = wrap_cyclic(plain, 2, None, blocks="blocks")
        with torch.autocast("cpu", torch.bfloat16, enabled=outer):
            got, want = model(x)[1], truth(2, x)
            assert_same(got, want)
            model.eval().cyclic.exit = 2
            assert_same(model(x), want)
