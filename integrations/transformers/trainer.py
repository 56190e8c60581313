"""Models that train with cycles under Hugging Face's ``Trainer``, which expects one output with one loss."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from cycledistill import CycleLoss, CycleOutput, Distill, StackError, rewrap, unwrap_cyclic, wrap_cyclic
from cycledistill.inputs import Inputs
from cycledistill.output import UnscaledTerms
from cycledistill.plugin.install import handle_of
from cycledistill.plugin.saved import read_wrapping
from cycledistill.plugin.swap import Swapped, recipe_of, swap, swapped_since, unswap
from cycledistill.versions import require

require("transformers", "accelerate")

Model = TypeVar("Model", bound=nn.Module)

_CRITERION = "_cycle_loss"
"""Where a model keeps its `CycleLoss`."""


def wrap_for_trainer(
    model: Model,
    cycles: int = 2,
    distill: str | Distill | Callable[[CycleOutput], torch.Tensor] | None = "exits",
    *,
    blocks: str = "auto",
    tokens: Mapping[str, slice] | None = None,
    batch_norm: Literal["freeze", "update"] = "freeze",
    inputs: Inputs | None = None,
) -> Model:
    """Wrap a Hugging Face model, in place, so that ``Trainer`` trains all its cycles.

    As ``wrap_cyclic``; and while training the model returns the first cycle's ``ModelOutput``, whose ``loss`` is the
    sum of the cycles' own losses and the distillation terms. Signature, class name and keys stay the model's, so
    ``save_pretrained`` writes, and ``from_pretrained`` reads, the plain architecture. ``resume_from_checkpoint`` and
    ``load_best_model_at_end`` work: they read the names that ``save_pretrained`` gives to weights, which in current
    releases of transformers are not always the model's own.

    Args:
        model: A model whose output has a loss: from labels, as ``AutoModelForImageClassification``, by itself, as
            masked autoencoders, or on request, as CLIP with ``return_loss``; also with adapters of PEFT around it.
            Whether it has one shows in the first training step.
        cycles: How often the stack runs in a training forward.
        distill: A preset, a ``Distill``, a callable or ``None``.
        blocks: The stack; staged models need its path, such as ``"swin.encoder.layers.2.blocks"``.
        tokens: Named token groups, as ``wrap_cyclic`` takes them.
        batch_norm: As ``wrap_cyclic`` takes it.
        inputs: What the trial of the call is run with, as ``wrap_cyclic`` takes it.

    Raises:
        StackError: The model has no stack to cycle, or is wrapped already.

    Example:
        >>> model = AutoModelForImageClassification.from_pretrained("facebook/deit-tiny-patch16-224")
        >>> trainer = Trainer(wrap_for_trainer(model), args, train_dataset=dataset)
        >>> trainer.train()
        >>> trainer.save_model("deit")   # AutoModelForImageClassification.from_pretrained("deit") is the plain model
    """
    wrap_cyclic(model, cycles, distill, blocks=blocks, tokens=tokens, batch_norm=batch_norm, inputs=inputs)
    return _hosted(model)


def rewrap_for_trainer(
    model: Model,
    folder: str | os.PathLike[str],
    *,
    distill: str | Distill | Callable[[CycleOutput], torch.Tensor] | None = "saved",
    inputs: Inputs | None = None,
) -> Model:
    """Wrap a plain model again, in place, as the one was that ``Trainer`` saved, so that ``Trainer`` trains it on.

    As ``cycledistill.rewrap``, whose arguments and errors these are; and while training the model returns one output,
    as after `wrap_for_trainer`.

    Example:
        >>> trainer.save_model("deit")
        >>> model = rewrap_for_trainer(AutoModelForImageClassification.from_pretrained("deit"), "deit")
    """
    if "cyclic" not in read_wrapping(folder):
        raise StackError(
            f"{os.fspath(folder)}: the model that was saved had no cycles, and Trainer trains such by itself"
        )
    return _hosted(rewrap(model, folder, distill=distill, inputs=inputs))


def _hosted(model: Model) -> Model:
    swap(model, TrainerHost)
    vars(model)[_CRITERION] = CycleLoss()  # not as a part of the model, whose names of weights stay its own
    return model


def unwrap_for_trainer(model: Model) -> Model:
    """Give ``model`` its original class again, in place, and return it.

    Raises:
        StackError: ``wrap_for_trainer`` was not called on it, or another tool swapped its class since.
    """
    if not issubclass(type(model), TrainerHost):
        raise StackError(f"{type(model).__name__} is not wrapped by wrap_for_trainer, so there is nothing to undo")
    if swapped_since(model) is not None:
        raise StackError(f"another tool made the model a {swapped_since(model)}: undo that first")
    unswap(model, TrainerHost)
    vars(model).pop(_CRITERION, None)
    return unwrap_cyclic(model) if handle_of(model, "cyclic") else model  # unwrap_cyclic may have been called before


class TrainerHost(Swapped):
    """A wrapped model that returns one output with one loss while training."""

    swap_order = -10

    @classmethod
    def namespace(cls, below: type) -> dict[str, Any]:
        """The forward of the class below, with its signature, which ``Trainer`` reads to choose columns."""
        inner, load = below.forward, below.load_state_dict  # type: ignore[attr-defined]

        @wraps(inner)
        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            out = inner(self, *args, **kwargs)
            return _merged(out, kwargs, vars(self)[_CRITERION]) if isinstance(out, CycleOutput) else out

        @wraps(load)
        def load_state_dict(self: nn.Module, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
            return load(self, _own_names(self, state_dict), *args, **kwargs)

        return {"forward": forward, "load_state_dict": load_state_dict}


def _own_names(model: nn.Module, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """``state`` under the names of the model in memory, where it has those of its saved files.

    transformers 5 renames the weights of many models when it saves and reads them. ``Trainer`` loads checkpoints
    without that, and with a warning goes on with the weights that the model happens to have.
    """
    own, plain = model.state_dict().keys(), recipe_of(model)[0]
    if state.keys() <= own or not hasattr(plain, "config_class"):  # of PEFT's models only adapters are saved
        return state
    read, info = plain.from_pretrained(  # type: ignore[attr-defined]
        None, config=model.config, state_dict=dict(state), output_loading_info=True
    )
    return state if info["missing_keys"] or info["unexpected_keys"] else read.state_dict()


def _merged(out: CycleOutput, kwargs: dict[str, Any], criterion: CycleLoss) -> Any:
    student = out[0]
    if not isinstance(student, Mapping):  # return_dict=False: a tuple that begins with the loss
        raise ValueError(
            f"a model wrapped for Trainer returned a {type(student).__name__}: its output must be a ModelOutput, so do "
            "not pass return_dict=False"
        )
    if student.get("loss") is None:
        raise ValueError(
            f"this {type(student).__name__} has no loss. Either the model computes none: use one with a head "
            "(AutoModelForImageClassification), or ask for the loss as the model wants it (return_loss=True). Or it "
            "was given no labels: the data set has no column that it takes as such (label_names of TrainingArguments), "
            "or Trainer took them out for label_smoothing_factor or compute_loss_func, which would see one cycle "
            "alone. Compute such a loss in a compute_loss of your own, criterion(model(**inputs), labels) with a "
            "CycleLoss(task_loss), made once, on a model wrapped by wrap_cyclic"
        )
    share = _share(kwargs)
    parts = criterion.parts(out)
    # A term that follows the task loss has the micro-batch's part of it already.
    whole = out.losses.weighted if isinstance(out.losses, UnscaledTerms) else out.losses
    terms = [value * share if name in whole else value for name, value in parts.items()]
    return type(student)(**{**student, "loss": sum(terms[1:], terms[0])})


def _share(kwargs: dict[str, Any]) -> Any:
    """This micro-batch's part of the step: the model's losses are sums over it, divided by the items of all of them."""
    items, labels = kwargs.get("num_items_in_batch"), kwargs.get("labels")
    if items is None or not isinstance(labels, torch.Tensor):
        return 1.0
    return (labels != -100).sum() / items
