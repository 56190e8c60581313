"""What a cyclic model costs: parameters, multiply-accumulates and time, for every part and every number of cycles."""

from __future__ import annotations

import dataclasses
import logging
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill.cost.macs import MacCounter, Macs, count_parts
from cycledistill.cost.timing import clock_name, interleaved
from cycledistill.cycle.exits import at_exit
from cycledistill.cycle.handle import Cyclic
from cycledistill.cycle.wrap import wrap_cyclic
from cycledistill.errors import StackError
from cycledistill.inputs import Call, Inputs, batch_size, call_of, describe, guess_call, with_data
from cycledistill.output import CycleOutput
from cycledistill.plugin.install import handle_of
from cycledistill.plugin.torch_private import (
    AnyBatchNorm,
    forward_hooks,
    forward_pre_hooks,
    tree_leaves,
    tree_map_only,
)
from cycledistill.stack.copies import meta_copy, plain_copy, unnoticed
from cycledistill.stack.find import Stack

__all__ = ["CostReport", "Macs", "Seconds", "cost"]

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Seconds:
    """Median time of one call: an eval forward of 1..N cycles, and a training step (forward, backward) of 1..N."""

    clock: str
    repeats: int
    exits: tuple[float, ...]
    training_step: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class CostReport:
    """The answer of `cost`. Tuples have one entry for each number of cycles: index 0 is one cycle.

    Attributes:
        model: Class name of the model.
        inputs: The inputs that were counted; MACs are for the whole of them (one image, if guessed).
        stack: The stack that is cycled.
        parameters: Parameters of the model; the stack's are ``stack.parameters``.
        trainable: Those of them that require a gradient.
        before: An eval forward up to the stack.
        one_pass: The stack, run once.
        after: An eval forward from the stack on.
        exits: An eval forward that runs 1..N cycles (`model.cyclic.exit`).
        training_forward: A training forward of 1..N cycles; the part after the stack runs once a cycle.
        training_step: That forward and its backward.
        seconds: Measured time, if asked for.
    """

    model: str
    inputs: str
    stack: Stack
    parameters: int
    trainable: int
    before: Macs
    one_pass: Macs
    after: Macs
    exits: tuple[Macs, ...]
    training_forward: tuple[Macs, ...]
    training_step: tuple[Macs, ...]
    seconds: Seconds | None = None

    @property
    def cycles(self) -> int:
        """The largest number of cycles reported, N."""
        return len(self.exits)

    @property
    def training_forward_ratio(self) -> float:
        """MACs of a training forward of N cycles over those of one cycle, attention included."""
        return self.training_forward[-1].total / max(self.training_forward[0].total, 1)

    @property
    def training_step_ratio(self) -> float:
        """MACs of a training step (forward and backward) of N cycles over those of one cycle, attention included."""
        return self.training_step[-1].total / max(self.training_step[0].total, 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers, ready for `json.dumps`."""
        record = {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return record | {
            "training_forward_ratio": self.training_forward_ratio,
            "training_step_ratio": self.training_step_ratio,
        }

    def __str__(self) -> str:
        share = 100 * self.stack.parameters / max(self.parameters, 1)
        shape = f", tokens {self.stack.shape}" if self.stack.shape else ""
        macs = [("before the stack", self.before), ("the stack, once", self.one_pass), ("after the stack", self.after)]
        macs += [(f"eval, {_cycles(n)}", each) for n, each in enumerate(self.exits, 1)]
        macs += [(f"training forward, {_cycles(n)}", each) for n, each in enumerate(self.training_forward, 1)]
        lines = [
            f"{self.model}, input {self.inputs}",
            f"stack       {self.stack.path}: {self.stack.depth} x {self.stack.block}{shape}",
            f"parameters  {self.parameters:,}, {self.trainable:,} trainable, {self.stack.parameters:,} "
            f"({share:.1f} %) in the stack",
            "",
            f"{'GMACs':<28}{'with attention matmuls':>24}{'without':>10}",
            *(f"{name:<28}{each.total / 1e9:>24.4f}{each.weights / 1e9:>10.4f}" for name, each in macs),
            "",
            f"Training with {_cycles(self.cycles)} over one: forward {self.training_forward_ratio:.3f}x, "
            f"forward and backward {self.training_step_ratio:.3f}x.",
        ]
        if self.seconds is not None:
            lines += ["", f"{'ms, median of ' + str(self.seconds.repeats):<28}{self.seconds.clock}"]
            for name, values in (("eval", self.seconds.exits), ("training step", self.seconds.training_step)):
                for n, value in enumerate(values, 1):
                    lines.append(f"{name + ', ' + _cycles(n):<28}{1e3 * value:>24.2f}{value / values[0]:>9.3f}x")
        return "\n".join(lines)


def cost(
    model: nn.Module,
    inputs: Inputs | None = None,
    cycles: int | None = None,
    *,
    blocks: str = "auto",
    repeats: int = 0,
) -> CostReport:
    """Count what a model costs with 1..N cycles and, on request, time it.

    Counted, not estimated: a copy of the model without data (meta device; a real copy where the model needs data to
    run) is wrapped and run in eval at every exit and in training with every number of cycles, under PyTorch's FLOP
    counter; MACs are FLOPs / 2. Matrix products, convolutions and attention count. Operations PyTorch has no formula
    for (elementwise, normalisation, softmax, FFT, custom kernels) count zero, and so do the distillation terms.
    ``Macs.weights`` leaves out products of two activations (QK^T and AV), as most papers' "GFLOPs" do.
    The model itself neither runs nor changes: its mode, gradients, BatchNorm statistics and random state stay, and its
    hooks see nothing, since the copy has none.

    Args:
        model: Plain or wrapped.
        inputs: What the model is called with: a tensor, for most models (B, 3, H, W), a tuple of positional arguments,
            or a mapping of keyword arguments. Default: one image of the size the model declares.
        cycles: N. Default: that of a wrapped model, 2 for a plain one.
        blocks: The stack of a plain model, as `wrap_cyclic` takes it.
        repeats: Rounds of interleaved timing on a copy, on the model's own device (CPU: one thread and process CPU
            time; CUDA: events); 0 times nothing. A training step includes the distillation of a wrapped model, or the
            default one. With a batch of one, which has no batch statistics, BatchNorm is timed in eval mode.

    Returns:
        A `CostReport`: print it, or take its ``to_dict()``.

    Raises:
        StackError: The model has no stack, or several; see `wrap_cyclic`.
        ValueError: ``cycles`` or ``repeats`` out of range, ``blocks`` given for a wrapped model, no input given and
            none of the sizes the model declares runs, or time asked of a model on the meta device.

    Example:
        >>> model = timm.create_model("deit_tiny_patch16_224")
        >>> [round(macs.total / 1e9, 2) for macs in cost(model, cycles=3).exits]
        [1.25, 2.48, 3.7]
    """
    cycles = _check(model, cycles, blocks, repeats)
    random = torch.random.fork_rng(devices={p.device for p in model.parameters() if p.is_cuda})
    with unnoticed(), random, torch.inference_mode(False), torch.enable_grad():  # a training step is counted too
        copied = _ready_to_run(meta_copy(model), cycles, blocks, inputs=inputs)
        blocks = copied.cyclic.stack.path
        given = guess_call(model, copied) if inputs is None else call_of(inputs)
        counts = _on_a_copy(model, copied, given, cycles, blocks, _count)
        seconds = _measure(model, with_data(given, model), cycles, blocks, repeats) if repeats else None
    return CostReport(
        model=type(model).__name__,
        inputs=describe(given),
        stack=copied.cyclic.stack,
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        seconds=seconds,
        **counts,
    )


def count_exits(model: nn.Module, given: Call, cycles: int) -> tuple[Macs, tuple[Macs, ...]]:
    """What `cost` counts of the eval forwards of a wrapped model alone: after the stack, and at each exit 1..N.

    Args:
        model: A wrapped model.
        given: Positional and keyword arguments.
        cycles: N.
    """
    with unnoticed(), torch.random.fork_rng(devices={p.device for p in model.parameters() if p.is_cuda}):
        copied = _ready_to_run(meta_copy(model), cycles, "auto")
        counts = _on_a_copy(model, copied, given, cycles, "auto", _count_eval)
    return counts["after"], counts["exits"]


def _on_a_copy(
    model: nn.Module,
    copied: Any,
    given: Call,
    cycles: int,
    blocks: str,
    count: Callable[[Any, Call, int], dict[str, Any]],
) -> dict[str, Any]:
    """Count on the meta copy, or on a real one where the model needs data to run."""
    try:
        return count(copied, tree_map_only(Tensor, lambda x: x.to("meta"), given), cycles)
    except StackError:
        raise
    except Exception as error:  # data-dependent control flow, an operation without a meta kernel
        _logger.debug("%s does not run on the meta device (%s); counting on a copy", type(model).__name__, error)
    copied = _ready_to_run(plain_copy(model), cycles, blocks)
    try:
        return count(copied, with_data(given, model), cycles)
    except StackError:
        raise
    except Exception as error:
        if not any(forward_hooks(module) or forward_pre_hooks(module) for module in model.modules()):
            raise
        raise ValueError(
            f"a copy of this {type(model).__name__} without its hooks does not run ({type(error).__name__}: {error}), "
            "and cost counts on copies, which carry none: let the forward keep by itself what it takes from a hook"
        ) from error


def _ready_to_run(
    copied: Any, cycles: int, blocks: str, distill: str | None = None, inputs: Inputs | None = None
) -> Any:
    """Make a copy of the model ready to run: wrapped, without gradients, and with something to train."""
    if not any(p.requires_grad for p in copied.parameters()):
        copied.requires_grad_(True)  # frozen for deployment: tell what training it would cost
    if handle_of(copied, "cyclic") is None:
        wrap_cyclic(copied, cycles, distill, blocks=blocks, inputs=inputs)
    elif distill is None:
        copied.cyclic.distill = None  # weights per cycle would fit one number of cycles only
    copied.zero_grad(set_to_none=True)
    return copied


def _training_mode(copied: nn.Module, still_norms: bool) -> None:
    """Training mode, with every BatchNorm in eval mode if asked: a batch of one has no statistics."""
    copied.train()
    for module in copied.modules():
        if still_norms and isinstance(module, AnyBatchNorm):
            module.eval()


def _check(model: nn.Module, cycles: int | None, blocks: str, repeats: int) -> int:
    handle: Cyclic | None = handle_of(model, "cyclic")
    if handle is not None and blocks != "auto":
        raise ValueError(f"blocks={blocks!r} was given for a model that is wrapped already, at {handle.stack.path!r}")
    if cycles is None:
        cycles = handle.cycles if handle is not None else 2
    if type(cycles) is not int or cycles < 1:
        raise ValueError(f"cycles={cycles!r}: a whole number of at least 1 is expected")
    if type(repeats) is not int or repeats < 0:
        raise ValueError(f"repeats={repeats!r}: a whole number of at least 0 is expected")
    if repeats and any(p.is_meta for p in model.parameters()):
        raise ValueError("a model on the meta device has no data to compute with: build it on a real device to time it")
    return cycles


def _count_eval(copied: Any, given: Call, cycles: int) -> dict[str, Any]:
    args, kwargs = given
    exits = []
    copied.eval()
    with torch.no_grad(), at_exit(copied, 1):
        stack = copied.cyclic.stack.modules(copied)
        before, one_pass, after = count_parts(copied, stack, lambda: copied(*args, **kwargs))
        for n in range(1, cycles + 1):
            with at_exit(copied, n), MacCounter(copied) as counter:
                copied(*args, **kwargs)
            exits.append(counter.read())
    return {"before": before, "one_pass": one_pass, "after": after, "exits": tuple(exits)}


def _count(copied: Any, given: Call, cycles: int) -> dict[str, Any]:
    args, kwargs = given
    forwards, steps = [], []
    evaluated = _count_eval(copied, given, cycles)
    _training_mode(copied, still_norms=True)  # BatchNorm has no MACs, and a batch of one has no statistics
    for n in range(1, cycles + 1):
        copied.cyclic.cycles = n
        with MacCounter(copied) as counter:
            out = copied(*args, **kwargs)
            forwards.append(counter.read())
            _loss_of_all(out).backward()
            steps.append(counter.read())
        copied.zero_grad(set_to_none=True)
    return evaluated | {"training_forward": tuple(forwards), "training_step": tuple(steps)}


def _measure(model: nn.Module, given: Call, cycles: int, blocks: str, repeats: int) -> Seconds:
    args, kwargs = given
    device = next(model.parameters()).device
    trained = _ready_to_run(plain_copy(model), cycles, blocks, "exits")
    evaluated = plain_copy(trained, {id(x): x for x in (*trained.parameters(), *trained.buffers())}).eval()
    _training_mode(trained, still_norms=batch_size(given) == 1)
    scheme = trained.cyclic.distill

    def step(n: int) -> None:
        trained.cyclic.cycles = n
        trained.cyclic.distill = scheme if n == cycles else None
        trained.zero_grad(set_to_none=True)
        _loss_of_all(trained(*args, **kwargs)).backward()

    @torch.no_grad()
    def forward(n: int) -> None:
        evaluated.cyclic.exit = n  # at_exit looks through all modules, which is not to be timed
        evaluated(*args, **kwargs)

    counts = range(1, cycles + 1)
    calls = {f"eval {n}": partial(forward, n) for n in counts} | {f"step {n}": partial(step, n) for n in counts}
    medians = {name: statistics.median(times) for name, times in interleaved(calls, device, repeats).items()}
    return Seconds(
        clock=clock_name(device),
        repeats=repeats,
        exits=tuple(medians[f"eval {n}"] for n in counts),
        training_step=tuple(medians[f"step {n}"] for n in counts),
    )


def _loss_of_all(out: CycleOutput) -> Tensor:
    """A number that every output and every distillation term has a part in, to run the backward from."""
    leaves = [x for x in tree_leaves((out.outputs, out.losses)) if isinstance(x, Tensor) and x.requires_grad]
    if not leaves:
        raise ValueError("the outputs of the model depend on no trainable parameter, so there is no training step")
    return torch.stack([x.float().mean() for x in leaves]).sum()


def _cycles(n: int) -> str:
    return "1 cycle" if n == 1 else f"{n} cycles"


def _plain(value: Any) -> Any:
    if isinstance(value, Macs):
        return {"total": value.total, "attention": value.attention, "weights": value.weights}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value
