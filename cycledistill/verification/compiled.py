"""The claim that the compiled model agrees with the eager one."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from cycledistill.verification.oracle.compare import check_same
from cycledistill.verification.oracle.plain import plain
from cycledistill.verification.oracle.subject import Subject
from cycledistill.verification.table import Failed, NotChecked, Proof

_FUSED = 10.0
"""How much more rounding compiled code may differ by: compilers sum in another order."""


def check_compiled(subject: Subject, compiled: nn.Module | None) -> Proof:
    """Eval at exit 2 and a training forward, compiled, are the eager ones.

    Where the user gave no compiled model, the graphs are made and run as they are (backend ``"eager"``), which takes
    seconds and no C++ compiler: what a model's own code could break is the making of the graph.
    """
    model: Any = compiled if compiled is not None else torch.compile(subject.model, backend="eager")
    cyclic = subject.handle("cyclic")
    try:
        with subject.at_exit(2) if cyclic is not None else nullcontext():
            worst = check_same(subject.ask(model=model), subject.ask(), factor=_FUSED, what="eval: ")
        if cyclic is not None:
            outputs = subject.ask(True, lambda out: out, model=model).outputs
            worst = max(worst, check_same(outputs, subject.ask(True).outputs, factor=_FUSED, what="training: "))
    except Failed as failure:
        if failure.difference is None and not _compiles(subject):
            raise NotChecked("the plain model does not compile either", optional=True) from None
        raise
    return Proof(worst)


def _compiles(subject: Subject) -> bool:
    """Whether the plain model, compiled in the same way, runs."""
    try:
        with plain(subject.model):
            subject.run(model=torch.compile(subject.model, backend="eager"))
    except Exception:  # whatever a compiler raises
        return False
    return True
