"""The front door of adaptive inference: a wrapped model whose samples stop at the exit where they are sure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill.adaptive.calibration.by_metric import choose_thresholds, warn_of_few
from cycledistill.adaptive.calibration.by_shares import Calibration
from cycledistill.adaptive.calibration.curve import Curve, sweep
from cycledistill.adaptive.calibration.data import ExitCosts, Metric, collect, exit_costs, top_1
from cycledistill.adaptive.checks import checked_exits, checked_options, checked_threshold, servable
from cycledistill.adaptive.confidence import Confidence, check_confidence, confidence_of
from cycledistill.adaptive.forward import KINDS, AdaptiveForward
from cycledistill.cycle.call import ModelCall
from cycledistill.cycle.snapshot import same_value
from cycledistill.errors import StackError
from cycledistill.inputs import Call
from cycledistill.plugin.install import handle_of
from cycledistill.plugin.torch_private import forward_hooks, tree_leaves, tree_map_only


class AdaptiveExit(nn.Module):
    """A wrapped model in eval mode, called as the model is, whose samples stop at the exit where they are sure.

    Cycle 1 and its tail (norm, head) run for all samples. Those whose confidence reaches the threshold of the exit
    leave with its output; the others run the next cycles and another tail, in a batch that shrinks. The part before the
    stack runs once a sample. A sample's output is that of the model at the sample's exit (``at_exit``), bit for bit
    where the kernels give the same for every batch size.

    The first call of a kind of input runs to the last exit beside, the whole of it and a few of its samples, to learn
    which tensors belong to samples and to check that none depends on the others; 16 kinds are remembered, whatever
    their batch sizes. Where two answers explain that call, a table of zeros as long as the batch, say, the next one is
    looked at again. Inputs are tensors and plain values. Hooks of the model itself see the call once, with the outputs
    put together, after samples were chosen by those before.

    It is not safe with threads: a call drives the model, which other threads must not call meanwhile.

    Args:
        model: What `wrap_cyclic` returned, in eval mode. Its weights stay where they are; `model.cyclic.exit` does not
            matter here.
        exits: The cycles that samples may leave after, ascending; they may exceed the cycles trained. The last one
            takes all that come so far.
        confidence: How sure an output is, the larger the surer. ``"probability"``: the largest softmax probability of
            scores (B, classes); of heatmaps (B, K, H, W) the mean of the K maxima, each held in [0, 1], in units of the
            peak of the training targets. ``"entropy"``: 1 less the softmax's entropy over its largest, log(classes).
            ``"agreement"``: with the exit before (see `cycledistill.adaptive.confidence`), never sure at the first.
            Or a callable from an output to a tensor (B,). A confidence that is NaN is not sure, and goes on.
        threshold: A sample leaves where its confidence is at least this: one number for all exits but the last, or one
            each; within [0, 1] for the named confidences, ``math.inf`` for an exit that none may leave at. ``None``:
            `calibrate` will set it.
        compile: Compile the model's part of a call: one graph to the first exit, one for each number of cycles between
            exits, with any number of rows. A mapping gives options of ``torch.compile``, such as ``{"mode": ...}``.
            Confidence, the choice of rows and `calibrate` run as they are.

    Raises:
        StackError: The model is not wrapped, or something of it cannot be served: a data-parallel or compiled model, an
            hourglass, a model in training mode, one whose samples depend on each other. The text says what to do.
        ValueError: ``exits``, ``confidence`` or ``threshold`` out of range; no threshold yet when it is called.
        TypeError: A confidence that is no number a sample, or an output that cannot be split by sample.

    Example:
        >>> adaptive = AdaptiveExit(model.eval(), exits=(1, 2, 3), threshold=0.9)
        >>> with torch.no_grad():
        ...     logits, exits = adaptive(images, return_exits=True)
        >>> logits.shape, exits
        (torch.Size([4, 10]), tensor([1, 3, 1, 2]))

    Source: early exits by confidence: BranchyNet (Teerapittayanon et al., ICPR 2016, arXiv 1709.01686); exits and
    budgets over a set of samples: MSDNet (Huang et al., ICLR 2018, arXiv 1703.09844).
    """

    def __init__(
        self,
        model: nn.Module,
        exits: Sequence[int] = (1, 2, 3),
        confidence: str | Confidence = "probability",
        threshold: float | Sequence[float] | None = None,
        *,
        compile: bool | Mapping[str, Any] = False,
    ) -> None:
        super().__init__()
        self._cyclic = servable(model)
        self._exits = checked_exits(exits)
        check_confidence(confidence)
        self._confidence = confidence
        self.model = model
        self.threshold = threshold
        self._forward = AdaptiveForward(self._cyclic, self.exits, checked_options(compile))
        self._last: tuple[Call, Tensor] | None = None
        self._costs: dict[Any, ExitCosts] = {}
        self.training = model.training  # not self.train(), which would change layers inside

    @property
    def exits(self) -> tuple[int, ...]:
        """The cycles that samples may leave after."""
        return self._exits

    @property
    def confidence(self) -> str | Confidence:
        """How sure an output is: a name, or a callable."""
        return self._confidence

    @property
    def threshold(self) -> tuple[float, ...] | None:
        """The confidence that is enough, one for each exit but the last; settable, as one number too."""
        return self._threshold

    @threshold.setter
    def threshold(self, threshold: float | Sequence[float] | None) -> None:
        self._threshold = checked_threshold(threshold, len(self.exits) - 1, isinstance(self.confidence, str))

    def forward(self, *args: Any, return_exits: bool = False, **kwargs: Any) -> Any:
        """Call the model, each sample up to the exit where it is sure.

        Args:
            *args: As the model takes them. The first tensor says how many samples there are.
            return_exits: Return the exit of each sample as well.
            **kwargs: As the model takes them.

        Returns:
            What the model returns; or that and the exits, (B,) int64: numbers out of ``exits``.
        """
        if self._threshold is None:
            raise ValueError(
                "AdaptiveExit has no threshold yet: call calibrate(loader, budget=1.4) with held-out data, or set one, "
                "adaptive.threshold = 0.9"
            )
        reached: list[Tensor] = []

        def until_sure(call: ModelCall) -> Any:
            outputs, places = self._forward.until_sure(call, self._sure)
            reached.append(torch.tensor(self.exits, device=places.device)[places])
            shapes = tree_map_only(Tensor, lambda x: x.detach().to("meta"), (call.args, call.kwargs))
            self._last = shapes, places
            return outputs

        outputs = self._driven_by(until_sure, args, kwargs)
        return (outputs, reached[0]) if return_exits else outputs

    def outputs_at_exits(self, *args: Any, **kwargs: Any) -> list[Any]:
        """The outputs of all samples at every exit, in one forward of all cycles: what thresholds are chosen on.

        Raises:
            StackError: A forward hook of the model itself changes its output: it would see that of the last exit alone.
        """
        found: list[Any] = []
        kept: list[Any] = []

        def at_all(call: ModelCall) -> Any:
            found[:] = self._forward.at_all(call)
            kept.append(tree_map_only(Tensor, torch.clone, found[-1]) if forward_hooks(self.model) else found[-1])
            return found[-1]

        output = self._driven_by(at_all, args, kwargs)
        if not _same_outputs(output, kept[0]):
            raise StackError(
                "a forward hook of the model, or a forward put over its own, changes what it returns, and the outputs "
                "at several exits cannot be passed through that one by one: remove it, and do what it does after the "
                "call (or in confidence= and metric=)"
            )
        return found

    def confidences(self, outputs: Sequence[Any]) -> Tensor:
        """The confidence at every exit but the last, (B, exits - 1), of what `outputs_at_exits` returned."""
        before = (None, *outputs)
        values = [self._confidence_of(*both) for both in zip(outputs[:-1], before, strict=False)]
        return torch.stack(values, 1) if values else torch.zeros(_rows_in(outputs[0]), 0)

    def mean_cost(self) -> float:
        """Mean cost of a sample of the last call, as a multiple of the whole model at one cycle, in counted MACs.

        Exits are counted once for a shape of inputs, and again where the shapes of parameters, or how many tokens a
        pruned model keeps, changed since.

        Raises:
            ValueError: Nothing was called yet.
        """
        if self._last is None:
            raise ValueError("mean_cost() is that of the last call, and there was none: call the adaptive model first")
        given, places = self._last
        key = self._counted_by(given)
        if key not in self._costs:
            if len(self._costs) == KINDS:
                del self._costs[next(iter(self._costs))]
            self._costs[key] = exit_costs(self.model, given, self.exits)
        costs = torch.tensor(self._costs[key].relative, dtype=torch.float64)
        return float(costs[places.cpu()].mean())

    def calibrate(self, loader: Iterable[Any], budget: float, metric: Metric | None = None) -> Calibration:
        """Find thresholds for a mean cost on held-out data, and set them.

        The samples are run to the last exit once. Without a metric no target is used: shares of the samples are sent to
        the exits in geometric proportion, the surest first, and the proportion is chosen so that the mean cost is the
        largest within the budget. With one the thresholds are those whose mean metric is the largest that was found
        within the budget, which may be less than all of it. That is better where an exit is sure and wrong, which
        samples then go past, and takes a thousand samples or so: thresholds fitted to a few hundred may be worse.

        Args:
            loader: Batches: a tensor of inputs, alone or in a list; a pair of inputs (a tensor, a tuple of arguments or
                a mapping of keyword arguments) and target; or a mapping of keyword arguments, whose ``labels`` are the
                target.
            budget: Mean cost of a sample in multiply-accumulates, as a multiple of the whole model at one cycle: 1.4 is
                40 % more than the plain model. It counts the part before the stack once, every cycle, and the tail at
                each exit that the sample reaches, for inputs of the first batch's shape: where lengths or image sizes
                vary, calibrate for each.
            metric: From an output and the target of a batch to a number a sample, (B,), the larger the better;
                `top_1` of this package for labels.

        Returns:
            The thresholds, and the cost and the share of samples of each exit that they give on this data.

        Raises:
            ValueError: A budget that no thresholds reach; the range is named. A loader without samples, or without
                targets for a metric, or a metric that is not finite.
            TypeError: A metric that is no number a sample.

        Example:
            >>> print(adaptive.calibrate(held_out, budget=1.4))
            >>> print(adaptive.calibrate(held_out_with_labels, budget=1.4, metric=top_1))

        Source: without a metric, the rule of MSDNet (Huang et al., ICLR 2018) for budgeted batches.
        """
        data = collect(self, loader, metric)
        warn_of_few(data)
        found = choose_thresholds(data, budget, self.exits)
        self._threshold = found.threshold
        return found

    def curve(
        self,
        loader: Iterable[Any],
        metric: Metric = top_1,
        *,
        points: int = 9,
        held_out: Iterable[Any] | None = None,
        by_metric: bool = False,
    ) -> Curve:
        """Accuracy against mean cost, for a sweep of budgets, beside the fixed exits.

        Args:
            loader: Batches with targets, as `calibrate` takes them.
            metric: From an output and the target of a batch to a number a sample, (B,). Default: whether the largest of
                the scores (B, classes) is the label.
            points: Budgets between the cost of the first exit and of the last, both included, at least 2.
            held_out: Data on which the thresholds of each budget are chosen. Default: ``loader``; no label is used for
                that, and its mean costs are then met by construction.
            by_metric: Choose them by the metric, with the targets of ``held_out``, as `calibrate` does with one.

        Returns:
            A `Curve`: print it, or take its ``rows``. The thresholds of this object stay as they are.

        Raises:
            ValueError: ``points`` below 2, batches without a target, a loader without samples, ``by_metric`` without
                ``held_out`` or with a metric that is not finite.
            TypeError: A metric that is no number a sample.

        Example:
            >>> print(adaptive.curve(test_loader, held_out=validation_loader))
        """
        if by_metric and held_out is None:
            raise ValueError(
                "by_metric=True: give held_out=, other data with targets; thresholds that are chosen by the targets "
                "they are then measured on look better than they are"
            )
        data = collect(self, loader, metric)
        if held_out is None:
            chosen_on = replace(data, scores=None)
        else:
            chosen_on = collect(self, held_out, metric if by_metric else None)
            warn_of_few(chosen_on)
        return sweep(chosen_on, data, self.exits, points)

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        return f"exits={self.exits}, confidence={self.confidence!r}, threshold={self._threshold}"

    def _counted_by(self, given: Call) -> Any:
        """What the costs of exits hang on."""
        shapes = tree_map_only(Tensor, lambda x: (tuple(x.shape), x.dtype), given)
        pruning: Any = handle_of(self.model, "pruning")
        return repr(shapes), tuple(each.shape for each in self.model.parameters()), pruning and pruning.keep

    def _confidence_of(self, output: Any, before: Any) -> Tensor:
        return confidence_of(self.confidence, output, before, _rows_in(output))

    def _sure(self, place: int, output: Any, before: Any) -> Tensor:
        """Which samples leave at an exit; a confidence that is NaN is below every threshold."""
        assert self._threshold is not None
        return self._confidence_of(output, before) >= self._threshold[place]

    def _driven_by(self, driver: Callable[[ModelCall], Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if torch.compiler.is_compiling():
            raise StackError("an AdaptiveExit decides in Python which samples go on: AdaptiveExit(..., compile=True)")
        if self.model.training:
            raise StackError("the model is in training mode, where all samples run all cycles: call model.eval() first")
        if handle_of(self.model, "cyclic") is not self._cyclic:
            raise StackError("the model was unwrapped, or wrapped again, since: make a new AdaptiveExit of it")
        calls: list[ModelCall] = []

        def drive(call: ModelCall) -> Any:
            calls.append(call)
            return driver(call)

        with self._cyclic.driven_by(drive):
            output = self.model(*args, **kwargs)
        if len(calls) != 1:
            raise StackError(
                f"the forward of the wrapped model ran {len(calls)} times in one call; once is expected. Something "
                "replaced it since: wrap the model first, then prepare or patch it"
            )
        return output


def _same_outputs(one: Any, other: Any) -> bool:
    """Whether two outputs hold the same values; of what prepares for autocast, one may be in a wider type."""
    leaves, others = tree_leaves(one), tree_leaves(other)
    return len(leaves) == len(others) and all(
        same_value(a.to(b.dtype) if isinstance(a, Tensor) and isinstance(b, Tensor) else a, b)
        for a, b in zip(leaves, others, strict=True)
    )


def _rows_in(output: Any) -> int:
    return next(len(leaf) for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
