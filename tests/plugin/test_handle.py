"""Kinds of plug-ins stand in one table, and what goes by it takes in a fourth; the rest is named in the checklist."""

from __future__ import annotations

import ast
import re

import pytest

pytest.importorskip("timm")

import cycledistill
from cycledistill.cycle.wrap import PLUGIN as CYCLES
from cycledistill.hourglass.wrap import PLUGIN as HOURGLASS
from cycledistill.plugin.handle import KINDS, Handle, Kind, handle_of
from cycledistill.plugin.install import Plugin
from cycledistill.prune.wrap import PLUGIN as PRUNING
from cycledistill.recipes.hub.config import describe
from cycledistill.recipes.run.graph import baked
from cycledistill.stack.choose import choose_stack
from cycledistill.stack.taken import is_taken
from tests.architecture import ROOT
from tests.plugin.test_impossible_models import VERBS
from tests.plugin.test_install import SWAPPED
from tests.prune.oracle import vit

LIBRARY = ROOT / "cycledistill"
CHECKLIST = (ROOT / "CONTRIBUTING.md").read_text().split("A fourth plug-in is")[1].split("\n\n`tests/")[0]


@pytest.mark.parametrize("plugin", [CYCLES, PRUNING, HOURGLASS], ids=lambda plugin: plugin.kind)
def test_a_plugin_is_what_the_table_says(plugin: Plugin) -> None:
    kind = KINDS[plugin.kind]
    assert plugin.key == kind.state
    assert {each.swap_order for each in plugin.classes} == {kind.swap_order}
    table = (LIBRARY / "cycle" / "README.md").read_text()
    assert len(re.findall(rf"^\| {kind.swap_order} \|", table, re.MULTILINE)) == 1


def test_every_kind_is_where_the_checklist_puts_it() -> None:
    assert {verb.kind for verb in VERBS} == set(SWAPPED) == set(KINDS) >= set(baked._SETTINGS)
    assert all(hasattr(cycledistill, f"{verb}_{kind}") for verb in ("wrap", "unwrap") for kind in KINDS)
    kinds = KINDS.values()
    assert len({each.state for each in kinds}) == len({each.swap_order for each in kinds}) == len(KINDS)


def test_files_of_the_library_that_name_several_kinds_are_in_the_checklist() -> None:
    for path in LIBRARY.rglob("*.py"):
        name = path.relative_to(LIBRARY).as_posix()
        if name.startswith("integrations/") or name == "plugin/handle.py":
            continue
        constants = {each.value for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.Constant)}
        if len(KINDS.keys() & constants) > 1:
            assert f"`{name}`" in CHECKLIST, f"{name} names several kinds of plug-ins: use KINDS, or name it there"


def test_a_handle_of_a_kind_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(TypeError, match="Merging.kind='merging': one of 'cyclic', .*plugin/handle.py"):
        type("Merging", (Handle,), {"kind": "merging"})


def test_a_fourth_kind_is_seen_by_what_goes_by_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cycledistill.integrations.coco.models.registry")
    from cycledistill.integrations.coco.models.config import TokenPoseConfig
    from cycledistill.integrations.coco.models.tokenpose import TokenPose

    monkeypatch.setitem(KINDS, "merging", Kind("_merge_state", 30))
    merging = type("Merging", (Handle,), {"kind": "merging", "stack": choose_stack(vit(), "blocks[1:3]")})
    model = vit()
    assert describe(model)["model.merging acts on"] == "nothing"
    model.merging = merging()
    assert describe(model)["model.merging acts on"] == "blocks[1:3]"
    assert is_taken(model, choose_stack(model, "blocks[2:4]"), "merging")
    assert not is_taken(model, choose_stack(model, "blocks[3:4]"), "merging")
    pose = TokenPose(TokenPoseConfig(image_size=(64, 48), depth=2, stage1_width=8, dim=16, heads=2))
    pose.merging = model.merging
    assert handle_of(pose, "merging") is not None
    with pytest.raises(ValueError, match="this model is wrapped"):
        pose.take_backbone()
