"""Names that are private to PyTorch stand in one file of the library, each beside the public name for it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from torch import Tensor, nn

from cycledistill.plugin import torch_private

LIBRARY = Path(__file__).resolve().parents[2] / "cycledistill"
HOME = LIBRARY / "plugin" / "torch_private.py"
SOURCES = sorted(path for path in LIBRARY.rglob("*.py") if "integrations" not in path.parts and path != HOME)


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


# What tensors and modules have, replicas of DataParallel, and compiled modules.
ATTRIBUTES = {name for each in (Tensor, nn.Module()) for name in dir(each) if private(name)} | {
    "_is_replica",
    "_orig_mod",
}


def private_torch_names(source: str) -> Iterator[str]:
    """Imports from, and names below, a private part of torch; private attributes of tensors and modules."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if _is_private_torch(name.name))
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (
                f"{node.module}.{name.name}" for name in node.names if _is_private_torch(f"{node.module}.{name.name}")
            )
        elif isinstance(node, ast.Attribute) and (node.attr in ATTRIBUTES or _is_private_torch(ast.unparse(node))):
            yield ast.unparse(node)
        elif isinstance(node, ast.Constant) and (node.value in ATTRIBUTES or node.value == "OptimizedModule"):
            yield str(node.value)


def _is_private_torch(name: str) -> bool:
    first, *rest = name.split(".")
    return first in ("torch", "nn", "F") and any(private(part) for part in rest)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(LIBRARY).as_posix())
def test_only_one_file_knows_private_names_of_torch(path: Path) -> None:
    found = list(private_torch_names(path.read_text(encoding="utf-8")))
    assert not found, f"{path.relative_to(LIBRARY)} uses {found}: hand them on from plugin/{HOME.name}"


@pytest.mark.parametrize(
    "source",
    [
        "from torch.utils import _pytree as pytree",
        "from torch.utils._pytree import tree_map",
        "import torch._dynamo",
        "from torch.nn.modules.batchnorm import _BatchNorm",
        "torch._C._is_tracing()",
        "x._version",
        "block._forward_hooks.values()",
        "getattr(module, '_is_replica', False)",
        "type(module).__name__ == 'OptimizedModule'",
    ],
)
def test_the_rule_sees_a_private_name(source: str) -> None:
    assert list(private_torch_names(source))


def test_every_private_name_says_what_would_replace_it() -> None:
    """Each import and each function of the file stands with a line that names the public way, or says there is none."""
    text = HOME.read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and _is_private_torch(f"{node.module}.{node.names[0].name}"):
            above = lines[: node.lineno - 1]
            comment = []
            while above and above[-1].startswith(("#", f"from {node.module} import")):  # one comment for all of one
                comment.append(above.pop())
            assert any(line.startswith("# Public:") for line in comment), f"line {node.lineno}: {node.module}"
        elif isinstance(node, ast.FunctionDef):
            assert "Public:" in (ast.get_docstring(node) or ""), node.name


def test_leaves_of_a_class_registered_without_names_are_numbered() -> None:
    class Pair:
        def __init__(self, one: int, two: int) -> None:
            self.parts = [one, two]

    def rebuild(parts: Iterable[int], _: None) -> Pair:
        return Pair(*parts)

    torch_private.register_pytree_node(Pair, lambda pair: (pair.parts, None), rebuild)
    pairs = torch_private.tree_leaves_with_path({"a": Pair(3, 4)})
    assert [(torch_private.keystr(path), leaf) for path, leaf in pairs] == [("[0]", 3), ("[1]", 4)]
    pairs = torch_private.tree_leaves_with_path({"a": [3]})
    assert [(torch_private.keystr(path), leaf) for path, leaf in pairs] == [("['a'][0]", 3)]
