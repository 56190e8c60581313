"""Claims about cycles: one is the plain model, N are its blocks N times, in eval and in training, gradients too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cycledistill.output import CycleOutput
from cycledistill.plugin.torch_private import AnyBatchNorm
from cycledistill.verification.oracle.compare import GRADIENTS, check_same, is_same
from cycledistill.verification.oracle.cycles import Oracle
from cycledistill.verification.oracle.gradients import Gradients, added, check_trained, gradients_of, trained
from cycledistill.verification.oracle.subject import Subject
from cycledistill.verification.table import Failed, NotChecked, Proof

EXITS = (2, 3)
_NUDGE = 0.1


def check_eval(subject: Subject) -> Proof:
    """At one cycle, with all tokens, the model is the plain one to the bit."""
    with subject.keeping(1.0):
        got = subject.ask()
    want = subject.run(model=subject.given.eval()) if subject.given is not None else subject.tell()
    return Proof(check_same(got, want, exact=True))


def check_exit(subject: Subject, oracle: Oracle, number: int) -> Proof:
    """At a later exit the model is the plain one with its blocks so many times."""
    with subject.at_exit(number):
        got = subject.ask()
    want, before = oracle.run(number), oracle.run(number - 1)  # after it: an hourglass tells which frames it kept
    if is_same(want, before):
        raise NotChecked(
            f"cycle {number} changes nothing in this model's output, so the comparison would prove nothing: give "
            "inputs, or weights, with which it does"
        )
    return Proof(check_same(got, want), oracle.name)


def check_training(subject: Subject, oracle: Oracle) -> Proof:
    """Every output of a training forward is that of the blocks so many times."""
    out = _asked(subject, None)
    worst = 0.0
    for number in range(1, len(out) + 1):
        worst = max(worst, check_same(out[number - 1], oracle.run(number, train=True), what=f"cycle {number}: "))
    return Proof(worst, oracle.name, f"cycles 1 to {len(out)}")


def check_gradients(subject: Subject, oracle: Oracle) -> Proof:
    """The gradients of all outputs together are those of the plain models with their blocks 1, 2, ... times."""
    weights = trained(subject.model)
    check_trained(weights)
    cycles = subject.handle("cyclic").cycles
    got: Gradients = _asked(subject, lambda out: gradients_of(out.outputs, weights))
    parts = [
        oracle.run(number, train=True, then=lambda output: gradients_of([output], weights))
        for number in range(1, cycles + 1)
    ]
    return Proof(_compare_gradients(got, added(parts)), oracle.name, f"{len(weights)} tensors")


def check_all_trained(subject: Subject) -> Proof:
    """Weights that get no gradient are such that the output does not depend on them."""
    weights = trained(subject.model)
    check_trained(weights)
    got: Gradients = _asked(subject, lambda out: gradients_of(out.outputs, weights))
    idle = {name: weights[name] for name, value in got.items() if value is None}
    if not idle:
        return Proof(detail=f"all {len(weights)} tensors get gradients")
    for seen in _nudged(subject, list(idle.values())):
        if not seen:
            name = next(iter(idle))
            raise Failed(
                f"{len(idle)} of {len(weights)} tensors that ask for gradients get none, as {name}, and the output "
                "depends on them. If blocks are checkpointed and what is before them is frozen: use_reentrant=False, "
                "or enable_input_require_grads()"
            )
    return Proof(detail=f"{len(weights) - len(idle)} of {len(weights)} tensors get gradients, the others are unused")


def check_batch_norm(subject: Subject) -> Proof:
    """After a training forward running statistics are those of one training forward of the plain model."""
    names = {name for name, module in subject.model.named_modules() if isinstance(module, AnyBatchNorm)}
    if not subject.handle("cyclic").freezes_batch_norm:
        raise NotChecked('batch_norm="update" was asked for: every cycle moves them', optional=True)

    def statistics(_: Any) -> dict[str, Tensor]:
        buffers = subject.model.named_buffers()
        return {name: value.clone() for name, value in buffers if name.rpartition(".")[0] in names}

    return Proof(check_same(_asked(subject, statistics), subject.tell(True, statistics), exact=True))


def _asked(subject: Subject, then: Any) -> Any:
    """A training forward of the wrapped model; what ``then`` makes of its output."""

    def checked(out: Any) -> Any:
        if not isinstance(out, CycleOutput):
            raise Failed(f"in training the model returns a {type(out).__name__}, so it trains one cycle alone")
        return out if then is None else then(out)

    if then is None:
        return checked(subject.ask(True))
    return subject.ask(True, checked)


def _compare_gradients(got: Gradients, want: Gradients) -> float:
    largest = max((float(each.abs().max()) for each in want.values() if each is not None and each.numel()), default=0.0)
    if not largest:
        raise NotChecked("no weight gets a gradient in the plain model either")
    worst = 0.0
    for name, truth in want.items():
        value = got[name]
        if value is None or truth is None:
            if value is not truth and bool((value if truth is None else truth).abs().max()):  # type: ignore[union-attr]
                raise Failed(f"{name} gets {'no gradient' if value is None else 'one, and must not'}")
            continue
        scale = torch.tensor([largest], dtype=truth.dtype)  # a tensor's own gradient may be rounding alone
        ours, theirs = (torch.cat((each.detach().cpu().flatten(), scale)) for each in (value, truth))
        worst = max(worst, check_same(ours, theirs, factor=GRADIENTS, what=f"{name}: "))
    return worst


def _nudged(subject: Subject, weights: list[torch.nn.Parameter]) -> Iterator[bool]:
    """Whether the plain model's training output stays the same when these weights move."""
    before, kept = subject.tell(True), [each.detach().clone() for each in weights]
    try:
        for each in weights:
            each.data.add_(_NUDGE * torch.randn(each.shape, generator=torch.Generator().manual_seed(2)).to(each))
        yield is_same(subject.tell(True), before)
    finally:
        for each, value in zip(weights, kept, strict=True):
            each.data.copy_(value)
