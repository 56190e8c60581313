"""The rules that keep the house in order: who may import whom, and how large files, folders and functions may be.

The tables below are the rules: a change that needs another arrow, or another package from outside, changes them too.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.architecture import (
    ROOT,
    Code,
    Module,
    circle,
    functions,
    imports_by_name,
    longest_chain,
    public_definitions,
)

LIBRARY, INTEGRATIONS = "cycledistill", "cycledistill.integrations"
Arrows = dict[str, set[str]]


def layers(*floors: set[str]) -> Arrows:
    """Each name may import the names of all floors below its own, and not its siblings."""
    return {name: set().union(*floors[:number]) for number, floor in enumerate(floors) for name in floor}


def more(arrows: Arrows, extra: Arrows) -> Arrows:
    return {name: targets | extra.get(name, set()) for name, targets in arrows.items()}


# The library. `__init__` is the face: names that are handed on, and nothing else.
LIBRARY_ARROWS = more(
    layers(
        {"announced", "terminal", "plugin", "errors", "files", "lazy", "versions"}
        | {"output", "presets", "distill", "inert", "loss"},
        {"stack"},
        {"cycle", "prune", "inputs"},
        {"hourglass", "cost", "metadata", "exporter"},
        {"adaptive", "insight", "verification", "saved"},
        {"__init__", "__main__", "commands"},
        {"recipes"},
    ),
    {
        "announced": {"lazy", "versions"},
        "plugin": {"errors", "files", "versions"},
        "output": {"plugin"},  # private names of torch stand there
        "loss": {"output", "inert", "plugin"},
        "distill": {"output", "plugin", "presets"},  # without torch, for the help of commands
        "exporter": {"metadata"},
        "commands": {"__init__"},
        "__main__": {"__init__", "commands"},
    },
)
LIBRARY_ARROWS["hourglass"] -= {"prune"}

RECIPES_ARROWS = layers(
    {"__init__", "errors", "progress"}, {"reading"}, {"config", "weights", "prediction"}, {"run", "hub"}, {"commands"}
)

# The integrations. At the root of each stand the front doors, behind them the rooms.
_ROOMS = {"errors", "data", "models", "evaluation", "weights", "trained"}
_DOORS = {"predict", "lift", "convert", "decoded", "deploy", "draw", "detector"}
_PREDICTION = _ROOMS | {"predict", "detector", "draw", "recipe", "training"}  # by the run's own settings
_INTEGRATION = more(
    layers(
        {"errors"},
        {"data", "models"},
        {"losses", "evaluation", "weights", "recipe", "task"},
        {"training"},
        {"trained"},
        {"train", "insight", "exportable"},
    )
    | dict.fromkeys(_DOORS, _ROOMS)
    | {"commands": set()},  # their arguments, which help loads
    {
        "weights": {"losses"},  # a flow's are in the file of its model
        "lift": {"draw"},
        "insight": {"lift"},  # the report is shown what is lifted
    },
)
INTEGRATION_ARROWS = {
    "coco": _INTEGRATION | {"__init__": {"data", "models", "losses", "weights"}, "prediction": _PREDICTION},
    "human36m": more(
        _INTEGRATION,
        {
            "exportable": {"lifting"},
            "lift": {"lifting", "written"},
        },
    )
    | {
        "__init__": {"models", "weights"},
        "lifting": _ROOMS | {"recipe", "training", "written"},  # by the run's own settings
        "multiview": {"errors", "data", "models"},
        "triangulate": {"errors", "data", "multiview", "written"},
        "written": {"errors", "data"},
    },
    "imagenet": more(_INTEGRATION, {"trained": {"published"}, "predict": {"prediction"}})
    | {
        "__init__": {"recipe", "task"},
        "published": {"recipe", "training"},
        "prediction": {"commands", "data", "evaluation", "recipe", "trained"},  # by the run's own settings
    },
    "multiview": more(_INTEGRATION, {"predict": {"prediction", "recipe", "training"}})  # by the run's own settings
    | {"__init__": {"prediction"}, "prediction": {"data", "evaluation"}},
}
# What may be used of another integration. `mmpose` and `transformers` are small: inside, only circles are forbidden.
BETWEEN = {
    "human36m.multiview": {"coco.models", "coco.weights.key_map"},
    "mmpose": {"coco.models"},
    # Pictures of people from the one, cameras and the network from the other.
    "multiview": {"human36m.data", "human36m.errors", "human36m.multiview"},
    "multiview.data": {"coco.data.images"},
    "multiview.commands": {"human36m.commands"},
    "multiview.evaluation": {"coco.evaluation.decode"},
    "multiview.training": {"coco.losses"},
    "multiview.prediction": {
        "coco.data.detections", "coco.prediction.boxes", "coco.prediction.sources",
    },
    "multiview.predict": {
        "coco.detector", "coco.prediction.box_files", "coco.prediction.boxes", "human36m.written",
    },
}  # fmt: skip
_PICTURES = {"coco.data", "coco.prediction"}
_DETECTING = _PICTURES | {"coco.detector"}
_GEOMETRY = {
    "human36m.multiview", "human36m.data", "human36m.errors", "coco.models", "coco.weights", "coco.losses",
}  # fmt: skip
MAY_LOAD = {
    "coco.weights.key_map": {"coco.weights", "coco.models", "coco.losses"},
    "coco.data.images": {"coco.data"},
    "coco.data.detections": {"coco.data"},
    "coco.detector": _DETECTING,
    "coco.evaluation.decode": {"coco.evaluation", "coco.data"},
    "coco.losses": {"coco.losses", "coco.models"},
    "coco.prediction.box_files": _DETECTING,
    "coco.prediction.boxes": _DETECTING,
    "coco.prediction.sources": _PICTURES,
    "human36m.data": {"human36m.data", "human36m.errors"},
    "human36m.multiview": _GEOMETRY,
    "human36m.written": {"human36m.written", "human36m.data", "human36m.errors"},
}
# Models are what others build on, so they stand on little: torch, the library, and how models are published.
MODELS_MAY_USE_RECIPES = {"hub", "errors", "reading"}

# What a file of the library imports from outside, beside torch. Nothing else may be needed without a line here.
THIRD_PARTY = {
    "commands/calibration.py": {"PIL", "numpy"},
    "exporter/onnx_files.py": {"onnx", "onnxruntime"},
    "exporter/quantize.py": {"onnxruntime"},
    "exporter/formats.py": {"onnx_ir", "onnxruntime", "onnxscript", "safetensors"},
    "insight/pages.py": {"jinja2"},
    "insight/pictures.py": {"matplotlib"},
    "insight/plots.py": {"matplotlib"},
    "metadata/read.py": {"safetensors"},
    "plugin/saved.py": {"safetensors"},
    "saved/rewrap.py": {"safetensors"},
    "recipes/reading/pixels.py": {"PIL", "numpy"},
    "recipes/config/printed.py": {"yaml"},
    "recipes/reading/texts.py": {"yaml"},
    "recipes/reading/videos.py": {"cv2"},
    "recipes/hub/download.py": {"huggingface_hub"},
    "recipes/prediction/frames.py": {"numpy"},
    "recipes/prediction/sources.py": {"numpy"},
    "recipes/prediction/videos.py": {"cv2"},
    "recipes/hub/files.py": {"huggingface_hub"},
    "recipes/hub/model.py": {"huggingface_hub"},
    "recipes/run/accelerator.py": {"accelerate"},
    "recipes/run/batches.py": {"numpy"},
    "recipes/run/graph/baked.py": {"numpy"},
    "recipes/progress.py": {"tqdm"},
    "recipes/run/seeding.py": {"numpy"},
    "recipes/run/session.py": {"timm"},
    "recipes/weights/files.py": {"safetensors"},
}

# The same of the integrations, each as a whole.
THIRD_PARTY_OF_INTEGRATIONS = {
    "coco": {"PIL", "cv2", "faster_coco_eval", "numpy", "pycocotools", "torchvision"},
    "human36m": {"PIL", "cv2", "h5py", "matplotlib", "numpy", "scipy"},
    "imagenet": {"PIL", "numpy", "pyarrow", "timm", "torchcodec", "torchvision"},
    "mmpose": {"mmengine", "mmpose", "pycocotools"},
    "multiview": {"cv2", "numpy"},
}

# Who imports by a name that is made up as it runs, which no rule here can follow, and what.
BY_NAME = {
    "cycledistill.lazy",  # what a face hands on; type checkers, and so these rules, see the same imports there
    "cycledistill.recipes.run.command",  # the recipe, the training and the trained models of the command's integration
    "cycledistill.commands.verb",  # the work of a command
    "cycledistill.commands.named.models",  # the library that builds the model a command was asked for
    f"{INTEGRATIONS}.mmpose.loading",  # mmpose's own modules, and those of this integration that register themselves
    f"{INTEGRATIONS}.mmpose.shims",  # packages that may not import here
}

# What every module of a kind has, by these names: what is called when it is run, or by the command's frame.
HAD_BY_EACH = {"cycledistill.commands": {"add_arguments", "run"}}

MOST_FLOORS = 6
MOST_FILES = 13
MOST_LINES = 350
MOST_LINES_OF_A_FUNCTION = 60


@pytest.fixture(scope="session")
def code() -> Code:
    return read_code(ROOT)


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


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rules_of_the_house(code: Code, rule: Callable[[Code], Iterable[str]]) -> None:
    broken = list(rule(code))
    assert not broken, "\n".join(broken)


def test_no_circle_between_files(code: Code) -> None:
    assert circle(code.arrows) is None


def test_few_floors(code: Code) -> None:
    assert len(floors(code)) <= MOST_FLOORS, " -> ".join(floors(code))


def test_what_the_library_needs_from_outside(code: Code) -> None:
    assert third_party(code) == THIRD_PARTY


def test_what_the_integrations_need_from_outside(code: Code) -> None:
    assert third_party_of_integrations(code) == THIRD_PARTY_OF_INTEGRATIONS


def test_the_library_is_imported_with_torch_alone(code: Code) -> None:
    """Everything else is imported where it is used, so that it need not be there. What commands share needs more."""
    for name, module in code.modules.items():
        if parts_of(name)[0] == LIBRARY and package_of(name) != "recipes":
            now = {each.name.partition(".")[0] for each in module.imports if not each.inside}
            assert now <= {LIBRARY, "torch", *sys.stdlib_module_names}, name


def test_the_tables_name_what_is_there(code: Code) -> None:
    def names(side: str, below: str = "") -> set[str]:
        found = [parts for other, parts in map(parts_of, code.modules) if other == side]
        if not below:
            return {parts[0] or "__init__" for parts in found}
        return {parts[1] if len(parts) > 1 else "__init__" for parts in found if parts[0] == below}

    assert set(LIBRARY_ARROWS) == names(LIBRARY)
    assert set(RECIPES_ARROWS) == names(LIBRARY, "recipes")
    rooms = {name: names(INTEGRATIONS, name) for name in INTEGRATION_ARROWS}
    for name, arrows in INTEGRATION_ARROWS.items():
        assert rooms[name] <= set(arrows), name
    assert set(_INTEGRATION) <= set().union(*rooms.values())
    assert {name for name, module in code.modules.items() if any(imports_by_name(module))} == BY_NAME


@pytest.mark.parametrize("room", sorted(set().union(*BETWEEN.values())))
def test_who_takes_a_room_of_another_integration_does_not_get_the_house(code: Code, room: str) -> None:
    """Importing `coco.models` runs `coco/__init__.py` first: neither may load training, data sets or recipes."""
    start = [name for name in code.modules if f"{name}.".startswith(f"{INTEGRATIONS}.{room}.")]
    loaded = [parts for side, parts in map(parts_of, code.loaded_by(start)) if side == INTEGRATIONS]
    assert {".".join(parts[:2]) for parts in loaded if len(parts) > 1} <= MAY_LOAD.get(room, {room})


CORE, COCO = "cycledistill", "integrations/coco"
LONG = "def f():\n" + "    x = 1\n"


@pytest.mark.parametrize(
    ("rule", "files", "complaint"),
    [
        (forbidden_arrows, {f"{CORE}/cycle/a.py": "import cycledistill.hourglass"}, "cycle.a .* -> .*hourglass"),
        (forbidden_arrows, {f"{CORE}/hourglass/a.py": "from cycledistill.prune import b"}, "hourglass.a .* -> .*prune"),
        (forbidden_arrows, {f"{CORE}/cost/a.py": "from cycledistill import recipes"}, "cost.a .* -> .*recipes"),
        (forbidden_arrows, {f"{CORE}/cost/a.py": "from cycledistill import unknown"}, "cost.a .* -> cycledistill$"),
        (forbidden_arrows, {f"{CORE}/new/a.py": "import cycledistill.errors"}, "new.a .* -> cycledistill.errors"),
        (forbidden_arrows, {f"{CORE}/loss.py": "def f():\n    import cycledistill.cost"}, r"loss \(line 2\) -> .*cost"),
        (forbidden_arrows, {f"{CORE}/recipes/run/a.py": "import cycledistill.recipes.hub"}, "run.a .* -> .*hub"),
        (forbidden_arrows, {f"{CORE}/cost/a.py": "import cycledistill.integrations.coco"}, "cost.a .* -> .*coco"),
        (forbidden_arrows, {f"{COCO}/data/a.py": "from ..recipe import Recipe"}, "data.a .* -> .*coco.recipe"),
        (forbidden_arrows, {f"{COCO}/models/a.py": "import cycledistill.recipes.run"}, "models.a .* -> .*recipes.run"),
        (forbidden_arrows, {f"{COCO}/data/a.py": f"import {INTEGRATIONS}.human36m.multiview"}, "-> .*human36m"),
        (forbidden_arrows, {"integrations/mmpose/a.py": "import cycledistill.integrations.coco.data"}, "-> .*data"),
        (imports_of_elsewhere, {f"{CORE}/cost/a.py": "from tests.toys import Toy"}, "cost.a .* -> tests.toys.Toy"),
        (imports_of_elsewhere, {f"{COCO}/a.py": "import integrations.coco"}, "coco.a .* -> integrations.coco"),
        (
            imports_written_wrongly,
            {f"{COCO}/a.py": "import cycledistill.integrations.coco.data"},
            "coco.a .*: .*data is absolute",
        ),
        (imports_written_wrongly, {f"{COCO}/a.py": "from ..mmpose import head"}, "coco.a .*: .*head is relative"),
        (imports_written_wrongly, {f"{CORE}/cost/a.py": "from . import macs"}, "cost.a .*: .*macs is relative"),
        (crowded_folders, {f"{COCO}/data/a{number}.py": "" for number in range(MOST_FILES)}, "data: 14 files"),
        (long_files, {f"{CORE}/cost/a.py": "\n" * (MOST_LINES + 1)}, "a.py: 351 lines"),
        (long_functions, {f"{CORE}/cost/a.py": LONG + "    y = 1\n" * (MOST_LINES_OF_A_FUNCTION - 1)}, "a.f: 61 lines"),
        (names_used_twice, {f"{COCO}/data/a.py": "def f(): ...", f"{COCO}/b.py": "def f(): ..."}, "^f in .*b and .*a"),
        (names_used_twice, {f"{CORE}/cost/a.py": "class C: ...", f"{CORE}/cost/b.py": "class C: ..."}, "^C in .*a and"),
        (names_used_twice, {f"{CORE}/cost/a.py": "class C: ...", f"{CORE}/cost/b.py": "def C(): ..."}, "^C in .*a and"),
        (
            imports_of_made_up_names,
            {f"{CORE}/cost/a.py": "import importlib\ndef f():\n    importlib.import_module('cycledistill.' + 'x')"},
            r"cost.a \(line 3\)",
        ),
        (imports_of_made_up_names, {f"{COCO}/a.py": "from importlib import import_module as i"}, r"coco.a \(line 1\)"),
        (imports_of_made_up_names, {f"{COCO}/a.py": "__import__('cycledistill.integrations.mmpose')"}, "coco.a"),
    ],
)  # fmt: skip
def test_a_rule_can_be_broken(
    tmp_path: Path, rule: Callable[[Code], Iterable[str]], files: Mapping[str, str], complaint: str
) -> None:
    assert list(rule(made_up(tmp_path / "sound", {}))) == []
    found = list(rule(made_up(tmp_path / "broken", files)))
    assert len(found) == 1 and re.search(complaint, found[0]), found


# Every kind of allowed arrow, and what comes near to being too much.
SOUND = {
    f"{CORE}/__init__.py": "from cycledistill.cost import macs\nfrom cycledistill.errors import StackError",
    f"{CORE}/errors.py": "class StackError(ValueError): ...\ndef main(): ...\ndef plain(): ...",
    f"{CORE}/output.py": "",
    f"{CORE}/loss.py": "from cycledistill.output import CycleOutput",
    f"{CORE}/stack/__init__.py": "from cycledistill.errors import StackError\nimport torch",
    f"{CORE}/prune/__init__.py": "from cycledistill.stack import find\ndef plain(): ...\nclass Plain: ...",
    f"{CORE}/prune/own.py": "class _Own: ...",
    f"{CORE}/prune/other.py": "class _Own: ...",
    f"{CORE}/cycle/__init__.py": "from cycledistill.stack import find\ndef main(): ...\nclass Plain: ...",
    f"{CORE}/cost/__init__.py": LONG + "    x = 1\n" * (MOST_LINES_OF_A_FUNCTION - 2),
    f"{CORE}/cost/macs.py": "def g():\n    import cycledistill.cycle",
    f"{CORE}/hourglass/__init__.py": "from cycledistill import cycle",
    f"{CORE}/recipes/__init__.py": "",
    f"{CORE}/recipes/run/__init__.py": "from cycledistill import cost, unknown\nimport cycledistill.recipes.errors",
    f"{CORE}/recipes/hub/__init__.py": "import accelerate",
    f"{CORE}/recipes/errors.py": "\n" * MOST_LINES,
    "integrations/__init__.py": "",
    "integrations/coco/__init__.py": "from .models import registry",
    "integrations/coco/recipe.py": "def plain(): ...",
    "integrations/coco/train.py": "from .trained import load_trained\ndef main(): ...",
    "integrations/coco/trained.py": "from . import models, recipe",
    "integrations/coco/models/__init__.py": "import cycledistill.recipes.hub\ndef main(): ...",
    "integrations/coco/data/__init__.py": "",
    "integrations/human36m/multiview/__init__.py": "from cycledistill.integrations.coco.models import heads",
    "integrations/mmpose/__init__.py": "from . import head\nimport cycledistill.integrations.coco.models",
    "integrations/mmpose/head.py": "",
    **{f"integrations/mmpose/a{number}.py": "" for number in range(MOST_FILES)},
}


def made_up(folder: Path, files: Mapping[str, str]) -> Code:
    """Code that keeps all rules, with some files added."""
    for name, text in {**SOUND, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "cycledistill" / "integrations").symlink_to(folder / "integrations")
    return read_code(folder)


def test_a_circle_is_found(tmp_path: Path) -> None:
    assert circle(made_up(tmp_path / "sound", {}).arrows) is None
    files = {
        f"{COCO}/data/a.py": "from . import b",
        f"{COCO}/data/b.py": "def f():\n    from .c import x",
        f"{COCO}/data/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import A",
    }
    found = circle(made_up(tmp_path / "round", files).arrows)
    assert found is not None
    assert {name.rpartition(".")[2] for name in found} == {"a", "b", "c"} and found[0] == found[-1]


def test_floors_are_counted(tmp_path: Path) -> None:
    assert floors(made_up(tmp_path / "few", {})) == ["recipes", "cost", "cycle", "stack"]
    files = {
        f"{CORE}/stack/a.py": "import cycledistill.output",
        f"{CORE}/output.py": "import cycledistill.plugin",
        f"{CORE}/plugin/__init__.py": "",
    }
    code = made_up(tmp_path / "more", files)
    assert floors(code) == ["recipes", "cost", "cycle", "stack", "plugin"], "a loose file hands its arrows on"


INTEGRATED = {
    f"{COCO}/a.py": "import cv2, torch, cycledistill\nfrom .data import a",
    f"{COCO}/data/a.py": "def f():\n    import requests",
    "integrations/mmpose/head.py": "import mmpose.models, a0",
}


def test_what_comes_from_outside_is_found(tmp_path: Path) -> None:
    text = "def f():\n    import numpy.linalg\nfrom yaml import safe_load\nimport torch.nn, os, cycledistill.errors"
    code = made_up(tmp_path, {f"{CORE}/cost/a.py": text, **INTEGRATED})
    assert third_party(code) == {"cost/a.py": {"numpy", "yaml"}, "recipes/hub/__init__.py": {"accelerate"}}
    assert third_party_of_integrations(code) == {"coco": {"cv2", "requests"}, "mmpose": {"mmpose"}}


def test_what_an_import_loads_is_found(tmp_path: Path) -> None:
    files = {
        f"{COCO}/__init__.py": "from .data import a",
        f"{COCO}/models/a.py": "def f():\n    from .. import recipe",
    }
    loaded = made_up(tmp_path, files).loaded_by([f"{INTEGRATIONS}.coco.models.a"])
    assert {name for name in loaded if name.startswith(f"{INTEGRATIONS}.")} == {
        f"{INTEGRATIONS}.coco{room}" for room in ("", ".data", ".models", ".models.a")
    }
