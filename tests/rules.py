"""What of the code is against the rules of `tests/arrows.py`."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.architecture import Code, Module, functions, imports_by_name, longest_chain, public_definitions
from tests.arrows import (
    BETWEEN,
    BY_NAME,
    HAD_BY_EACH,
    INTEGRATION_ARROWS,
    INTEGRATIONS,
    LIBRARY,
    LIBRARY_ARROWS,
    MODELS_MAY_USE_RECIPES,
    MOST_FILES,
    MOST_LINES,
    MOST_LINES_OF_A_FUNCTION,
    RECIPES_ARROWS,
    Arrows,
)


def read_code(root: Path) -> Code:
    """`cycledistill/integrations` is a link to `integrations/`: read once, under the name it is imported by."""
    return Code({root / "cycledistill": LIBRARY, root / "integrations": INTEGRATIONS})


def parts_of(name: str) -> tuple[str, list[str]]:
    """The side a module is on, and its names below that side."""
    side = INTEGRATIONS if f"{name}.".startswith(f"{INTEGRATIONS}.") else LIBRARY
    return side, name.removeprefix(side).strip(".").split(".")


def package_of(name: str) -> str:
    """The package of the library (`cycle`), or the integration (`coco`), or the loose file (`loss`), a module is in."""
    return parts_of(name)[1][0] or "__init__"


def forbidden_arrows(code: Code) -> Iterator[str]:
    for name, targets in code.arrows.items():
        for target, where in targets.items():
            if not allowed(name, target):
                yield f"{name} (line {where.line}) -> {target}"


def allowed(name: str, target: str) -> bool:
    """Whether one module may import another."""
    (side, source), (other, goal) = parts_of(name), parts_of(target)
    room = source[1] if len(source) > 1 else "__init__"
    goal_room = goal[1] if len(goal) > 1 else "__init__"
    if side == LIBRARY:
        if other == INTEGRATIONS:
            return False
        if source[0] == goal[0]:
            return source[0] != "recipes" or may(RECIPES_ARROWS, room, goal_room)
        return may(LIBRARY_ARROWS, source[0] or "__init__", goal[0] or "__init__")
    if other == LIBRARY:
        return room != "models" or goal[0] != "recipes" or goal_room in MODELS_MAY_USE_RECIPES
    if source[0] != goal[0]:
        taken = BETWEEN.get(source[0], set()) | BETWEEN.get(f"{source[0]}.{room}", set())
        return any(f"{target}.".startswith(f"{INTEGRATIONS}.{each}.") for each in taken)
    return source[0] not in INTEGRATION_ARROWS or may(INTEGRATION_ARROWS[source[0]], room, goal_room)


def may(arrows: Arrows, source: str, target: str) -> bool:
    """Whether a table has an arrow. A name that is not in the table may import nothing and be imported by nobody."""
    return source in arrows and (source == target or target in arrows[source])


def imports_of_elsewhere(code: Code) -> Iterator[str]:
    """Tests, examples and benchmarks use the code, never the reverse; `integrations` is not a name users can import."""
    for name, module in code.modules.items():
        for each in module.imports:
            if each.name.partition(".")[0] in {"tests", "examples", "benchmarks", "integrations"}:
                yield f"{name} (line {each.line}) -> {each.name}"


def imports_written_wrongly(code: Code) -> Iterator[str]:
    """Inside an integration imports are relative, so that it can be copied as a whole; all others are absolute."""
    for name, module in code.modules.items():
        side, (first, *_) = parts_of(name)
        own = f"{INTEGRATIONS}.{first}." if side == INTEGRATIONS and first else None
        for each in module.imports:
            if each.relative != (own is not None and each.name.startswith(own)):
                yield f"{name} (line {each.line}): {each.name} is {'relative' if each.relative else 'absolute'}"


def imports_of_made_up_names(code: Code) -> Iterator[str]:
    for name, module in code.modules.items():
        if name not in BY_NAME:
            yield from (f"{name} (line {line}) imports by name" for line in imports_by_name(module))


def third_party(code: Code) -> dict[str, set[str]]:
    """File of the library -> packages from outside that it imports anywhere, without torch."""
    found = {}
    for name, module in code.modules.items():
        if parts_of(name)[0] == LIBRARY:
            outside = from_outside(module)
            if outside:
                file = "/".join(parts_of(name)[1]) + ("/__init__" if module.is_package else "")
                found[f"{file.lstrip('/')}.py"] = outside
    return found


def third_party_of_integrations(code: Code) -> dict[str, set[str]]:
    """Integration -> packages from outside that its files import anywhere, without torch."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, module in code.modules.items():
        beside = {path.stem for path in module.path.parent.glob("*.py")}  # the check of mmpose runs as a script too
        if parts_of(name)[0] == INTEGRATIONS and from_outside(module) - beside:
            found[package_of(name)] |= from_outside(module) - beside
    return found


def from_outside(module: Module) -> set[str]:
    return {each.name.partition(".")[0] for each in module.imports} - {LIBRARY, "torch", *sys.stdlib_module_names}


def floors(code: Code) -> list[str]:
    """The longest chain of packages of the library from top to bottom; loose files carry arrows but are no floor."""
    arrows: Arrows = defaultdict(set)
    for name, targets in code.arrows.items():
        for target in targets:
            if parts_of(name)[0] == parts_of(target)[0] == LIBRARY and package_of(name) != package_of(target):
                arrows[package_of(name)].add(package_of(target))
    packages = {package_of(name) for name, module in code.modules.items() if module.is_package} - {"__init__"}
    return longest_chain(arrows, counted=packages)


def crowded_folders(code: Code) -> Iterator[str]:
    """`mmpose` is one room on purpose: what it is made of goes away with mmpose's own packages."""
    for folder, files in Counter(module.path.parent for module in code.modules.values()).items():
        if files > MOST_FILES and folder.name != "mmpose":
            yield f"{folder}: {files} files"


def long_files(code: Code) -> Iterator[str]:
    for module in code.modules.values():
        lines = len(module.source.splitlines())
        if lines > MOST_LINES:
            yield f"{module.path}: {lines} lines"


def long_functions(code: Code) -> Iterator[str]:
    for name, module in code.modules.items():
        for function, lines in functions(module):
            if lines > MOST_LINES_OF_A_FUNCTION:
                yield f"{name}.{function.name}: {lines} lines"


def names_used_twice(code: Code) -> Iterator[str]:
    """Two public functions or classes of one name in a package of the library, or in an integration."""
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for name, module in code.modules.items():
        for each in public_definitions(module) - {"main"} - HAD_BY_EACH.get(name.rpartition(".")[0], set()):
            found[parts_of(name)[0], package_of(name), each].append(name)
    for (_, _, each), names in found.items():
        if len(names) > 1:
            yield f"{each} in {' and '.join(names)}"


RULES: list[Callable[[Code], Iterable[str]]] = [
    forbidden_arrows,
    imports_of_elsewhere,
    imports_written_wrongly,
    imports_of_made_up_names,
    crowded_folders,
    long_files,
    long_functions,
    names_used_twice,
]
