"""The imports and the shape of the code, read from its text, for the rules of `tests/rules.py`."""

from __future__ import annotations

import ast
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Import:
    """One imported name: the full name of what is imported, and how it is written.

    ``inside``: in a function or under ``TYPE_CHECKING``, so not when the file itself is imported.
    """

    name: str
    line: int
    relative: bool
    inside: bool


@dataclass(frozen=True)
class Module:
    """One file of code."""

    path: Path
    name: str  # full and dotted; a package's is that of its folder
    source: str

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        return tuple(self._imports(self.tree, inside=False))

    def _imports(self, node: ast.AST, inside: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, child.lineno, False, inside)
            elif isinstance(child, ast.ImportFrom):
                base = self._base(child)
                for alias in child.names:
                    yield Import(f"{base}.{alias.name}", child.lineno, child.level > 0, inside)
            else:
                later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                yield from self._imports(child, inside or later or checking)

    def _base(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return str(node.module)
        package = self.name.split(".") if self.is_package else self.name.split(".")[:-1]
        return ".".join([*package[: len(package) + 1 - node.level], *filter(None, [node.module])])


class Code:
    """All files below some folders, and who imports whom.

    Args:
        folders: Folder -> dotted name of the package in it. A link to a folder is not followed.

    """

    def __init__(self, folders: Mapping[Path, str]) -> None:
        self.modules: dict[str, Module] = {}
        for folder, package in folders.items():
            for path in sorted(Path(below, file) for below, _, files in os.walk(folder) for file in files):
                if path.suffix != ".py":
                    continue
                parts = path.relative_to(folder).with_suffix("").parts
                name = ".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)])
                self.modules[name] = Module(path, name, path.read_text(encoding="utf-8"))

    def file_of(self, name: str) -> str | None:
        """The module a full name leads to: itself, or the one that holds it. None: not of this code."""
        while name not in self.modules:
            name, dot, _ = name.rpartition(".")
            if not dot:
                return None
        return name

    @cached_property
    def arrows(self) -> dict[str, dict[str, Import]]:
        """Module -> the modules it imports, each with one place where; not itself."""
        found: dict[str, dict[str, Import]] = {name: {} for name in self.modules}
        for name, module in self.modules.items():
            for each in module.imports:
                target = self.file_of(each.name)
                if target is not None and target != name:
                    found[name].setdefault(target, each)
        return found

    def loaded_by(self, names: Iterable[str]) -> set[str]:
        """All modules that run when some are imported: they, the packages above them, and what these import at once."""
        loaded: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in loaded or name not in self.modules:
                continue
            loaded.add(name)
            waiting.append(name.rpartition(".")[0])
            at_once = (each.name for each in self.modules[name].imports if not each.inside)
            waiting += filter(None, map(self.file_of, at_once))
        return loaded


def functions(module: Module) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    """Every function of a file, those inside others too, with its length in lines, the docstring apart."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            docstring = ast.get_docstring(node, clean=False) is not None
            lines = (first.end_lineno or 0) - first.lineno + 1 if docstring else 0
            yield node, (node.end_lineno or 0) - node.lineno + 1 - lines


def public_definitions(module: Module) -> set[str]:
    """Names of the functions and classes at the top of a file, without those that begin with an underscore."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return {node.name for node in module.tree.body if isinstance(node, kinds) and not node.name.startswith("_")}


def imports_by_name(module: Module) -> Iterator[int]:
    """The lines that speak of ``importlib.import_module`` or ``__import__``: what they import is in no import."""
    for node in ast.walk(module.tree):
        said = {"Name": "id", "Attribute": "attr", "alias": "name"}.get(type(node).__name__, "")
        if getattr(node, said, None) in {"import_module", "__import__"}:
            yield node.lineno  # type: ignore[attr-defined]


def circle(arrows: Mapping[str, Iterable[str]]) -> list[str] | None:
    """One way round, the first name again at the end; None where there is none."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str] | None:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return None
        for target in arrows.get(name, ()):
            found = visit(target, [*way, name])
            if found:
                return found
        done.add(name)
        return None

    return next(filter(None, (visit(name, []) for name in arrows)), None)


def longest_chain(arrows: Mapping[str, Iterable[str]], counted: Container[str]) -> list[str]:
    """The longest way along the arrows, from top to bottom, without the names that do not count.

    Raises:
        ValueError: There is a circle, so no end to a way.

    """
    found = circle(arrows)
    if found:
        raise ValueError(f"a circle has no longest chain: {' -> '.join(found)}")
    longest: dict[str, list[str]] = {}

    def below(name: str) -> list[str]:
        if name not in longest:
            rest = max(map(below, arrows.get(name, ())), key=len, default=[])
            longest[name] = [name, *rest] if name in counted else rest
        return longest[name]

    return max(map(below, arrows), key=len, default=[])
