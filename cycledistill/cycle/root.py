"""The plug-in on the model itself: where a forward that may cycle begins."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from torch import nn
from torch.fx import Proxy

from cycledistill.cycle.call import ModelCall
from cycledistill.cycle.handle import Cyclic, Route
from cycledistill.cycle.modules import Recorder
from cycledistill.errors import StackError
from cycledistill.plugin.handle import CYCLE_STATE, KINDS
from cycledistill.plugin.install import refuse_replica
from cycledistill.plugin.saved import saving_of
from cycledistill.plugin.swap import Swapped


class CycledRoot(Swapped):
    """The wrapped model, and the modules between it and its stack: where a forward that may cycle begins."""

    swap_order = KINDS["cyclic"].swap_order

    @classmethod
    def namespace(cls, below: type) -> dict[str, Any]:
        """Wrap every method by which users enter the stack; names, signatures and docs stay the base's."""
        names = (name for name in dir(below) if name.startswith(("forward", "get_intermediate_layers")))
        methods = (name for name in names if inspect.isfunction(inspect.getattr_static(below, name)))
        return saving_of(below) | {name: _entry(name, getattr(below, name)) for name in methods}

    def __prepare_scriptable__(self) -> nn.Module:
        raise StackError(
            "torch.jit.script cannot compile a wrapped model: call unwrap_cyclic(model) first (the weights stay), or "
            "use torch.jit.trace, torch.export or ONNX, which take the wrapped model in eval mode"
        )


@dataclass
class RootState:
    """The state of a root: the handle, and the path from the root down to the stack's container."""

    cyclic: Cyclic
    below: str

    @property
    def recorder(self) -> Recorder:
        """The recorder that the root shares with the blocks."""
        return self.cyclic.recorder


def _entry(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def enter(self: Any, *args: Any, **kwargs: Any) -> Any:
        # A slice of a swapped Sequential is a new object of its class, and has no state: it is no root.
        state: RootState | None = self.__dict__.get(CYCLE_STATE)
        running = state.recorder.running if state is not None else None
        if state is None or running is not None:
            if state is not None and running is not None and name == "forward":
                running.roots.append(state.below)
            return method(self, *args, **kwargs)
        cyclic = state.cyclic
        whole = name == "forward" and self.__dict__.get("cyclic") is cyclic
        route = cyclic.decide(self.training, whole)
        if whole or route is not Route.PLAIN:
            cyclic.check_unedited(self, state.below)
        if route is Route.PLAIN:
            if self.training and name == "forward" and not whole:
                state.recorder.tell_of_part(self)
            return method(self, *args, **kwargs)
        refuse_replica(self, "cyclic")
        if any(isinstance(given, Proxy) for given in (*args, *kwargs.values())):
            raise StackError(
                "torch.fx traces a wrapped model only in eval mode and at exit 1 (create_feature_extractor also traces "
                "the training mode): call unwrap_cyclic(model) first, or model.eval() with model.cyclic.exit = 1"
            )
        call = ModelCall(method, self, args, kwargs, whole)
        if route is Route.DRIVEN:
            return cyclic.drive(call)
        return cyclic.run_all_cycles(call) if route is Route.TRAIN else cyclic.run_to_exit(call)

    return enter
