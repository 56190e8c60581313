"""The pictures and the page: what is drawn is what was measured, and bad input is answered."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from cycledistill import wrap_cyclic
from cycledistill.commands.frame import main
from cycledistill.insight import report as module
from cycledistill.insight.measures import AttentionMap, Drift, attention_maps, parameter_profile
from cycledistill.insight.report import Subject, insight_report, open_subject
from tests import toys

pytest.importorskip("matplotlib")
plots = pytest.importorskip("cycledistill.insight.plots")


def subject(cycles: int = 2) -> Subject:
    model = wrap_cyclic(toys.make().float(), cycles).eval()
    # The class token, then 2 x 2 patches.
    prepare = lambda file: (toys.batch()[0][:1].float(), torch.rand(8, 8, 3))  # noqa: E731
    return Subject("toy <1>", model, prepare, (2, 2), slice(0, 1), ("the class token",), {"steps": "7"})


def test_attention_is_drawn_by_cycle_and_layer() -> None:
    maps = attention_maps(subject().model, toys.batch()[0].float())
    figure = plots.plot_attention(maps, grid=(2, 2))
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [f"cycle {cycle}, layer {layer}" for cycle in (1, 2) for layer in (1, 2, 3)]
    drawn = torch.as_tensor(figure.axes[4].images[0].get_array())
    torch.testing.assert_close(drawn, maps[4].weights[0].mean(0)[0, -4:].reshape(2, 2))
    assert [axis.get_xlabel() for axis in figure.axes] == [
        f"{seen.min():.3g} to {seen.max():.3g}" for seen in (m.weights[0].mean(0)[0, -4:] for m in maps)
    ]
    assert "its own scale" in figure.get_supxlabel().replace("\n", " ")


def test_what_cannot_be_drawn() -> None:
    maps = [AttentionMap(1, 0, torch.rand(2, 3, 1, 17)), AttentionMap(1, 1, torch.rand(2, 3, 1, 12))]
    for arguments, said in (
        ({"grid": (9, 9)}, r"grid=\(9, 9\): 81 patches, but .*they have \[12, 17\]"),
        ({"grid": (3, 3)}, r"grid=\(3, 3\) has 9 patches and the maps 17 keys: 8 tokens .* prefix=8"),
        ({"grid": (4, 4), "prefix": 3}, "behind prefix=3"),
        ({"grid": (0, 4)}, "at least 1"),
        ({"grid": (4, 4), "row": 99}, "row=99: the maps have 1 rows"),
        ({"grid": (4, 4), "row": -1}, "row=-1"),
        ({"sample": 99}, "sample=99: the maps have 2 samples"),
        ({"columns": 0}, "columns=0"),
    ):
        with pytest.raises(ValueError, match=said):
            plots.plot_attention(maps, **arguments)
    with pytest.raises(ValueError, match="maps is empty"):
        plots.plot_attention([])
    assert len(plots.plot_attention(maps, grid=(3, 3), prefix=8).axes) == 1
    assert len(plots.plot_attention(maps, grid=(4, 4)).axes) == 1, "the layer with fewer tokens is left out"
    for draw in (plots.plot_parameters, plots.plot_exits):
        with pytest.raises(ValueError, match="0 models"):
            draw({})
    with pytest.raises(ValueError, match="25 models: from 1 to 24"):
        plots.plot_exits({str(number): {1: 0.5} for number in range(25)})
    with pytest.raises(ValueError, match="drifts is empty"):
        plots.plot_drift([])


@pytest.mark.slow
def test_every_attention_of_a_layer_has_its_picture() -> None:
    maps = [AttentionMap(1, layer, torch.rand(1, 1, 2, 5), part) for layer, part in ((0, 0), (1, 0), (1, 1))]
    figure = plots.plot_attention(maps)
    titles = ["cycle 1, layer 1", "cycle 1, layer 2, part 1", "cycle 1, layer 2, part 2"]
    assert [axis.get_title() for axis in figure.axes] == titles
    for axis, one in zip(figure.axes, maps, strict=True):
        torch.testing.assert_close(torch.as_tensor(axis.images[0].get_array()), one.weights[0, 0])


def test_drift_that_is_negative_or_not_comparable_is_in_the_picture() -> None:
    nan = float("nan")
    figure = plots.plot_drift([Drift(1, 3.0, 2.0, -0.7, 0.9), Drift(2, 4.0, 0.2, 0.95, 0.99)])
    assert figure.axes[0].get_ylim()[0] < -0.7 and figure.axes[1].get_ylim()[0] == 0
    assert figure.axes[0].get_xlabel() == "cycle"
    figure = plots.plot_drift([Drift(1, 3.0, nan, nan, nan), Drift(2, 4.0, 0.2, -0.5, 0.99)])
    assert figure.axes[0].get_ylim()[0] < -0.5 and "1: not comparable" in figure.axes[0].get_xlabel()
    figure = plots.plot_drift([Drift(1, 3.0, nan, nan, nan)])
    figure.canvas.draw()
    assert figure.axes[0].get_ylim() == (0, pytest.approx(1.1))


def test_more_models_than_colours() -> None:
    names = [f"model {number}" for number in range(8)]
    for figure in (
        plots.plot_parameters(dict.fromkeys(names, parameter_profile(toys.make()))),
        plots.plot_exits({name: {1: 0.5, 2: 0.6} for name in names}),
    ):
        lines = figure.axes[0].lines
        assert [line.get_label().split(":")[0] for line in lines] == names
        assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(names)
        assert len(figure.legends[0].get_texts()) == len(names)


def test_long_stacks_show_some_layers_and_other_lengths_are_left_out() -> None:
    maps = [AttentionMap(1, layer, torch.rand(1, 2, 1, 5 if layer < 9 else 3)) for layer in range(12)]
    figure = plots.plot_attention(maps, grid=(2, 2), columns=3, image=torch.rand(4, 4, 3))
    assert [axis.get_title() for axis in figure.axes] == [f"cycle 1, layer {n}" for n in (1, 5, 9)]


def test_curves_hold_the_numbers() -> None:
    figure = plots.plot_drift([Drift(1, 3.0, 0.5, 0.8, 0.9), Drift(2, 4.0, 0.2, 0.95, 0.99)])
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[0.5, 0.2], [0.8, 0.95], [0.9, 0.99]]
    assert list(figure.axes[1].lines[0].get_ydata()) == [3.0, 4.0]
    profile = parameter_profile(toys.make())
    (line,) = plots.plot_parameters({"toy": profile}).axes[0].lines
    torch.testing.assert_close(torch.as_tensor(line.get_ydata()), profile.density)
    (line,) = plots.plot_exits({"toy": {1: 0.5, 3: 0.75}}).axes[0].lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 3], [0.5, 0.75])


def test_the_page_holds_everything_it_shows() -> None:
    page = insight_report(subject(), [Path("a<b.jpg")], compare=subject(3))
    assert "toy &lt;1&gt;" in page and "a&lt;b.jpg" in page and "toy <1>" not in page
    assert "<td>blocks, 3 blocks</td>" in page and "<td>7</td>" in page
    assert len(re.findall('src="data:image/png;base64,', page)) == 3
    assert not re.findall(r'(?:src|href)="(?!data:)', page)


def test_two_runs_of_the_same_name_are_two_curves(monkeypatch: Any) -> None:
    drawn: dict[str, Any] = {}
    for name in ("plot_parameters", "plot_exits"):
        draw = getattr(plots, name)
        keep = lambda curves, *rest, name=name, draw=draw: drawn.setdefault(name, curves) and draw(curves, *rest)  # noqa: E731
        monkeypatch.setattr(plots, name, keep)
    scored = replace(subject(), scores={1: 0.5, 2: 0.7}, score_name="AP")
    page = insight_report(
        replace(scored, path=Path("runs/a")),
        [],
        compare=replace(subject(3), path=Path("runs/b"), scores={1: 0.4}, score_name="AP"),
    )
    assert list(drawn["plot_parameters"]) == ["toy <1> (a)", "toy <1> (b)"]
    assert list(drawn["plot_exits"].values()) == [{1: 0.5, 2: 0.7}, {1: 0.4}]
    assert "AP against the cycles at inference" in page
    drawn.clear()
    insight_report(scored, [], compare=subject(3))  # another kind of score is not drawn beside
    assert list(drawn["plot_parameters"]) == ["toy <1>, 1", "toy <1>, 2"]
    assert list(drawn["plot_exits"].values()) == [{1: 0.5, 2: 0.7}]


def test_models_with_windows_and_plain_ones(monkeypatch: Any) -> None:
    page = insight_report(replace(subject(), grid=(9, 9)), [Path("a.jpg")])
    assert "windows are not drawn over the picture" in page and "Tokens before and after" in page
    plain = replace(subject(), model=toys.make().float().eval(), blocks="blocks")
    page = insight_report(plain, [Path("a.jpg")])
    assert "none, a plain model" in page and "Attention of the class token" in page


def test_the_command(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    run, image, out = tmp_path / "run", tmp_path / "a.jpg", tmp_path / "page.html"
    run.mkdir()
    image.touch()
    entry = SimpleNamespace(name="toys", load=lambda: lambda path: subject() if path == run else None)
    monkeypatch.setattr(module, "entry_points", lambda group: [entry])
    assert main(["insight", str(run), "--image", str(image), "--out", str(out)]) == 0
    assert out.read_text().startswith("<!doctype html>")
    for arguments, message in (
        ([str(tmp_path / "no")], "the folder of a run"),
        ([str(tmp_path)], "asked: toys"),
        ([str(run), "--image", str(tmp_path / "no.jpg")], "no such file"),
        ([str(run), "--cycles", "0"], "--cycles 0"),
        ([str(run), "--out", str(tmp_path / "no" / "page.html")], "no folder"),
    ):
        assert main(["insight", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_an_integration_whose_packages_are_missing_does_not_stand_in_the_way(tmp_path: Path, monkeypatch: Any) -> None:
    def missing() -> Any:
        raise ModuleNotFoundError("No module named 'cv2'", name="cv2")

    entries = [SimpleNamespace(name="a", load=missing), SimpleNamespace(name="b", load=lambda: lambda path: subject())]
    monkeypatch.setattr(module, "entry_points", lambda group: entries)
    assert open_subject(tmp_path).path == tmp_path
    monkeypatch.setattr(module, "entry_points", lambda group: entries[:1])
    with pytest.raises(ValueError, match=r"could not be asked: a \(needs cv2\)"):
        open_subject(tmp_path)


def test_images_that_do_not_fit() -> None:
    def wrong(file: Path) -> tuple[Tensor, Tensor]:
        return torch.randn(1, 4, toys.FEATURES + 1), torch.rand(8, 8, 3)

    one = subject()
    with pytest.raises(ValueError, match=r"does not take inputs of shape \[\(1, 4, 7\)\]"):
        insight_report(Subject("toy", one.model, wrong, (2, 2), slice(0, 1), ("x",)), [Path("a.jpg")])


@pytest.mark.slow
def test_a_classifier_trained_here(tmp_path: Path) -> None:
    """The integration's own subject, from a checkpoint it wrote."""
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("timm")
    from cycledistill.integrations.imagenet.recipe import load_recipe
    from cycledistill.integrations.imagenet.train import train
    from cycledistill.recipes.weights.checkpoint import find_checkpoint

    for split in ("train", "validation"):
        for name in ("cat", "dog"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(2):
                image.new("RGB", (40, 40), (number * 90, 30, 60)).save(
                    tmp_path / "data" / split / name / f"{number}.png"
                )
    overrides = {
        "data.dir": str(tmp_path / "data"),
        "data.workers": 0,
        "data.batch_size": 2,
        "data.repeats": 1,
        "model.name": "test_vit",
        "model.img_size": 32,
        "model.kwargs": {},
        "schedule.epochs": 1,
        "schedule.warmup_epochs": 0,
        "run.output": str(tmp_path / "run"),
        "run.device": "cpu",
        "run.progress": False,
    }
    train(load_recipe("cpu_96", overrides))
    found = open_subject(tmp_path / "run")
    picture = tmp_path / "data" / "train" / "cat" / "0.png"
    page = insight_report(found, [picture])
    assert sorted(found.scores) == [1, 2, 3] and "top-1 accuracy in % against the cycles" in page
    assert "top-1 at exit 1" in page and "Attention of the class token" in page
    recipe = find_checkpoint(tmp_path / "run") / "recipe.json"
    recipe.write_text(recipe.read_text().replace('"optim":', '"optym":'))
    with pytest.raises(ValueError, match="no recipe of this library: .*optym"):
        open_subject(tmp_path / "run")
    (tmp_path / "bad.png").write_text("no image")
    with pytest.raises(ValueError, match=r"bad\.png: not a picture, or a broken one"):
        insight_report(found, [tmp_path / "bad.png"])
