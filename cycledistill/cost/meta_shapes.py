"""Remember what operations on the meta device return: most work out their shapes in Python, again for every block."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from cycledistill.plugin.torch_private import TorchDispatchMode, says_to_be_pure, storage_of, tree_leaves


class MetaShapes(TorchDispatchMode):
    """While entered, an operation that was seen with arguments of the same layout returns empty tensors at once.

    Only operations that neither change an argument nor return what shares its memory, and only on plain tensors of the
    meta device, which hold no values. All others run as they do.

    Example:
        >>> x = torch.empty(2, 3, device="meta")
        >>> with MetaShapes():
        ...     [torch.nn.functional.gelu(x).shape for _ in range(2)]  # the second time without computing it
        [torch.Size([2, 3]), torch.Size([2, 3])]
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[Hashable, list[tuple[Any, ...]] | tuple[Any, ...]] = {}
        self._pure: dict[Any, bool] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in self._pure:
            self._pure[func] = says_to_be_pure(func)
        key = None
        if self._pure[func]:
            try:
                key = (func, _layout(args), _layout(tuple(kwargs.items())))
                found = self._seen.get(key)
            except (_Elsewhere, TypeError):  # a tensor that holds values; an argument that cannot be looked up
                return func(*args, **kwargs)
            if found is not None:
                return [_empty(each) for each in found] if isinstance(found, list) else _empty(found)
        out = func(*args, **kwargs)
        if key is not None and self._is_new(out, (args, kwargs)):
            self._seen[key] = [_layout(each) for each in out] if isinstance(out, (tuple, list)) else _layout(out)
        return out

    def _is_new(self, out: Any, given: Any) -> bool:
        """Whether all that came out are tensors with memory of their own; not every view says that it is one."""
        taken = {storage_of(each) for each in tree_leaves(given) if isinstance(each, Tensor)}
        made = out if isinstance(out, (tuple, list)) else [out]
        return all(type(each) is Tensor and each.is_meta and storage_of(each) not in taken for each in made)


class _Elsewhere(Exception):
    pass


def _layout(value: Any) -> Any:
    """What a result may depend on: of a tensor its layout, of all else the value and its type, as 1 is not 1.0."""
    if isinstance(value, Tensor):
        if not value.is_meta or type(value) not in (Tensor, torch.nn.Parameter):
            raise _Elsewhere
        return value.shape, value.stride(), value.dtype
    if isinstance(value, (tuple, list)):
        return tuple([_layout(each) for each in value])
    return type(value), value


def _empty(layout: tuple[Any, ...]) -> Tensor:
    shape, stride, dtype = layout
    return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
