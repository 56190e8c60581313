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

    Where the user gave no compiled model, the graphs are made and run as they are, which takes
    seconds and no C++ compiler: what a model's own code could break is the making of the graph.
    """
    graphs = Graphs()
    model: Any = compiled if compiled is not None else torch.compile(subject.model, backend=graphs)
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
    if compiled is None and not graphs.made:
        raise NotChecked("the compiler made no graph: it stops where one process compiles many models", optional=True)
    return Proof(worst)


class Graphs:
    """A backend of ``torch.compile`` that runs graphs as they are, and counts them."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        """The graph's own Python code."""
        self.made += 1
        return graph.forward


def _compiles(subject: Subject) -> bool:
    """Whether the plain model, compiled in the same way, runs."""
    try:
        with plain(subject.model):
            subject.run(model=torch.compile(subject.model, backend="eager"))
    except Exception:  # whatever a compiler raises
        return False
    return True
