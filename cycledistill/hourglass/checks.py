"""What ``wrap_hourglass`` was given, checked, and completed by what the model declares about itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from cycledistill.errors import StackError
from cycledistill.hourglass.settings import Select, TokenAxis
from cycledistill.plugin.handle import CYCLE_STATE, handle_of
from cycledistill.stack.find import Stack

SELECTIONS = ("tpc", "uniform", "motion", "attention")
LENGTHS = ("exact", "shorter", "any")
_FRONT = re.compile(r"(cls|class|dist|distillation|reg|register)_(token|embed|embedding)s?$")
"""Names of parameters that models put in front of their tokens."""


def check_layers(layer: int | Sequence[int], stack: Stack) -> tuple[int, ...]:
    """The numbers of the blocks before which frames are dropped."""
    numbers = tuple(layer) if isinstance(layer, (tuple, list, range)) else (layer,)
    whole = all(isinstance(each, int) and not isinstance(each, bool) for each in numbers)
    if not numbers or not whole or any(a >= b for a, b in pairwise(numbers)):
        raise StackError(
            f"layer={layer!r}: the number of a block is expected, or several in ascending order, as [3, 5]"
        )
    stack.check_numbers(f"layer={layer!r}", numbers)
    return numbers


def check_keep(keep: Any, layers: tuple[int, ...], frames: int | None) -> tuple[int | float, ...]:
    """What each prune point keeps."""
    kept = tuple(keep) if isinstance(keep, (tuple, list)) else (keep,)
    if len(kept) != len(layers):
        raise StackError(f"keep={keep!r}: one number for each of the prune points {list(layers)} is expected")
    for each in kept:
        share = isinstance(each, float) and 0 < each <= 1
        if not share and (not isinstance(each, int) or isinstance(each, bool) or each < 1):
            raise StackError(
                f"keep={each!r}: a whole number of frames, at least 1, or a share of the clip's, above 0 and at most 1"
            )
        if frames is not None and each > frames:
            raise StackError(f"keep={each!r}: the clip has {frames} frames; keep fewer, or a share of them as keep=1/3")
    absolute = [each * frames if frames is not None and isinstance(each, float) else each for each in kept]
    if len({type(each) for each in absolute}) == 1 and any(a < b for a, b in pairwise(absolute)):
        raise StackError(f"keep={keep!r}: a later prune point cannot keep more frames than an earlier one")
    return kept


def check_select(select: Any, stack: Stack, layers: tuple[int, ...]) -> Select:
    """A known selection, or a callable."""
    if not (isinstance(select, str) and select in SELECTIONS) and (isinstance(select, str) or not callable(select)):
        raise StackError(
            f"select={select!r}: one of {', '.join(map(repr, SELECTIONS))}, or a callable (tokens, keep) -> index"
        )
    if select == "attention" and 0 in layers:
        raise StackError(
            f'select="attention" reads the block before the prune point, and {stack.path} has none before 0'
        )
    return select


def check_recover(recover: Any) -> bool | str:
    """A known recovery."""
    if recover is True or recover is False or recover in ("local", "linear", "nearest"):
        return recover
    raise StackError(
        f'recover={recover!r}: True (learned attention), "local" (one that '
        'looks near in time), "linear", "nearest" or False is expected'
    )


def check_centre(centre: Any, recover: bool | str, frames: int | None) -> int | bool:
    """The frame that is always kept: by default the centre of the clip where the kept frames are all that comes out."""
    if centre is None:
        return recover is False
    if isinstance(centre, bool):
        return centre
    if not isinstance(centre, int) or centre < 0 or (frames is not None and centre >= frames):
        clip = "" if frames is None else f" of the {frames} in the clip"
        raise StackError(f"centre={centre!r}: the number of a frame{clip} is expected, or True, False")
    return centre


def one_of(name: str, value: Any, known: tuple[str | bool | None, ...]) -> Any:
    """``value``, if it is known."""
    if value not in known:
        raise StackError(f"{name}={value!r}: one of {', '.join(map(repr, known))} is expected")
    return value


def declared(model: nn.Module, *names: str) -> Any:
    """What the model, or its ``config``, declares under the first of these names that it has."""
    for owner in (model, getattr(model, "config", None)):
        for name in names:
            value = getattr(owner, name, None)
            if isinstance(value, (int, str)) and not isinstance(value, bool):
                return value
    return None


def size(name: str, given: Any, guess: Any, why: str) -> int:
    """A positive whole number, given or guessed; ``why`` says what it is needed for."""
    value = guess if given is None else given
    if value is None:
        raise StackError(f"{why}: pass {name}=..., which this model does not declare")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise StackError(f"{name}={value!r}: a whole number of at least 1 is expected")
    return value


def guess_width(model: nn.Module, block: nn.Module) -> int | None:
    """Channels of a token: declared, or those that the first norm of a block is for."""
    norms = (each for each in block.modules() if isinstance(each, nn.LayerNorm))
    found = next((int(norm.normalized_shape[-1]) for norm in norms), None)
    width = found or declared(model, "dim", "embed_dim", "hidden_size", "d_model")
    return width if isinstance(width, int) else None


def guess_heads(model: nn.Module, block: nn.Module) -> int | None:
    """Attention heads: those of a block, else declared."""
    found = (getattr(each, "num_heads", None) for each in block.modules())
    heads = next((each for each in found if isinstance(each, int)), None) or declared(model, "heads", "num_heads")
    return heads if isinstance(heads, int) else None


def check_cycles_of_same_module(model: nn.Module) -> None:
    """Refuse cycles that were wrapped around a part of the model, or around a model that it is part of."""
    if handle_of(model, "cyclic") is None and any(CYCLE_STATE in vars(module) for module in model.modules()):
        raise StackError(
            f"cycles are wrapped around a part of this {type(model).__name__}, or around a model it is part of: call "
            "wrap_hourglass and wrap_cyclic on the same module, so that one choice of frames serves all cycles"
        )


def check_batch_first(stack: Stack, blocks: Sequence[nn.Module]) -> None:
    """Refuse torch's attention where it takes the frames first: without a layout, clips would be taken for frames."""
    for block in blocks:
        for module in block.modules():
            if isinstance(module, nn.MultiheadAttention) and not module.batch_first:
                raise StackError(
                    f"{stack.path} holds a torch.nn.MultiheadAttention with batch_first=False, which takes (F, B, C), "
                    "and frames are expected on axis 1: build it with batch_first=True, or pass "
                    "layout=(lambda x: x.transpose(0, 1).unsqueeze(2), lambda x: x.squeeze(2).transpose(0, 1)); where "
                    "the block itself takes (B, F, C), layout=(lambda x: x.unsqueeze(2), lambda x: x.squeeze(2)), and "
                    "where it takes (B, F, J, C), layout=(lambda x: x, lambda x: x)"
                )


def token_axis(model: nn.Module, prefix: Any, frames: int | None, lengths: str) -> TokenAxis:
    """The token axis of ``model``; ``prefix`` and ``frames`` as ``wrap_hourglass`` was given them."""
    if declared(model, "attention_type") == "divided_space_time":
        raise StackError(
            f"the blocks of {type(model).__name__} divide attention between space and time, and are made for one "
            "number of frames: an hourglass, which leaves them fewer, does not serve them"
        )
    config = getattr(model, "config", None)
    time, patches = _video_frames(model), _patches(model, config)
    own = declared(model, "frames")
    return TokenAxis(
        prefix=declared_prefix(model) if prefix == "auto" else _check_prefix(prefix),
        frames=frames if frames is not None else own if isinstance(own, int) else time,
        patches=None if frames is not None and time is None else patches,
        lengths=lengths,
        is_video=time is not None,
        is_image=isinstance(getattr(getattr(model, "patch_embed", None), "num_patches", None), int),
    )


def declared_prefix(model: nn.Module) -> int:
    """Tokens in front that a model declares: a number, a group of tokens, or the parameters that hold them."""
    number = declared(model, "num_prefix_tokens")
    if isinstance(number, int):
        return number
    group = (getattr(model, "token_groups", None) or {}).get("prefix")
    if isinstance(group, slice) and isinstance(group.stop, int):
        return group.stop
    front = {id(p): p for name, p in model.named_parameters() if _FRONT.match(name.rpartition(".")[2])}
    return sum(1 if p.ndim < 2 else int(p.shape[-2]) for p in front.values())


def _check_prefix(prefix: Any) -> int:
    if isinstance(prefix, bool) or not isinstance(prefix, int) or prefix < 0:
        raise StackError(f'prefix={prefix!r}: "auto", or the number of tokens in front that are no frames, is expected')
    return prefix


def _video_frames(model: nn.Module) -> int | None:
    """Steps in time of a video model: its frames, fewer where several make up one token."""
    number = declared(model, "num_frames")
    if not isinstance(number, int):
        return None
    tubelet = _sizes(getattr(getattr(model, "config", model), "tubelet_size", None))
    return number // (tubelet[0] if tubelet else 1)


def _patches(model: nn.Module, config: Any) -> int | None:
    """Patches of one image, or of one step in time."""
    number = getattr(getattr(model, "patch_embed", None), "num_patches", None)
    if isinstance(number, int):
        return number
    image = _sizes(getattr(config, "image_size", None))
    patch = _sizes(getattr(config, "patch_size", None)) or _sizes(getattr(config, "tubelet_size", None))
    if not image or not patch or 0 in patch:
        return None
    height, width = image[-2:] if len(image) > 1 else image * 2
    rows, columns = patch[-2:] if len(patch) > 1 else patch * 2
    return (height // rows) * (width // columns)


def _sizes(value: Any) -> tuple[int, ...]:
    """A size, one number or several, as a tuple; empty for anything else."""
    value = value if isinstance(value, (tuple, list)) else (value,)
    whole = all(isinstance(each, int) and not isinstance(each, bool) for each in value)
    return tuple(value) if whole else ()
