"""Whether a forward trains the blocks it runs: a frozen stack is refused, and gradients that go nowhere are told of."""

from __future__ import annotations

import logging

import torch
from torch import nn

from cycledistill.cycle.modules import Recorder
from cycledistill.cycle.recording import Recording
from cycledistill.errors import StackError
from cycledistill.plugin.running import is_eager
from cycledistill.plugin.torch_private import is_transformed
from cycledistill.stack.find import Stack

_logger = logging.getLogger(__name__)


def check_trainable(stack: Stack, model: nn.Module) -> None:
    """Refuse a stack whose parameters are all frozen; inside a transform of torch.func that cannot be told."""
    blocks = stack.modules(model)
    parameters = [parameter for block in blocks for parameter in block.parameters()]
    if parameters and not any(parameter.requires_grad for parameter in parameters) and not is_transformed():
        others = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        some = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        what = f"What does is outside: {some}; one cycle trains it: cycles=1. " if others else ""
        raise StackError(
            f'blocks="{stack.path}": no parameter of the stack requires gradients, so cycles would train nothing in '
            f"it. {what}For more cycles something in the blocks must learn: all of them (requires_grad_(True)), or "
            "their norms, or adapters; freeze them only after training"
        )


def tell_of_untrained(recording: Recording, recorder: Recorder) -> None:
    """Say once that a block trains nothing though its parameters ask for gradients: what it returned has none.

    Reentrant checkpointing inside a block does that where what enters the block needs no gradient, as behind frozen
    embeddings; the plain model has the same fault, and is as silent.
    """
    if not recording.grad_enabled or recorder.told_of_untrained or not is_eager() or is_transformed():
        return
    for index, (call, output) in enumerate(zip(recording.calls, recording.outputs, strict=True)):
        tensors = [leaf for leaf in output.leaves if isinstance(leaf, torch.Tensor)]
        if any(tensor.requires_grad for tensor in tensors):
            continue
        if any(parameter.requires_grad for parameter in call.block.parameters()):
            recorder.told_of_untrained = True
            _logger.warning(
                'blocks="%s": parameters of block %d require gradients, and its output has none, so they are not '
                "trained, with cycles or without. Reentrant activation checkpointing does that where nothing that "
                "enters the block needs gradients, as behind frozen embeddings (LoRA): checkpoint with "
                "use_reentrant=False (for transformers gradient_checkpointing_kwargs={'use_reentrant': False}), or "
                "call model.enable_input_require_grads()",
                recording.path,
                index,
            )
            return
