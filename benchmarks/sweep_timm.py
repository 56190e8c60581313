"""What does `wrap_cyclic(model)` do with every model timm names? Wraps, refuses with reason, or goes wrong.

    python benchmarks/sweep_timm.py --jobs 2                      # all names, about half an hour on two cores
    python benchmarks/sweep_timm.py --names "vit_tiny*" "swin*"   # some, patterns allowed

Models are built and run on the meta device: structure and shapes, no values, no downloads, no GPU. Each name ends in
one of five ways:

wraps       the bare call takes a stack, and every check below holds
staged      the bare call lists stacks with attention, and the call it proposes passes the checks
refused     the bare call finds no stack with attention; if it proposes a call all the same, that trains (first check)
wrong       a check fails, or anything but a StackError is raised
unrunnable  the model itself, unwrapped, does not run on the meta device

The checks rest on forward hooks and on the bare model, not on the library's records. With two cycles every block runs
exactly twice, in order, and the second cycle starts from the tensor the first one ended with; what a block takes
beside other blocks' outputs depends on none of them, by the autograd graph. There are two training
outputs, each of the bare model's structure and shapes, and the losses are scalars. Eval at exits 1 and 2 returns the
bare model's structure and shapes, with blocks run once and twice. Wrapped and unwrapped, the state_dict keys, their
order and the class are the bare model's.

Results are kept as they come (OUT.partial), so a run that was stopped goes on where it was. Names of an earlier OUT
that are not asked for again stay, so shards may share one file.
"""

from __future__ import annotations

import argparse
import fnmatch
import itertools
import json
import logging
import multiprocessing
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from common import RESULTS  # beside this file
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from cycledistill import CycleOutput, StackError, unwrap_cyclic, wrap_cyclic
from cycledistill.files import atomic_write

STATUSES = ("wraps", "staged", "refused", "wrong", "unrunnable")
_PROPOSED = re.compile(r'wrap_cyclic\(model, blocks="([^"]+)"\)')
_PLACEHOLDER = "path.to.module"
Record = dict[str, Any]


class CheckFailed(Exception):
    """A wrapped model does not do what it must."""


def examine(name: str) -> Record:
    """One name's outcome: ``status``, ``class``, and where known ``path``, ``depth``, ``block``, ``message``."""
    record: Record = {"name": name}
    with torch.device("meta"):
        try:
            model = timm.create_model(name)
            images = torch.empty(2, *resolve_model_data_config(model)["input_size"])
            record["class"] = type(model).__name__
            bare = Bare(model, images)
        except Exception as error:
            return record | {"status": "unrunnable", "message": _words(error)}
        try:
            return record | _outcome(model, bare)
        except Exception as error:
            return record | {"status": "wrong", "message": _words(error)}


class Bare:
    """What the model is and returns before it is wrapped."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self.images, self.type = images, type(model)
        self.keys = list(model.state_dict())
        with torch.no_grad():  # some models cache tensors, which then would hold a graph
            self.train = _shapes(model.train()(images))


def _outcome(model: nn.Module, bare: Bare) -> Record:
    try:
        wrap_cyclic(model, 2, distill="sdpose")
    except StackError as error:
        _demand(type(model) is bare.type and list(model.state_dict()) == bare.keys, "a refused model was changed")
        message, proposed = str(error), _PROPOSED.search(str(error))
        staged = "Candidates" in message
        record: Record = {"status": "staged" if staged else "refused", "message": message.split("\n")[0]}
        if proposed is None or proposed[1] == _PLACEHOLDER:
            _demand(not staged, f"candidates are listed, but no call is proposed: {message}")
            return record
        try:
            wrap_cyclic(model, 2, distill="sdpose", blocks=proposed[1])
            return record | _check(model, bare, and_eval=staged)
        except StackError as second:
            raise CheckFailed(f'the proposed blocks="{proposed[1]}" is refused: {second}') from second
    return {"status": "wraps"} | _check(model, bare)


def _check(model: Any, bare: Bare, and_eval: bool = True) -> Record:
    """Run a wrapped model in training, at exits 1 and 2, and unwrap it; every check holds, or `CheckFailed`."""
    stack = model.cyclic.stack
    blocks = _blocks(model, stack.path)
    _demand(len(blocks) == stack.depth, f"{stack.path} holds {len(blocks)} blocks, and depth is {stack.depth}")
    _demand(list(model.state_dict()) == bare.keys, "state_dict keys changed")
    _demand(type(model).__name__ == bare.type.__name__ and isinstance(model, bare.type), "class changed")

    with _watched(blocks) as calls:
        out = model.train()(bare.images)
    _check_calls(calls, len(blocks), 2)
    _check_arguments(calls[: len(blocks)])
    _demand(isinstance(out, CycleOutput) and len(out) == 2, f"training returned {type(out).__name__}")
    for cycle, output in enumerate(out.outputs, 1):
        _demand(_shapes(output) == bare.train, f"output of cycle {cycle} is {_shapes(output)}, not {bare.train}")
    losses = [loss for loss in out.losses.values() if loss.shape == () and loss.requires_grad]
    _demand(losses and len(losses) == len(out.losses), f"losses are {_shapes(out.losses)}")

    results = _exits(model, bare, blocks) if and_eval else []
    unwrap_cyclic(model)
    _demand(type(model) is bare.type and list(model.state_dict()) == bare.keys, "unwrapping did not restore the model")
    if and_eval:
        with torch.no_grad():
            truth = _shapes(model.eval()(bare.images))
        for depth, result in enumerate(results, 1):
            _demand(result == truth, f"eval at exit {depth} is {result}, not {truth}")
    return {"path": stack.path, "depth": stack.depth, "block": stack.block, "attention": stack.attention}


def _exits(model: Any, bare: Bare, blocks: list[nn.Module]) -> list[Any]:
    """Shapes that eval returns at exits 1 and 2."""
    results = []
    model.eval()
    for depth in (1, 2):
        model.cyclic.exit = depth
        with _watched(blocks) as calls, torch.no_grad():
            results.append(_shapes(model(bare.images)))
        _check_calls(calls, len(blocks), depth)
    return results


def _blocks(model: nn.Module, path: str) -> list[nn.Module]:
    """The modules a path names, read here anew: ``encoder.blocks``, ``blocks[0:10]``, or one module."""
    name, _, span = path.rstrip("]").partition("[")
    module = model.get_submodule(name)
    if not isinstance(module, (nn.ModuleList, nn.Sequential)):
        return [module]
    start, stop = (span or ":").split(":")
    return list(module.children())[int(start or 0) : int(stop) if stop else None]


@contextmanager
def _watched(blocks: list[nn.Module]) -> Iterator[list[tuple[int, list[Any], list[Any]]]]:
    """Every call of a block, in order: which block, the leaves that went in, those that came out."""
    calls: list[tuple[int, list[Any], list[Any]]] = []
    handles = []
    for index, block in enumerate(blocks):

        def note(_: nn.Module, args: Any, kwargs: Any, output: Any, index: int = index) -> None:
            calls.append((index, tree_leaves((args, kwargs)), tree_leaves(output)))

        handles.append(block.register_forward_hook(note, with_kwargs=True))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _check_calls(calls: list[tuple[int, list[Any], list[Any]]], depth: int, cycles: int) -> None:
    order = [index for index, _, _ in calls]
    _demand(order == list(range(depth)) * cycles, f"blocks ran {Counter(order)}, in the order {order}")
    for (_, _, made), (_, taken, _) in itertools.pairwise(calls):
        chained = {id(x) for x in made if isinstance(x, Tensor)} & {id(x) for x in taken}
        _demand(chained, f"a block did not get the output of the one before, among {len(calls)} calls")


def _check_arguments(calls: list[tuple[int, list[Any], list[Any]]]) -> None:
    """What a block takes beside the outputs of earlier ones depends on none of them, or later cycles would miss it."""
    made = [x for _, _, outputs in calls for x in outputs if isinstance(x, Tensor)]
    handed_on = {id(x) for x in made}
    ends = {x.grad_fn for x in made if x.grad_fn is not None}
    for index, taken, _ in calls[1:]:
        for x in taken:
            if isinstance(x, Tensor) and id(x) not in handed_on:
                _demand(not _reaches(x.grad_fn, ends), f"block {index} takes what was computed from earlier blocks")


def _reaches(start: Any, ends: set[Any]) -> bool:
    """Whether the gradient of one node flows into any of ``ends``."""
    seen, waiting = set(), [start]
    while waiting:
        node = waiting.pop()
        if node in ends:
            return True
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    return False


def _shapes(tree: Any) -> Any:
    return tree_map(lambda x: tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__, tree)


def _demand(condition: object, otherwise: str) -> None:
    if not condition:
        raise CheckFailed(otherwise)


def _words(error: BaseException) -> str:
    text = str(error) if isinstance(error, CheckFailed) else f"{type(error).__name__}: {error}"
    return text if len(text) <= 500 else text[:500] + " ..."


def sweep(names: list[str], out: Path, jobs: int) -> dict[str, Record]:
    """Examine ``names`` in ``jobs`` processes, keep what ``out`` and ``out``.partial hold already, write ``out``."""
    partial = out.with_name(out.name + ".partial")
    done = read(partial)
    todo = [name for name in names if name not in done]
    with open(partial, "a", encoding="utf-8") as file:
        for count, record in enumerate(_examined(todo, jobs), 1):
            done[record["name"]] = record
            file.write(json.dumps(record) + "\n")
            file.flush()
            sys.stderr.write(f"\r{count}/{len(todo)} {record['name']:<60}")
    sys.stderr.write("\n")
    records = read(out) | done
    lines = [json.dumps(records[name]) for name in sorted(records)]
    versions = json.dumps({"timm": timm.__version__, "torch": torch.__version__})
    text = f'{{"versions": {versions},\n"names": [\n' + ",\n".join(lines) + "\n]}\n"  # a line a name, for diffs
    atomic_write(out, lambda file: file.write_text(text, encoding="utf-8"))
    partial.unlink()
    return records


def _examined(names: list[str], jobs: int) -> Iterator[Record]:
    if jobs == 1:
        yield from map(examine, names)
        return
    # Fresh processes now and then: classes composed while wrapping are kept for as long as a process lives. (A Pool,
    # since ProcessPoolExecutor may hang when it replaces a process: https://github.com/python/cpython/issues/115634.)
    with multiprocessing.get_context("spawn").Pool(jobs, _quiet, maxtasksperchild=100) as pool:
        yield from pool.imap_unordered(examine, names)


def _quiet() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def read(file: Path) -> dict[str, Record]:
    """Records by name from a finished file or from a partial one, whose last line may be cut."""
    if not file.exists():
        return {}
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".partial":
        return {record["name"]: record for record in json.loads(text)["names"]}
    lines = text.splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    if lines and not lines[-1].endswith("\n"):
        atomic_write(file, lambda new: new.write_text("".join(lines[:-1]), encoding="utf-8"))
    return {record["name"]: record for record in records}


def summary(records: Iterable[Record]) -> str:
    """Counts per outcome and class, and every name that went wrong, with its reason."""
    records = list(records)
    lines = []
    for status in STATUSES:
        classes = Counter(r.get("class", "?") for r in records if r["status"] == status)
        listed = ", ".join(f"{name} {count}" for name, count in classes.most_common())
        lines.append(f"{status:<11}{sum(classes.values()):>5}  {listed}")
    bare = [r for r in records if r["status"] == "wraps"]
    lines.append(f"of those that wrap, with attention {sum(r['attention'] for r in bare)} of {len(bare)}")
    lines += [f"{r['status']}: {r['name']}: {r['message']}" for r in records if r["status"] in ("wrong", "unrunnable")]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the sweep; 0 when nothing is wrong, 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", nargs="+", default=["*"], help="patterns of timm names (default: all)")
    parser.add_argument("--limit", type=int, help="only the first so many")
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="every N-th name, from the I-th on")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, default=RESULTS / "sweep_timm.json")
    options = parser.parse_args(argv)
    index, _, count = options.shard.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        parser.error(f"--shard {options.shard}: I/N with 1 <= I <= N is expected")
    known = timm.list_models()
    names = [name for name in known if any(fnmatch.fnmatch(name, pattern) for pattern in options.names)]
    names = names[int(index) - 1 :: int(count)][: options.limit]
    if not names:
        parser.error(f"--names {' '.join(options.names)}: timm has no such model")
    _quiet()
    records = sweep(names, options.out, options.jobs)
    asked = [records[name] for name in names]
    sys.stdout.write(summary(asked) + "\n")
    return 1 if any(record["status"] == "wrong" for record in asked) else 0


if __name__ == "__main__":
    sys.exit(main())
