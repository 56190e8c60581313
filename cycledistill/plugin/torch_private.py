"""Every name that is private to PyTorch, in this one file; beside each the public name that would replace it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Public: none; PyTorch's page on extending it names this module.
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

# Public: none; torch.export documents its inputs and outputs in terms of this module.
from torch.utils._pytree import SequenceKey, TreeSpec
from torch.utils._pytree import keystr as keystr
from torch.utils._pytree import register_pytree_node as register_pytree_node
from torch.utils._pytree import tree_flatten as tree_flatten
from torch.utils._pytree import tree_leaves as tree_leaves
from torch.utils._pytree import tree_map as tree_map
from torch.utils._pytree import tree_map_only as tree_map_only
from torch.utils._pytree import tree_unflatten as tree_unflatten


def tree_flatten_with_path(tree: Any) -> tuple[list[tuple[Any, Any]], TreeSpec]:
    """Leaves with their paths, and how they were put together.

    Leaves are numbered where a class is registered without the names of its parts, as transformers does up to 5.12.
    Public: none, as above.
    """
    try:
        return torch.utils._pytree.tree_flatten_with_path(tree)
    except ValueError:
        leaves, spec = tree_flatten(tree)
        return [((SequenceKey(number),), leaf) for number, leaf in enumerate(leaves)], spec


def tree_leaves_with_path(tree: Any) -> list[tuple[Any, Any]]:
    """Leaves with their paths, as `tree_flatten_with_path` gives them. Public: none, as above."""
    return tree_flatten_with_path(tree)[0]


# Public: the tuple (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm), which misses classes that other
# packages derive from this one.
AnyBatchNorm = nn.modules.batchnorm._BatchNorm

# Public: the tuple (nn.Conv1d, ..., nn.ConvTranspose3d), which misses classes derived from this one.
AnyConvolution = nn.modules.conv._ConvNd

# Public: none; Tensor.to is many operators, and this is the one that dispatch modes see.
TO_COPY = torch.ops.aten._to_copy


def recomputing() -> bool:
    """Whether a backward is running: a checkpointed block then repeats an earlier forward. Public: none."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def is_transformed() -> bool:
    """Whether a transform of ``torch.func`` runs (vmap, grad, ...), which hides what needs gradients. Public: none."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


def is_vmapped() -> bool:
    """Whether ``torch.func.vmap`` runs: tensors stand for many, so that no value can be looked at. Public: none."""
    if torch.compiler.is_compiling():
        return False
    running = torch._C._functorch.get_interpreter_stack() or ()
    return any(each.key() == torch._C._functorch.TransformType.Vmap for each in running)


def is_tracing() -> bool:
    """Whether ``torch.jit.trace`` is at work. Public: ``torch.jit.is_tracing``, which goes with TorchScript."""
    return bool(torch._C._is_tracing())


def saving_hooks() -> Any:
    """The innermost saved-tensor hooks: another pair inside a block's call than outside means checkpointing.

    Public: none; ``torch.autograd.graph.saved_tensors_hooks`` sets them, and nothing reads them.
    """
    if torch.compiler.is_compiling() or is_tracing():
        return None
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks[0] if hooks is not None else None


def versions(leaves: Iterable[Any]) -> tuple[int, ...]:
    """How often each leaf was changed in place; nothing under a compiler, which cannot tell.

    Public: none; autograd's notes name ``Tensor._version``.
    """
    if torch.compiler.is_compiling():
        return ()
    return tuple(leaf._version if isinstance(leaf, Tensor) and not leaf.is_inference() else -1 for leaf in leaves)


def storage_of(tensor: Tensor) -> int:
    """What tells one storage from another, on the meta device too, where every ``data_ptr()`` is 0. Public: none."""
    return int(tensor.untyped_storage()._cdata)


def says_to_be_pure(operator: Any) -> bool:
    """Whether by its schema an operator neither changes nor returns an argument. Public: none.

    A few return views all the same (``aten._unsafe_view``); operators of a higher order have no schema.
    """
    schema = getattr(operator, "_schema", None)
    return schema is not None and not any(each.alias_info for each in (*schema.arguments, *schema.returns))


def forward_hooks(module: nn.Module) -> Mapping[int, Callable[..., Any]]:
    """The forward hooks of a module, by number.

    Public: none; ``register_forward_hook`` adds one, and nothing lists them.
    """
    return module._forward_hooks


def forward_pre_hooks(module: nn.Module) -> Mapping[int, Callable[..., Any]]:
    """The hooks that run before a module's forward, as `forward_hooks`. Public: none."""
    return module._forward_pre_hooks


# Public: none; ten methods named register_*_hook add hooks to a module, and nothing lists or removes them.
_HOOK_TABLES = tuple(name for name, value in vars(nn.Module()).items() if isinstance(value, dict) and "hook" in name)


def hook_tables(module: nn.Module) -> list[dict[int, Any]]:
    """The tables of all kinds of hooks of a module. Public: none, as above."""
    return [vars(module)[name] for name in _HOOK_TABLES if name in vars(module)]


def clear_hooks(module: nn.Module) -> None:
    """Take all hooks off a module that is a copy; its tables may be those of the original. Public: none, as above."""
    vars(module).update((name, type(vars(module)[name])()) for name in _HOOK_TABLES if name in vars(module))
    vars(module)["_is_full_backward_hook"] = None


def global_hook_tables() -> list[dict[int, Any]]:
    """The tables of hooks on all modules.

    Public: none; functions of ``torch.nn.modules.module`` named ``register_module_*`` fill them.
    """
    names = vars(torch.nn.modules.module).items()
    return [value for name, value in names if name.startswith("_global") and isinstance(value, dict)]


@contextmanager
def without_global_hooks() -> Iterator[None]:
    """Without the hooks that run around every module's forward and backward, or where one gets a part.

    Public: none, as above.
    """
    tables = global_hook_tables()
    before = [dict(table) for table in tables]
    for table in tables:
        table.clear()
    try:
        yield
    finally:
        for table, hooks in zip(tables, before, strict=True):
            added = dict(table)
            table.clear()
            table.update(hooks | added)


def children_of(module: nn.Module) -> dict[str, nn.Module | None]:
    """The children of a module, by name, to be changed in place.

    Public: ``named_children``, which lists a child once that stands there twice; ``add_module`` adds at the end alone.
    """
    return module._modules


def has_global_hooks() -> bool:
    """Whether hooks run around every module's forward.

    Public: none; ``torch.nn.modules.module.register_module_forward_hook`` adds one, and nothing lists them.
    """
    return bool(torch.nn.modules.module._global_forward_hooks or torch.nn.modules.module._global_forward_pre_hooks)


def is_replica(module: Any) -> bool:
    """Whether ``torch.nn.DataParallel`` made this module, as a shallow copy that runs in a thread. Public: none."""
    return bool(getattr(module, "_is_replica", False))


def mark_dynamic(tensor: Tensor, axis: int) -> None:
    """Let compiled code take this axis as one whose length changes, from the first call on.

    Public: none but this name, which PyTorch's page on dynamic shapes gives; importing it loads the compiler.
    """
    torch._dynamo.mark_dynamic(tensor, axis)


def is_compiled(module: nn.Module) -> bool:
    """Whether this module is what ``torch.compile`` returns for a module.

    Public: none; the class is ``torch._dynamo.OptimizedModule``, and importing it loads the compiler.
    """
    ancestors = ((each.__name__, each.__module__.startswith("torch.")) for each in type(module).__mro__)
    return ("OptimizedModule", True) in ancestors


_INSIDE = {
    "OptimizedModule": "_orig_mod",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
    "OffloadWrapper": "_checkpoint_wrapped_module",
}


def module_inside(module: nn.Module) -> nn.Module:
    """The module inside wrappers of PyTorch's own that compute what it computes: compiled, checkpointed, offloaded.

    Public: none; ``torch.compile`` and ``torch.distributed.algorithms._checkpoint`` make them.
    """
    while type(module).__name__ in _INSIDE and type(module).__module__.startswith("torch."):
        module = module.get_submodule(_INSIDE[type(module).__name__])
    return module


def compiled_from(module: nn.Module) -> nn.Module:
    """The module that ``torch.compile`` was given, where it returned this one; else the module itself. Public: none."""
    return module.get_submodule("_orig_mod") if is_compiled(module) else module
