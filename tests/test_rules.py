"""Each rule of the house finds code that breaks it, and lets pass what comes near to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

from tests.architecture import Code, circle
from tests.arrows import INTEGRATIONS, MOST_FILES, MOST_LINES, MOST_LINES_OF_A_FUNCTION
from tests.rules import (
    crowded_folders,
    floors,
    forbidden_arrows,
    imports_of_elsewhere,
    imports_of_made_up_names,
    imports_written_wrongly,
    long_files,
    long_functions,
    names_used_twice,
    read_code,
    third_party,
    third_party_of_integrations,
)

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
