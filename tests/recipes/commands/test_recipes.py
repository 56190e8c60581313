"""``cycledistill recipes``: a line a recipe, the published figure, and the file itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cycledistill.commands.frame import main
from cycledistill.recipes.commands.recipes import Packaged, packaged_recipes
from cycledistill.recipes.config.overrides import read_yaml
from cycledistill.recipes.errors import RecipeError
from tests.scripts import exit_code

Lines = pytest.CaptureFixture[str]
INTEGRATIONS = Path(__file__).resolve().parents[3] / "integrations"


def test_every_file_has_a_line_and_no_figure_is_lost(capsys: Lines) -> None:
    files = {f"{path.parts[-3]}/{path.stem}": path.read_text() for path in INTEGRATIONS.glob("*/configs/*.yaml")}
    files = {name: text for name, text in files.items() if not name.startswith("mmpose")}
    assert {f"{each.command}/{each.name}" for each in packaged_recipes()} == files.keys()
    assert main(["recipes"]) == 0
    shown = capsys.readouterr().out
    for each in packaged_recipes():
        assert f"\n  {each.name} " in shown
        assert 10 < len(each.about) < 250 and not each.about.endswith(("(", "e.g", "CVPR"))
        assert each.about.count("(") == each.about.count(")"), each.name
        assert each.published == yaml.safe_load(each.text).get("published", "")
        assert bool(each.published) == (not each.name.endswith(("_32", "_96", "_small", "_generated")) and (
            each.name not in ("crowdpose_tokenpose_s_v1", "tokenpose_t")
        ))  # fmt: skip
        assert f"published: {each.published}\n" in shown or not each.published
        assert "Published" not in each.text  # a figure stands in one place
    assert shown.count("reproduced") == 1


def test_a_caveat_is_not_cut_away(capsys: Lines) -> None:
    assert main(["recipes", "coco"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in ("ablation_visual_tokens", "ablation_keypoint_tokens"):
        (place,) = (number for number, line in enumerate(lines) if line.startswith(f"  {name} "))
        assert "69.6 and 71.7 AP" in lines[place + 1]  # of SDPose's table 6
        assert lines[place + 1].endswith("; which is which is not clear from the paper's text")


def test_what_is_published_is_nothing_to_train_by(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("published: 71.5 AP\noptim: {lr: 0.5}\n")
    assert read_yaml(file, "cycledistill.integrations.coco") == {"optim": {"lr": 0.5}}
    file.write_text("published: 71.5\n")
    with pytest.raises(RecipeError, match="published=71.5: expected text"):
        read_yaml(file, "cycledistill.integrations.coco")


@pytest.mark.parametrize(
    ("name", "published"),
    [("sdpose_t", "69.7 AP"), ("ppt", "JDR 98.0 %"), ("deit_tiny", "72.2 top-1"), ("hot_mixste", "41.0 mm MPJPE")],
)  # as SDPose's table 1, PPT's table 4, DeiT's table 5 and HoT's table 1 have them
def test_the_published_figure_is_listed(name: str, published: str) -> None:
    (recipe,) = (each for each in packaged_recipes() if each.name == name)
    assert recipe.published.startswith(published)


def test_a_recipe_without_a_comment() -> None:
    assert (Packaged("a", "b", "model: {}\n").about, Packaged("a", "b", "# Published: b.\n").published) == ("", "")


def test_one_is_shown_as_it_is(capsys: Lines) -> None:
    assert main(["recipes", "show", "deit_tiny"]) == 0
    assert capsys.readouterr().out == (INTEGRATIONS / "imagenet/configs/deit_tiny.yaml").read_text()
    assert main(["recipes", "show", "imagenet/deit_tiny"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "sdpose_s_v"], "there is no recipe 'sdpose_s_v'. Did you mean 'sdpose_s_v"),
        (["shwo"], "no command trains 'shwo'. Did you mean 'show'?"),
        (["deit_tiny"], "no command trains 'deit_tiny'. `cycledistill recipes show deit_tiny` prints the recipe."),
        (["shw", "deit_tiny"], "no command trains 'shw'. Did you mean 'show'?"),
        (["zzz"], "no command trains 'zzz'. Known: coco, human36m, imagenet, multiview, show."),
    ],
)
def test_mistyped_names_are_answered_with_the_nearest(words: list[str], said: str, capsys: Lines) -> None:
    assert exit_code(main, ["recipes", *words]) == 2
    assert said in capsys.readouterr().err


def test_so_are_those_of_config(capsys: Lines) -> None:
    pytest.importorskip("timm")
    assert main(["train", "coco", "--config", "sdpose_tt"]) == 2
    assert "is neither a file nor one of the packaged recipes. Did you mean 'sdpose_t'?" in capsys.readouterr().err
    assert main(["train", "coco", "--config", "cpu_96"]) == 2
    said = capsys.readouterr().err
    assert "config 'cpu_96' is neither a file nor one of the packaged recipes. It is a recipe of " in said
    assert said.endswith(" It is a recipe of `cycledistill train imagenet`.\n")
