"""The claim that the compiled model agrees with the eager one."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from cycledistill.verification.compare import check_same
from cycledistill.verification.plain import plain
from cycledistill.verification.subject import Subject
from cycledistill.verification.table import Failed, NotChecked, Proof

_FUSED = 10.0
"""How much more rounding compiled code may differ by: compilers sum in another order."""


def check_compiled(subject: Subject, compiled: nn.Module | None) -> Proof:
    """Eval at exit 2 and a training forward, compiled, are the eager ones.

    Without a compiled model of the user's own, the graph is compiled and run by PyTorch's own kernels, which takes no
    C++ compiler.
    """
    if compiled is None and not _compiles(subject):
        raise NotChecked("the plain model does not compile either", optional=True)
    model: Any = compiled if compiled is not None else _compile(subject.model)
    cyclic = subject.handle("cyclic")
    with subject.at_exit(2) if cyclic is not None else nullcontext():
        worst = check_same(subject.ask(model=model), subject.ask(), factor=_FUSED, what="eval: ")
    if cyclic is None:
        return Proof(worst)
    eager = subject.ask(True)
    outputs = subject.ask(True, lambda out: out, model=model).outputs
    return Proof(max(worst, check_same(outputs, eager.outputs, factor=_FUSED, what="training: ")))


def _compile(model: nn.Module) -> Any:
    return torch.compile(model, backend="aot_eager")


def _compiles(subject: Subject) -> bool:
    try:
        with plain(subject.model):
            subject.run(model=_compile(subject.model))
    except Failed:
        return False
    except Exception:  # whatever a compiler raises
        return False
    return True
