"""Inputs to run a copy of a model with, and the trace of what ran.

The copy is on the meta device, so a probe of a large model takes a second and no memory. A probe that fails is no
verdict, and what it did not run is not known: the caller falls back on structure, and the first training forward
verifies what was assumed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from cycledistill.plugin.torch_private import tree_leaves
from cycledistill.stack.copies import bare_copy, unnoticed
from cycledistill.stack.given import (
    Call,
    Inputs,
    argument_names,
    call_of,
    given_call,
    in_types_of,
    judge_failed,
    unused_told,
)
from cycledistill.stack.links import Trace, TracedCall, shapes
from cycledistill.stack.meta_kernels import MetaKernels

_logger = logging.getLogger(__name__)


def has_forward(module: nn.Module) -> bool:
    """Whether a module can be called: a bare ModuleList cannot."""
    # The class of a scripted or traced module fails when it is asked for its forward.
    return isinstance(module, torch.jit.ScriptModule) or type(module).forward is not nn.Module.forward


@unnoticed()
def probe(model: nn.Module, names: Iterable[str], inputs: Inputs | None = None) -> Trace | None:
    """Run a meta copy of ``model`` once in eval mode, and trace the calls of the modules called ``names``.

    Returns:
        The calls of each name, none for those that did not run; or ``None`` where no input was given and none could be
        guessed, or the copy did not run.
    """
    names = list(names)
    given = None if inputs is None else given_call(model, inputs)
    candidates = list(guess_inputs(model)) if given is None else [given]
    if not candidates:
        return None
    copied = bare_copy(model)
    if copied is None:
        return None
    failed: Exception | None = None
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
    for call in candidates:
        for gradients in (True, False):  # some models cannot run with them, and still chain
            try:
                with unused_told(copied, given):
                    return _trace(copied, call, names, gradients)
            except Exception as error:  # a wrong guess of the input fails anywhere inside the model
                words = shapes(leaf for leaf in tree_leaves(call) if isinstance(leaf, torch.Tensor))
                _logger.debug("probe of %s with %s failed: %s", type(model).__name__, words, error)
                failed = error
    if given is not None and failed is not None:
        runs = next((guess for guess in guess_inputs(model) if _runs(copied, guess)), None)
        if runs is not None and _runs(copied, in_types_of(runs, given)):
            runs = None  # its type alone speaks against what was given, and under autocast nothing does
        judge_failed(model, given, failed, runs)
    return None


def trial_calls(model: nn.Module, inputs: Inputs | None, batch: int = 1) -> list[Call]:
    """What a trial may run a model with, on the meta device: what was given, or else guesses for a batch."""
    return list(guess_inputs(model, batch)) if inputs is None else [given_call(model, inputs)]


def _runs(copied: nn.Module, call: Call) -> bool:
    try:
        run_meta(copied, call)
    except Exception:  # as in any trial
        return False
    return True


def guess_inputs(model: nn.Module, batch: int = 1) -> Iterator[Call]:
    """Inputs the model may take, most telling source first, as meta tensors.

    Sources: the model's patch embedding, its ``image_size``, its Hugging Face config, timm's ``pretrained_cfg``.
    """
    config = getattr(model, "config", None)
    name = getattr(model, "main_input_name", "") if config is not None else ""
    if name == "input_ids":
        yield (), {name: torch.zeros(batch, 16, dtype=torch.long, device="meta")}
        return
    seen = set()
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    for size in declared_sizes(model):
        for channels in declared_channels(model, config):
            shape = (batch, channels, *size)
            if shape not in seen:
                seen.add(shape)
                images = torch.zeros(shape, dtype=dtype, device="meta")
                yield call_of({name: images} if name else images)


def declared_sizes(model: nn.Module, defaults: bool = True) -> Iterator[tuple[int, ...]]:
    """Sizes of images that a model declares, (height, width), most telling source first.

    Args:
        model: The model.
        defaults: Also those that timm has for its name.
    """
    config = getattr(model, "config", None)
    vision = getattr(config, "vision_config", None)
    pretrained = (getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)) if defaults else None
    embed = getattr(model, "patch_embed", None)
    for owner, attribute in (
        (embed, "img_size"),
        (config, "image_size"),
        (vision, "image_size"),
        (model, "image_size"),
        (model, "img_size"),
        (pretrained, "input_size"),
        (getattr(config, "backbone_config", None), "image_size"),  # VitPose
    ):
        size = owner.get(attribute) if isinstance(owner, dict) else getattr(owner, attribute, None)
        if isinstance(size, int):
            yield (size, size)
        elif isinstance(size, (tuple, list)) and len(size) >= 2 and all(isinstance(side, int) for side in size):
            yield tuple(size[-2:])


def declared_channels(model: nn.Module, config: Any) -> Iterator[int]:
    """Channels that its images may have, most telling source first; the last is 3."""
    declared = getattr(config, "num_channels", None)
    convolutions = (m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    for channels in (declared, next(convolutions, None), 3):
        if isinstance(channels, int):
            yield channels


def run_meta(copied: nn.Module, call: Call, gradients: bool = False) -> Any:
    """Run a meta copy in eval mode on guessed inputs."""
    args, kwargs = call
    with torch.set_grad_enabled(gradients), MetaKernels(), torch.device("meta"):
        return copied.eval()(*args, **kwargs)


def _trace(copied: nn.Module, call: Call, names: list[str], gradients: bool) -> Trace:
    trace: Trace = {name: [] for name in names}
    modules = dict(copied.named_modules())
    handles = []
    for name in names:

        def add(module: nn.Module, args: Any, kwargs: Any, output: Any, calls: list[TracedCall] = trace[name]) -> None:
            # Strong references keep every tensor's identity unique for the whole probe.
            ordered = {key: kwargs[key] for key in argument_names(module) if key in kwargs} | kwargs
            calls.append(TracedCall(tree_leaves((args, ordered)), tree_leaves(output)))

        handles.append(modules[name].register_forward_hook(add, with_kwargs=True))
    try:
        run_meta(copied, call, gradients)
    finally:
        for handle in handles:
            handle.remove()
    return trace
