"""A trained pose model made fast for inference, with proof that it still answers the same."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cycledistill import unwrap_cyclic, wrap_cyclic
from cycledistill.plugin.handle import KINDS, handle_of
from cycledistill.recipes.run.precision import fast_half, has_units
from cycledistill.recipes.run.sub_batches import SUB_BATCH, check_size, in_sub_batches

from .models.tokenpose import TokenPose

_logger = logging.getLogger(__name__)

_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1}


class InferenceError(RuntimeError):
    """The prepared model does not answer like the original."""


class PreparedPose(TokenPose):
    """What `prepare_for_inference` makes of a model that it leaves without plug-ins: larger batches run in parts.

    Attributes:
        sub_batch: On a CPU, the most images that go through the network at once; ``None``: all of a batch. Settable.
    """

    is_published = False
    sub_batch: int | None = None

    def forward(self, images: Tensor) -> Tensor:
        """As `TokenPose`. Wrapped since, it runs whole: a plug-in follows one forward."""
        if torch.compiler.is_compiling() or any(handle_of(self, kind) is not None for kind in KINDS):
            return super().forward(images)
        self._check_images(images)  # an error is to show the shape that was given
        return in_sub_batches(self, images, size=self.sub_batch, call=super().forward)


def prepare_for_inference(
    model: TokenPose,
    example: Tensor | None = None,
    *,
    dtype: torch.dtype | None = None,
    channels_last: bool = True,
    tolerance: float | None = None,
    sub_batch: int | None = SUB_BATCH,
) -> TokenPose:
    """A copy of a pose model for inference: plain, BatchNorm folded into the convolutions, channels last.

    The copy is not wrapped by ``wrap_cyclic``, unless ``model.cyclic.exit`` is beyond 1, which it then keeps. Token
    pruning is part of the model and stays. The copy has no BatchNorm, so it is not for training, and its weights do not
    replace the model's in a checkpoint.

    Args:
        model: A pose model, wrapped or not; untouched.
        example: Images (B, 3, H, W) to compare the two on, normalised; default: two of random pixels. With real images
            the comparison says more.
        dtype: The type of weights and arithmetic, which images must then have (`predict` sees to it):
            ``torch.float32``, ``torch.bfloat16`` or ``torch.float16``. Default: on a CUDA device bfloat16, or float16
            where it has no units for bfloat16; elsewhere, and for a model that is in half precision, as it is. A
            processor that emulates the type answers right but several times slower; a warning says so.
        channels_last: Convolutions in that memory layout, the faster one on most CPUs and GPUs.
        tolerance: Largest difference of the two models' outputs that is accepted, in units of the largest output;
            default 1e-3, in float16 0.02 and in bfloat16 0.1.
        sub_batch: On a CPU a batch of more images goes through the network in parts of so many, and the outputs are
            joined; ``None``: as one. A batch as one where something compiles or exports the copy, with token pruning,
            with an exit beyond 1, and with hooks inside; see `in_sub_batches`. ``prepared.sub_batch`` changes it.

    Returns:
        The copy, in eval mode, on the model's device. The log says by how much the outputs differ.

    Raises:
        InferenceError: The outputs differ by more, or are not finite.
        ValueError: Another ``dtype``, or bfloat16 on a GPU without it; a ``sub_batch`` below 1.

    Example:
        >>> fast = prepare_for_inference(model, images, dtype=torch.bfloat16)
        >>> heatmaps = fast(images.bfloat16()).float()
    """
    check_size(sub_batch, "sub_batch")
    weight = next(model.parameters())
    dtype = _type_for(weight, dtype)
    prepared = copy.deepcopy(model).eval()
    handle = handle_of(prepared, "cyclic")
    exit = handle.exit if handle is not None else 1
    if handle is not None:
        unwrap_cyclic(prepared)
    folded = fold_batch_norm(prepared.backbone)
    if type(prepared) is TokenPose:  # else it is wrapped: the class is the plug-in's
        plain: Any = prepared
        plain.__class__, plain.sub_batch = PreparedPose, sub_batch
    if exit > 1:
        again: Any = wrap_cyclic(prepared, exit, None, blocks="blocks")
        again.cyclic.exit = exit
    prepared.requires_grad_(False).eval()  # what stands in for a BatchNorm is new
    prepared.to(dtype=dtype)
    if channels_last:
        prepared.to(memory_format=torch.channels_last)
    if example is None:
        generator = torch.Generator().manual_seed(0)
        example = torch.randn(2, 3, *model.config.image_size, generator=generator)
    difference = output_difference(prepared, model, example.to(weight.device))
    allowed = tolerance if tolerance is not None else _TOLERANCE.get(dtype, _TOLERANCE[torch.float32])
    if not difference <= allowed:
        raise InferenceError(
            f"the prepared model's outputs differ by {difference:.2g} of the largest output, more than {allowed:g}: "
            f"{'' if dtype.itemsize > 2 else 'use dtype=torch.float32, or '}pass tolerance= if that is close enough"
        )
    _logger.info("%s, %d BatchNorms folded; outputs differ by %.2g of the largest output", dtype, folded, difference)
    return prepared


def _type_for(weight: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """The type to prepare a model in whose parameters are like ``weight``."""
    if dtype not in (None, *_TOLERANCE):
        raise ValueError(f"dtype={dtype}: torch.bfloat16, torch.float16, torch.float32 or None is expected")
    if dtype is None:
        half = fast_half(weight.device) if weight.dtype is torch.float32 else None
        return half or weight.dtype
    if not has_units(weight.device, dtype):
        if weight.device.type != "cpu":
            raise ValueError(f"dtype={dtype}: {weight.device} has no units for it; use torch.float16 or None")
        # Not refused: the answers are right, and someone may want them from this machine.
        _logger.warning(
            "dtype=%s: this processor has no units for it, and emulating it is several times slower than float32; for "
            "speed leave dtype out",
            dtype,
        )
    return dtype


@torch.no_grad()
def output_difference(prepared: nn.Module, original: nn.Module, images: Tensor) -> float:
    """Largest difference of two models' outputs in eval mode, in units of the second's largest output.

    Args:
        prepared: One model, of any floating-point type.
        original: The other; in the mode it was in afterwards.
        images: (B, 3, H, W), normalised.

    Returns:
        ``max |a - b| / max |b|``; ``nan`` where an output is not finite.
    """
    training = original.training
    original.eval()
    try:
        expected = original(images.to(next(original.parameters()).dtype)).float()
    finally:
        original.train(training)
    got = prepared(images.to(next(prepared.parameters()).dtype)).float()
    return float((got - expected).abs().max() / expected.abs().max())


def fold_batch_norm(module: nn.Module) -> int:
    """Fold every BatchNorm that follows a convolution directly into it, in place; both in eval mode.

    A trace of the module says what follows what, so nothing is guessed from names or order of creation.

    Returns:
        How many were folded.
    """
    if not any(isinstance(each, nn.BatchNorm2d) for each in module.modules()):
        return 0
    traced = fx.symbolic_trace(module)
    modules = dict(traced.named_modules())
    folded = 0
    for node in traced.graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        conv, norm = modules[str(before.target)], modules[str(node.target)]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module.set_submodule(str(before.target), fuse_conv_bn_eval(conv, norm))
            module.set_submodule(str(node.target), nn.Identity())
            folded += 1
    return folded
