"""Find the stacks of blocks that a model runs one after another.

A stack is a container of siblings that each keep the shape of their input and hand their output, as an object, to the
next one. Structure proposes the candidates; a probe on the meta device confirms them where an input can be guessed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import nn

from cycledistill.errors import StackError
from cycledistill.plugin.swap import recipe_of
from cycledistill.plugin.torch_private import AnyConvolution
from cycledistill.stack.given import Inputs
from cycledistill.stack.links import Named, Trace, keeps_shape, traced_links
from cycledistill.stack.probe import has_forward, probe

_PATH = re.compile(r"^(?P<path>[^\[\]]+?)(?:\[(?P<start>\d*):(?P<stop>\d*)\])?$")
ATTENTION = re.compile(r"Attn|Attention|XCA|GPSA|MHSA|MQA|MHA|Focal|LiteMLA", re.IGNORECASE)


@dataclass(frozen=True)
class Stack:
    """A run of blocks inside a model.

    Attributes:
        path: What ``blocks=`` takes: ``"blocks"``, ``"blocks[4:10]"``, or one module that is the whole stack.
        depth: The number of blocks.
        block: Class name of the blocks.
        shape: Shape of the first state tensor, for a batch of one if none was given, or ``None`` where no probe ran it.
        parameters: The number of parameters in the blocks.
        share: The same as a fraction of the model's.
        attention: Whether a module inside is named as attention. A run of convolutions without is not taken by itself.
        whole: Whether the run is all of its container.
    """

    path: str
    depth: int
    block: str
    shape: tuple[int, ...] | None
    parameters: int
    share: float
    attention: bool
    whole: bool

    def modules(self, model: nn.Module) -> list[nn.Module]:
        """The blocks of this stack in ``model``, in order."""
        return [module for _, module in named_blocks(model, self.path)]

    def span(self, model: nn.Module) -> tuple[tuple[int, int] | None, int]:
        """Where the run begins and ends among its siblings, and how many these are; ``None, 1`` for one module."""
        container = model.get_submodule(self.path.split("[")[0])
        if not is_container(container):
            return None, 1
        siblings, first = list(container.children()), self.modules(model)[0]
        start = next(index for index, each in enumerate(siblings) if each is first)
        return (start, start + self.depth), len(siblings)

    def check_numbers(self, given: str, numbers: Iterable[int]) -> None:
        """Refuse numbers that no block of the stack has; ``given`` is the argument in words."""
        outside = [number for number in numbers if not 0 <= number < self.depth]
        if outside:
            raise StackError(
                f"{given}: {outside} lie outside the stack {self.path}, whose {self.depth} blocks are numbered 0 to "
                f"{self.depth - 1}"
            )

    def __str__(self) -> str:
        shape = f", state {self.shape}" if self.shape is not None else ""
        return f'blocks="{self.path}": {self.depth} x {self.block}{shape}, {self.share:.0%} of the parameters'


def find_stacks(model: nn.Module, inputs: Inputs | None = None) -> list[Stack]:
    """All runs of at least two same-class siblings that keep their input's shape, most parameters first.

    Left out are runs inside a block of another run, and those in the model itself, which no path names. A run with
    attention that guessed inputs do not reach, as text alone does not reach an image tower, is told by its structure.

    Args:
        model: Any module.
        inputs: What it is called with, on any device: a tensor, a tuple of arguments, or a mapping of keyword
            arguments. Default: guessed from the sizes that the model declares.

    Example:
        >>> [stack.path for stack in find_stacks(timm.create_model("swin_tiny_patch4_window7_224"))]
        ['layers.2.blocks', 'layers.3.blocks', 'layers.1.blocks', 'layers.0.blocks']
    """
    runs = outermost_runs(model, trace_containers(model, inputs), inputs is not None)
    return [run for run in runs if not is_in_model_itself(run.path)]


def trace_containers(model: nn.Module, inputs: Inputs | None) -> Trace | None:
    """What a trial shows of the modules in all containers."""
    return probe(model, [name for blocks in _containers(model).values() for name, _ in blocks], inputs)


def _containers(model: nn.Module) -> dict[str, list[tuple[str, nn.Module]]]:
    """What stands in each container, by path."""
    containers = ((name, module) for name, module in model.named_modules() if is_container(module))
    return {
        name: [(_join(name, child), each) for child, each in module.named_children()] for name, module in containers
    }


def outermost_runs(model: nn.Module, trace: Trace | None, given: bool = False) -> list[Stack]:
    """`find_stacks`, with the runs in the model itself; ``given`` where the trace is of inputs that the user gave."""
    total = sum(parameter.numel() for parameter in model.parameters()) or 1
    runs = []
    for name, blocks in _containers(model).items():
        seen = known_of(blocks, trace)
        for start, stop in _runs(blocks, seen):
            whole = stop - start == len(blocks)
            path = name if whole else f"{name}[{start}:{stop}]"
            run = stack_of(path, blocks[start:stop], whole, total, seen)
            if seen is trace or (not given and run.attention):  # else it may be heads, or nothing that is meant
                runs.append(run)
    outermost = [run for run in runs if not any(_inside(run, other) for other in runs)]
    return sorted(outermost, key=lambda run: -run.parameters)


def known_of(blocks: Named, trace: Trace | None) -> Trace | None:
    """The trace, if it ran any of these blocks: of others nothing is known."""
    return trace if trace is not None and any(trace[name] for name, _ in blocks) else None


def _runs(blocks: Named, trace: Trace | None) -> list[tuple[int, int]]:
    """Maximal runs [start, stop) of two or more same-class blocks that, as far as was seen, chain and keep shape."""
    indices = range(len(blocks))
    same_class = [list(group) for _, group in groupby(indices, key=lambda i: recipe_of(blocks[i][1])[0])]
    runs = []
    for group in same_class:
        start = group[0]
        for index in group:
            if trace is not None and not keeps_shape(index, group, blocks, trace):
                runs.append((start, index))
                start = index + 1
            elif trace is not None and index > start and not traced_links(index, blocks, trace):
                runs.append((start, index))
                start = index
        runs.append((start, group[-1] + 1))
    return [(start, stop) for start, stop in runs if stop - start >= 2 and can_run(blocks[start][1])]


def can_run(block: nn.Module) -> bool:
    """Whether a block can be called and has something to learn: not a bare ModuleList, not an activation."""
    return has_forward(block) and any(True for _ in block.parameters())


def is_convolutional(stack: Stack, model: nn.Module) -> bool:
    """Whether the blocks mix neighbours by convolutions alone: a CNN, cycled only where its path is given."""
    modules = (module for block in stack.modules(model) for module in block.modules())
    return not stack.attention and any(isinstance(m, AnyConvolution) and max(m.kernel_size) > 1 for m in modules)


def stack_of(path: str, blocks: Named, whole: bool, total: int, trace: Trace | None) -> Stack:
    """A run of blocks, as far as a trace tells."""
    parameters = {id(p): p.numel() for _, module in blocks for p in module.parameters()}
    calls = trace[blocks[0][0]] if trace is not None else []
    states = [leaf for leaf in calls[0].inputs if isinstance(leaf, torch.Tensor)] if calls else []
    return Stack(
        path=path,
        depth=len(blocks),
        block=type(blocks[0][1]).__name__,
        shape=tuple(states[0].shape) if states else None,
        parameters=sum(parameters.values()),
        share=sum(parameters.values()) / total,
        attention=any(ATTENTION.search(type(m).__name__) for _, module in blocks for m in module.modules()),
        whole=whole,
    )


def _inside(run: Stack, other: Stack) -> bool:
    below = run.path.startswith(other.path.split("[")[0] + ".")
    return run is not other and below and other.parameters >= run.parameters


def named_blocks(model: nn.Module, path: str) -> list[tuple[str, nn.Module]]:
    """The blocks that a path names, with their own paths, in order; refuses a path that names none."""
    if is_in_model_itself(path) and is_container(model):
        raise no_path(model)
    parsed = _PATH.match(path)
    if parsed is None:
        raise StackError(f'blocks="{path}": a path such as "encoder.layers" or "blocks[0:10]" is expected')
    name = parsed["path"]
    module = _submodule(model, name)
    children = [(_join(name, child), each) for child, each in module.named_children()]
    if parsed["start"] is None:
        if not children:
            raise StackError(
                f'blocks="{path}" names a leaf ({type(module).__name__}), which holds no blocks: name the container '
                "of the blocks, or one module that is the whole stack"
            )
        return children if is_container(module) else [(name, module)]
    if not is_container(module):
        raise StackError(f'blocks="{path}": {name} is a {type(module).__name__}, and only a container can be sliced')
    start, stop = int(parsed["start"] or 0), int(parsed["stop"] or len(children))
    if not 0 <= start < stop <= len(children):
        raise StackError(f'blocks="{path}": {name} holds {len(children)} blocks, [0:{len(children)}]')
    return children[start:stop]


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        names = [each for each, _ in model.named_modules() if each]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"; near it: {', '.join(map(repr, near))}" if near else ""
        raise StackError(f'blocks="{name}": {type(model).__name__} has no module of this path{hint}') from None


def is_in_model_itself(path: str) -> bool:
    """Whether blocks of this path are children of the model, which then has no path to name."""
    return path.split("[")[0] == ""


def no_path(model: nn.Module) -> StackError:
    """The refusal of blocks that are children of the model."""
    called = "nn.Sequential(model), say" if isinstance(model, nn.Sequential) else "one whose forward calls them"
    return StackError(
        f"the blocks stand in the {type(model).__name__} itself, and no path names them: put it into a module "
        f"({called}) and wrap that"
    )


def is_container(module: nn.Module) -> bool:
    """Whether a module holds others in order, and may not be called itself."""
    return isinstance(module, (nn.ModuleList, nn.Sequential))


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
