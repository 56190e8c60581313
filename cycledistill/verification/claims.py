"""The claims about one wrapped module, in the order of a table, and how each of them ends in a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

from torch import nn

from cycledistill.plugin.handle import KINDS
from cycledistill.plugin.torch_private import AnyBatchNorm
from cycledistill.verification import cycles, watched
from cycledistill.verification.compiled import check_compiled
from cycledistill.verification.frames import FramesDropped, check_frames, check_hourglass
from cycledistill.verification.oracle.cycles import Drops, Oracle, find_oracle
from cycledistill.verification.oracle.plain import find_place
from cycledistill.verification.oracle.subject import Subject
from cycledistill.verification.table import FAILED, NOT_CHECKED, OK, Failed, NotChecked, Proof, Row
from cycledistill.verification.tokens import TokensDropped, check_choice, check_pruned

PLAIN = "the plain model"


def check_model(subject: Subject, compiled: nn.Module | None) -> Iterator[Row]:
    """Every claim about one wrapped module."""
    cyclic = subject.handle("cyclic")
    if cyclic is not None:
        cyclic.exit = 1
    yield _row(subject, "blocks are those that were wrapped", "their own attributes", partial(_check_blocks, subject))
    if subject.handle("hourglass") is None:
        yield _row(subject, "eval at one cycle, to the bit", PLAIN, partial(cycles.check_eval, subject))
    drops = None
    try:
        drops = _drops(subject)
    except NotChecked as reason:
        yield Row("dropped by hand", "a loop by hand", NOT_CHECKED, str(reason))
    yield from _check_drops(subject, drops)
    if cyclic is not None:
        yield from _check_cycles(subject, drops)
    yield _row(subject, "hooks hold no tensor of a trial", "what they hold", partial(_left_behind, subject))
    yield _row(subject, "wrapping runs no hook", "a copy that is wrapped again", partial(watched.check_trials, subject))
    yield _row(subject, "compiled, the same", "the model run eagerly", partial(check_compiled, subject, compiled))


def _check_drops(subject: Subject, drops: Drops | None) -> Iterator[Row]:
    if isinstance(drops, TokensDropped):
        seen = "attention seen as it is computed"
        yield _row(subject, "pruning keeps the most attended", seen, partial(check_choice, subject, drops))
        by_hand = "whole blocks, then tokens dropped"
        yield _row(subject, "pruned, eval at one cycle", by_hand, partial(check_pruned, subject, drops))
    if subject.handle("hourglass") is not None:
        yield _row(subject, "the hourglass counts frames", "what enters its blocks", partial(check_frames, subject))
    if isinstance(drops, FramesDropped):
        by_hand = "frames taken and made by hand"
        yield _row(subject, "hourglass, eval at one cycle", by_hand, partial(check_hourglass, subject, drops))


def _check_cycles(subject: Subject, drops: Drops | None) -> Iterator[Row]:
    path = subject.handle("cyclic").stack.path
    oracle: Oracle | NotChecked | Failed
    try:
        oracle = find_oracle(subject, path, drops)
    except (NotChecked, Failed) as reason:
        oracle = reason
    except Exception as error:
        oracle = NotChecked(f"the plain model does not run: {type(error).__name__}: {error}")
    claims: list[tuple[str, Callable[[Oracle], Proof]]] = [
        (f"eval at exit {number}", partial(_exit, subject, number)) for number in cycles.EXITS
    ]
    claims.append(("training, outputs", partial(cycles.check_training, subject)))
    claims.append(("training, gradients", partial(cycles.check_gradients, subject)))
    for claim, check in claims:
        yield _row(subject, claim, getattr(oracle, "name", ""), partial(_with, oracle, check))
    nudged = "weights without are moved"
    yield _row(subject, "what matters gets gradients", nudged, partial(cycles.check_all_trained, subject))
    if any(isinstance(module, AnyBatchNorm) for module in subject.model.modules()):
        yield _row(subject, "BatchNorm statistics of cycle 1", PLAIN, partial(cycles.check_batch_norm, subject))
    yield _row(subject, "hooks fire as documented", "calls of the plain model", partial(watched.check_counts, subject))


def _exit(subject: Subject, number: int, oracle: Oracle) -> Proof:
    return cycles.check_exit(subject, oracle, number)


def _with(oracle: Oracle | NotChecked | Failed, check: Callable[[Oracle], Proof]) -> Proof:
    if isinstance(oracle, (NotChecked, Failed)):
        raise oracle
    return check(oracle)


def _left_behind(subject: Subject) -> Proof:
    return watched.check_left_behind(subject.model)


def _drops(subject: Subject) -> Drops | None:
    pruning = subject.handle("pruning")
    if pruning is not None and pruning.keep < 1:
        return TokensDropped(subject)
    return FramesDropped(subject) if subject.handle("hourglass") is not None else None


def _check_blocks(subject: Subject) -> Proof:
    """Each block is itself one that a plug-in acts in, and stands behind no wrapper that speaks for it."""
    seen = []
    for kind, about in KINDS.items():
        handle = subject.handle(kind)
        if handle is None:
            continue
        blocks = find_place(subject.model, handle.stack.path).blocks
        if len(blocks) != handle.stack.depth:
            raise Failed(f"{handle.stack.path} holds {len(blocks)} blocks, and had {handle.stack.depth}")
        numbers = range(len(blocks)) if kind != "hourglass" else handle.layers
        for number in numbers:
            if not handle.owns(vars(blocks[number]).get(about.state)):
                raise Failed(
                    f"block {number} of {handle.stack.path}, a {type(blocks[number]).__name__}, is not the one that "
                    f"was wrapped: call unwrap_{kind}(model), then wrap it again"
                )
        seen.append(f"{handle.stack.path} x{len(blocks)}")
    return Proof(detail=", ".join(dict.fromkeys(seen)))


def _row(subject: Subject, claim: str, oracle: str, check: Callable[[], Proof]) -> Row:
    try:
        proof = check()
    except NotChecked as reason:
        return Row(claim, oracle, NOT_CHECKED, str(reason), optional=reason.optional)
    except Failed as failure:
        return _failed(subject, claim, oracle, failure)
    except Exception as error:  # of the plain model, or of the check: no verdict on the wrapped one
        return Row(claim, oracle, NOT_CHECKED, f"the check itself fell over, {type(error).__name__}: {error}")
    return Row(claim, proof.oracle or oracle, OK, proof.detail, proof.difference)


def _failed(subject: Subject, claim: str, oracle: str, failure: Failed) -> Row:
    difference = failure.difference
    if difference is not None and not math.isinf(difference):
        if not (subject.repeats_itself(False) and subject.repeats_itself(True)):
            reason = "the plain model itself gives two answers to one question, with the same random numbers"
            return Row(claim, oracle, NOT_CHECKED, reason)
    return Row(claim, oracle, FAILED, str(failure).partition("\n")[0].removesuffix(" Candidates:"), difference)
