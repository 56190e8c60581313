"""What thresholds are chosen on and curves drawn from: every sample at every exit, and what each exit costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cycledistill.adaptive.confidence import scores_of
from cycledistill.cost.report import count_exits
from cycledistill.inputs import Call, call_of
from cycledistill.plugin.torch_private import tree_leaves, tree_map_only

Metric = Callable[[Any, Any], Tensor]
"""From an output and the target of a batch to a number a sample, (B,)."""


class ManyExits(Protocol):
    """A model that answers for all samples at every exit, and how sure the answers are: `AdaptiveExit`."""

    model: nn.Module

    @property
    def exits(self) -> tuple[int, ...]:
        """The numbers of cycles."""

    def outputs_at_exits(self, *args: Any, **kwargs: Any) -> list[Any]:
        """One output an exit."""

    def confidences(self, outputs: Sequence[Any]) -> Tensor:
        """(B, exits - 1)."""


@dataclass(frozen=True)
class ExitCosts:
    """What a sample costs that leaves at each exit, in multiply-accumulates.

    Attributes:
        macs: Where it passed through all exits before: with their tails.
        fixed: Where the exit is fixed for all: with one tail.
        plain: The whole model at one cycle.
    """

    macs: tuple[float, ...]
    fixed: tuple[float, ...]
    plain: float

    @property
    def relative(self) -> tuple[float, ...]:
        """The same, as multiples of the whole model at one cycle."""
        return tuple(each / self.plain for each in self.macs)


@dataclass(frozen=True)
class Collected:
    """Every sample of a loader at every exit.

    Attributes:
        confidences: (S, exits - 1), float64.
        scores: (S, exits), float64: what the metric says; ``None`` where none was asked for.
        costs: Of a sample, the mean of the first batch: of its shape.
    """

    confidences: Tensor
    scores: Tensor | None
    costs: ExitCosts


def top_1(output: Any, target: Tensor) -> Tensor:
    """Whether the largest of the scores is the label; not where one of them is nan.

    Args:
        output: What the model returned: scores (B, classes), alone or as ``logits``.
        target: Labels, (B,).

    Returns:
        Booleans, (B,).

    Example:
        >>> top_1(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        tensor([ True, False])

    Raises:
        TypeError: The target is no tensor of one label a sample.
    """
    if not isinstance(target, Tensor) or target.ndim != 1:
        shown = f"a tensor {tuple(target.shape)}" if isinstance(target, Tensor) else f"a {type(target).__name__}"
        raise TypeError(
            f"the target of a batch is {shown}: a tensor of labels (B,) is expected, such as torch.tensor([3, 1]), or "
            "metric=, a callable that takes other targets"
        )
    scores = scores_of(output, "top-1")
    if len(target) != len(scores):  # one label would be compared with every sample
        raise TypeError(
            f"the target of a batch of {len(scores)} samples holds {len(target)} labels: one each is expected"
        )
    return (scores.argmax(1) == target) & ~scores.isnan().any(1)  # argmax takes nan for the largest


@torch.no_grad()
def collect(adaptive: ManyExits, loader: Iterable[Any], metric: Metric | None = None) -> Collected:
    """Run every batch of a loader to the last exit.

    Raises:
        ValueError: There is no sample, or a metric is asked for and a batch has no target.
        TypeError: No loader, a batch in another form, or a metric that is no number a sample.
    """
    if isinstance(loader, (Tensor, Mapping, str)) or not any(
        hasattr(loader, each) for each in ("__iter__", "__getitem__")
    ):
        raise TypeError(
            f"a loader of batches is expected, a DataLoader or a list such as [images], and a {type(loader).__name__} "
            "was given"
        )
    device = next((parameter.device for parameter in adaptive.model.parameters()), torch.device("cpu"))
    confidences, scores, costs = [], [], None
    for batch in loader:
        given, target = split_batch(batch)
        args, kwargs = tree_map_only(Tensor, lambda x: x.to(device), given)
        outputs = adaptive.outputs_at_exits(*args, **kwargs)
        confidences.append(adaptive.confidences(outputs).cpu())
        if metric is not None:
            scores.append(_measured(metric, outputs, target, len(confidences[-1]), device))
        costs = costs or exit_costs(adaptive.model, (args, kwargs), adaptive.exits)
    if costs is None:
        raise ValueError("the loader has no batch: samples are needed to choose thresholds on, or to measure")
    return Collected(torch.cat(confidences), torch.cat(scores) if scores else None, costs)


def split_batch(batch: Any) -> tuple[Call, Any]:
    """A batch of a loader as arguments of the model and the target, ``None`` where it has none.

    Raises:
        TypeError: The batch is neither a tensor, nor a mapping, nor a pair of inputs and target.
    """
    if isinstance(batch, Mapping):
        return call_of({key: value for key, value in batch.items() if key != "labels"}), batch.get("labels")
    if isinstance(batch, (tuple, list)) and len(batch) == 1 and isinstance(batch[0], Tensor):
        batch = batch[0]  # of a TensorDataset of inputs alone
    if isinstance(batch, Tensor):
        return call_of(batch), None
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[0], (Tensor, tuple, Mapping)):
        return call_of(batch[0]), batch[1]
    raise TypeError(
        "a batch is a tensor of inputs (alone, or in a list), a pair (inputs, target), or a mapping of keyword "
        f"arguments (with labels), and the loader gave a {type(batch).__name__}"
        + (f" of {len(batch)}" if isinstance(batch, (tuple, list)) else "")
    )


def exit_costs(model: nn.Module, given: Call, exits: tuple[int, ...]) -> ExitCosts:
    """Count what a sample costs at each exit: once to the stack, its cycles, a tail at each exit that it reaches.

    The products of two activations in attention count (`cycledistill.cost.Macs.total`).
    """
    after, exits_alone = count_exits(model, given, exits[-1])
    batch = next(len(leaf) for leaf in tree_leaves(given) if isinstance(leaf, Tensor) and leaf.ndim)
    fixed = tuple(exits_alone[each - 1].total / batch for each in exits)
    macs = tuple(each + place * after.total / batch for place, each in enumerate(fixed))
    return ExitCosts(macs, fixed, exits_alone[0].total / batch)


def _measured(metric: Metric, outputs: list[Any], target: Any, batch: int, device: torch.device) -> Tensor:
    if not callable(metric):
        raise TypeError(
            f"metric={metric!r:.80}: a callable from an output and the target to a number a sample is expected, "
            "such as cycledistill.adaptive.top_1"
        )
    if target is None:
        raise ValueError("a batch has no target: give pairs (inputs, target), or mappings with labels")
    target = tree_map_only(Tensor, lambda x: x.to(device), target)
    found = [metric(output, target) for output in outputs]
    for each in found:
        if not isinstance(each, Tensor) or tuple(each.shape) != (batch,):
            shown = f"a tensor {tuple(each.shape)}" if isinstance(each, Tensor) else repr(each)
            raise TypeError(f"metric: one number a sample is expected, a tensor ({batch},), and it returned {shown}")
    return torch.stack([each.double().cpu() for each in found], 1)
