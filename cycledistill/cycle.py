"""Turn a model into a Multi-Cycled Transformer in place, and back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial, wraps
from typing import Any, Literal, TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize

from cycledistill.distill import Distill
from cycledistill.groups import ALL, Groups, check_groups, default_groups, fit_groups, resolve_groups
from cycledistill.output import CycleOutput
from cycledistill.replay import (
    SITE,
    CycledBlock,
    EarlyModule,
    FrozenStatistics,
    Recorder,
    Run,
    Site,
    StackReached,
)
from cycledistill.stack import Stack, StackError, choose_stack
from cycledistill.swap import Swapped, has_plugin, swap, swapped_since, unswap

Model = TypeVar("Model", bound=nn.Module)
Scheme = str | Distill | Callable[[CycleOutput], torch.Tensor] | None

_NEVER_CALLED = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
_DATA_PARALLEL = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel")


class Cyclic:
    """The handle ``model.cyclic`` of a wrapped model. It holds no parameters and no module."""

    def __init__(self, stack: Stack, cycles: int, distill: Scheme) -> None:
        self._stack = stack
        self._cycles = _positive(cycles, "cycles")
        self._exit = 1
        self._distill = _resolve(distill)
        self._recorder = Recorder()
        self._siblings = 0
        self._freeze_batch_norm = False
        self._groups: Groups | None = None

    @property
    def stack(self) -> Stack:
        """The blocks that are cycled: ``.path`` and ``.depth``."""
        return self._stack

    @property
    def cycles(self) -> int:
        """How often the stack runs in a training forward; settable between steps."""
        return self._cycles

    @cycles.setter
    def cycles(self, cycles: int) -> None:
        self._cycles = _positive(cycles, "cycles")

    @property
    def exit(self) -> int:
        """The cycle whose output eval returns; settable, and may exceed ``cycles``."""
        return self._exit

    @exit.setter
    def exit(self, cycle: int) -> None:
        self._exit = _positive(cycle, "exit")

    @property
    def distill(self) -> Distill | Callable[[CycleOutput], torch.Tensor] | None:
        """The distillation scheme in force; settable, by preset name too. A schedule sets it from the training loop."""
        return self._distill

    @distill.setter
    def distill(self, distill: Scheme) -> None:
        self._distill = _resolve(distill)

    def __repr__(self) -> str:
        return f"Cyclic({self._stack.path} x{self._stack.depth}, cycles={self._cycles}, exit={self._exit})"

    def _task_weights(self) -> tuple[float, ...]:
        return self._distill.weights(self._cycles) if isinstance(self._distill, Distill) else (1.0,) * self._cycles

    def _losses(self, model: nn.Module, out: CycleOutput) -> dict[str, torch.Tensor]:
        if self._distill is None:
            return {}
        if not isinstance(self._distill, Distill):
            return {"distill": self._distill(out)}
        if self._groups is None:
            self._groups = resolve_groups(model, out.tokens[0])
        if self._groups != ALL:
            fit_groups(self._groups, () if isinstance(out.tokens[0], tuple) else tuple(out.tokens[0].shape))
        return self._distill.losses(out.outputs, out.tokens, self._groups)

    def _check_unedited(self, model: nn.Module) -> None:
        container, blocks = self._stack.path.split("[")[0], self._stack.modules(model)
        sites = [getattr(block, SITE, None) for block in blocks]
        same = len(sites) == self._stack.depth and all(
            isinstance(site, Site) and site.index == index and site.recorder is self._recorder
            for index, site in enumerate(sites)
        )
        if not same or len(list(model.get_submodule(container).children())) != self._siblings:
            raise StackError(
                f'blocks="{self._stack.path}": the blocks are not those that were wrapped; the model was edited since. '
                "Call unwrap_cyclic(model), edit, and wrap_cyclic(model) again"
            )

    def _train(self, model: nn.Module, forward: Callable[[], Any]) -> CycleOutput:
        """One training forward: the model's own pass, then every further cycle with its replayed tail."""
        self._check_unedited(model)
        if torch.is_grad_enabled():
            _check_trainable(self._stack, model)
        weights = self._task_weights()
        frozen = FrozenStatistics(model.modules() if self._freeze_batch_norm else ())
        run = self._recorder.run = Run(self._stack.path, self._stack.depth, stop_at_last=False)
        try:
            outputs, tokens = [forward()], []
            run.first_pass_done()
            tokens.append(run.state())
            for _ in range(1, self._cycles):
                run.cycle(frozen)
                tokens.append(run.state())
                outputs.append(run.replay(forward, frozen))
        finally:
            self._recorder.run = None
        out = CycleOutput(tuple(outputs), tuple(tokens), {}, weights)
        out.losses = self._losses(model, out)
        return out

    def _eval(self, forward: Callable[[], Any]) -> Any:
        """One eval forward at a later exit: the extra cycles, and the tail once."""
        # A compiler cannot follow the early stop; there the unused first tail is dead code, which it removes.
        stop = not torch.compiler.is_compiling()
        run = self._recorder.run = Run(self._stack.path, self._stack.depth, stop_at_last=stop)
        frozen = FrozenStatistics(())
        try:
            try:
                output = forward()
            except StackReached:
                run.first_pass_done()
                run.finish_first_cycle()
            else:
                if run.entered == 0:
                    return output  # this method does not go through the stack (a head on its own, say)
                run.first_pass_done()
            for _ in range(1, self._exit):
                run.cycle(frozen)
            return run.replay(forward, frozen)
        finally:
            self._recorder.run = None


class CycledHost(Swapped):
    """The wrapped model, and the modules between it and its stack: where a forward that may cycle begins."""

    swap_order = 10

    @classmethod
    def namespace(cls, below: type) -> dict[str, Any]:
        """Wrap every method by which users enter the stack; names, signatures and docs stay the base's."""
        names = (name for name in dir(below) if name.startswith(("forward", "get_intermediate_layers")))
        return {name: _entry(getattr(below, name)) for name in names if inspect.isfunction(getattr(below, name))}

    def __prepare_scriptable__(self) -> nn.Module:
        raise StackError(
            "torch.jit.script cannot compile a wrapped model: call unwrap_cyclic(model) first (the weights stay), or "
            "use torch.jit.trace, torch.export or ONNX, which take the wrapped model in eval mode"
        )


def _entry(method: Callable[..., Any]) -> Callable[..., Any]:
    is_forward = method.__name__ == "forward"

    @wraps(method)
    def enter(self: Any, *args: Any, **kwargs: Any) -> Any:
        cyclic: Cyclic = getattr(self, SITE)
        if self.training:
            cycles = is_forward and "cyclic" in self.__dict__
        else:
            cycles = cyclic._exit > 1
        if not cycles or cyclic._recorder.run is not None:
            return method(self, *args, **kwargs)
        if getattr(self, "_is_replica", False):
            raise StackError(
                "torch.nn.DataParallel runs replicas in threads that share one record of the forward: use "
                "torch.nn.parallel.DistributedDataParallel, or unwrap_cyclic(model)"
            )
        forward = partial(method, self, *args, **kwargs)
        return cyclic._train(self, forward) if self.training else cyclic._eval(forward)

    return enter


def wrap_cyclic(
    model: Model,
    cycles: int = 2,
    distill: Scheme = "sdpose",
    *,
    blocks: str = "auto",
    tokens: Mapping[str, slice] | None = None,
    batch_norm: Literal["freeze", "update"] = "freeze",
) -> Model:
    """Make ``model`` a Multi-Cycled Transformer, in place, and return it.

    While training, tokens pass ``cycles`` times through the same blocks, every cycle predicts through the model's own
    head, and the forward returns a :class:`CycleOutput`. In eval the model runs one cycle and is bit for bit the model
    that was given, or ``model.cyclic.exit`` cycles on request. Parameters, their names and order do not change.

    Args:
        model: Any module that holds a stack of blocks.
        cycles: How often the stack runs in a training forward, at least 1.
        distill: What later cycles teach earlier ones: a preset (``"sdpose"``, ``"exits"``, ``"elt"``, ``"mct"``), a
            :class:`Distill`, a callable ``(CycleOutput) -> scalar tensor``, or ``None``.
        blocks: The stack: ``"auto"``, or a path such as ``"encoder.layers"``, ``"blocks[0:10]"``, or one module that
            is the whole stack.
        tokens: Named groups of tokens, slices of dimension 1 of a (B, N, C) state. Default: ``prefix`` and ``patch``
            where the model declares a prefix that is in the stack, else the one group ``all``.
        batch_norm: ``"freeze"``: running statistics belong to the first cycle, the one that is deployed.
            ``"update"``: every cycle moves them.

    Raises:
        StackError: No stack, several, one that changes shape, a path that does not exist, a model that is wrapped,
            compiled, scripted, or inside a data-parallel wrapper, a frozen stack, or an argument out of its range. The
            model is then as it was.
        ValueError: An unknown preset or an invalid scheme.

    Example:
        >>> model = wrap_cyclic(timm.create_model("deit_tiny_patch16_224"), cycles=2)
        >>> out = model(torch.randn(4, 3, 224, 224))
        >>> len(out), out[0].shape
        (2, torch.Size([4, 1000]))

    Source: SDPose (CVPR 2024), section 3.2, the Multi-Cycled Transformer.
    """
    _check_wrappable(model)
    if batch_norm not in ("freeze", "update"):
        raise StackError(f'batch_norm={batch_norm!r}: "freeze" or "update" is expected')
    given_groups = None if tokens is None else check_groups(tokens)
    _positive(cycles, "cycles")
    _resolve(distill)
    cyclic = Cyclic(choose_stack(model, blocks), cycles, distill)
    cyclic._task_weights()
    stack = cyclic.stack
    _check_trainable(stack, model)
    cyclic._groups = given_groups or default_groups(model, stack.shape)
    if cyclic._groups not in (None, ALL) and stack.shape is not None:
        fit_groups(cyclic._groups, stack.shape)  # type: ignore[arg-type]
    if isinstance(cyclic.distill, Distill) and cyclic._groups is not None:
        cyclic.distill.group_weights(cyclic._groups)
    cyclic._siblings = len(list(model.get_submodule(stack.path.split("[")[0]).children()))
    has_batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    cyclic._freeze_batch_norm = batch_norm == "freeze" and has_batch_norm
    _swap_all(list(_roles(model, cyclic)))
    model.cyclic = cyclic  # type: ignore[assignment]
    return model


def unwrap_cyclic(model: Model) -> Model:
    """Give ``model`` its original class again, in place, and return it; weights and keys are untouched.

    Raises:
        StackError: The model is not wrapped, or another tool (FSDP2, parametrize) swapped a class since.

    Example:
        >>> unwrap_cyclic(model).state_dict()   # loads strictly into the model that was wrapped
    """
    if not isinstance(getattr(model, "cyclic", None), Cyclic):
        inner = " (unwrap its .module)" if type(model).__name__ in _DATA_PARALLEL else ""
        raise StackError(f"{type(model).__name__} is not wrapped by wrap_cyclic, so there is nothing to undo{inner}")
    recorder = model.cyclic._recorder
    swapped = [(name, m) for name, m in model.named_modules() if _recorder_of(m) is recorder]
    for name, module in swapped:
        other = swapped_since(module)
        if other is not None:
            raise StackError(
                f"{name or 'the model'} became a {other} after wrapping: another tool swapped its class. Undo that "
                "first, then call unwrap_cyclic(model)"
            )
    for _, module in swapped:
        for plugin in (CycledHost, CycledBlock, EarlyModule):
            if has_plugin(module, plugin):
                unswap(module, plugin)
        delattr(module, SITE)
    del model.cyclic
    return model


def _roles(model: nn.Module, cyclic: Cyclic) -> Iterator[tuple[nn.Module, type[Swapped], Any]]:
    blocks = cyclic.stack.modules(model)
    places = {id(block): index for index, block in enumerate(blocks)}
    inside = {id(module) for block in blocks for module in block.modules()}
    for key, module in enumerate(model.modules()):
        if id(module) in places:
            yield module, CycledBlock, Site(cyclic._recorder, places[id(module)])
        elif id(module) in inside or isinstance(module, _NEVER_CALLED):
            continue
        elif any(id(child) in places for child in module.modules()):
            yield module, CycledHost, cyclic
        elif not isinstance(module, torch.jit.ScriptModule) and not parametrize.is_parametrized(module):
            yield module, EarlyModule, Site(cyclic._recorder, key)


def _swap_all(roles: list[tuple[nn.Module, type[Swapped], Any]]) -> None:
    done: list[tuple[nn.Module, type[Swapped]]] = []
    try:
        for module, plugin, site in roles:
            swap(module, plugin)
            done.append((module, plugin))
            setattr(module, SITE, site)
    except TypeError as error:
        for module, plugin in done:
            unswap(module, plugin)
            module.__dict__.pop(SITE, None)
        raise StackError(
            f"Python cannot change the class of a {type(module).__name__} in this model: {error}"
        ) from error


def _recorder_of(module: nn.Module) -> Recorder | None:
    site = module.__dict__.get(SITE)
    return site._recorder if isinstance(site, Cyclic) else getattr(site, "recorder", None)


def _check_wrappable(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise StackError(f"wrap_cyclic takes a torch.nn.Module, and was given a {type(model).__name__}")
    name = type(model).__name__
    if isinstance(getattr(model, "cyclic", None), Cyclic):
        raise StackError(f"this {name} is already wrapped: set model.cyclic.cycles, or call unwrap_cyclic(model) first")
    if any(SITE in module.__dict__ for module in model.modules()):
        raise StackError(f"a module inside this {name} is already wrapped: call unwrap_cyclic on it first")
    if isinstance(model, torch.jit.ScriptModule):
        raise StackError(f"this {name} is scripted or traced: wrap the Python model it was made from")
    if any(type(module).__name__ == "OptimizedModule" for module in model.modules()):
        raise StackError(
            f"this {name} is compiled, or holds a compiled module: wrap the plain model, then compile it: "
            "torch.compile(wrap_cyclic(model))"
        )
    if name in _DATA_PARALLEL:
        raise StackError(f"this is a {name}: wrap the model inside, wrap_cyclic(model.module), before or after")
    if hasattr(model, "cyclic"):
        raise StackError(
            f"this {name} has an attribute of its own called 'cyclic', where the handle belongs: rename it"
        )


def _check_trainable(stack: Stack, model: nn.Module) -> None:
    blocks = stack.modules(model)
    parameters = [parameter for block in blocks for parameter in block.parameters()]
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        raise StackError(
            f'blocks="{stack.path}": no parameter of the stack requires gradients, so cycles would train nothing in '
            "it. Unfreeze the blocks (requires_grad_(True)), or freeze them only after training"
        )


def _resolve(distill: Scheme) -> Distill | Callable[[CycleOutput], torch.Tensor] | None:
    if isinstance(distill, str):
        return Distill.preset(distill)
    if distill is None or isinstance(distill, Distill) or callable(distill):
        return distill
    raise ValueError(f"distill={distill!r}: a preset name, a Distill, a callable (CycleOutput) -> Tensor, or None")


def _positive(value: int, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise StackError(f"{name}={value!r}: a whole number of at least 1 is expected")
    return value
