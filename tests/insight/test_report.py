"""The pictures and the page: what is drawn is what was measured, and bad input is answered."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from cycledistill import wrap_cyclic
from cycledistill.commands.frame import main
from cycledistill.cost import cost
from cycledistill.insight.measures import AttentionMap, Drift, attention_maps, parameter_profile
from cycledistill.insight.report import insight_report
from cycledistill.insight.scores import Scores
from cycledistill.insight.subject import GROUP, Subject, open_subject
from tests import toys
from tests.insight.test_pages import Tags

pytest.importorskip("matplotlib")
plots = pytest.importorskip("cycledistill.insight.plots")


def subject(cycles: int = 2) -> Subject:
    model = wrap_cyclic(toys.make().float(), cycles).eval()
    # The class token, then 2 x 2 patches.
    prepare = lambda file: (toys.batch()[0][:1].float(), torch.rand(8, 8, 3))  # noqa: E731
    return Subject("toy <1>", model, prepare, (2, 2), slice(0, 1), ("the class token",), {"steps": "7"})


def pictures(figure: Any) -> list[Any]:
    """The axes with pictures of attention: no scale, no photo, no empty place."""
    return [axis for axis in figure.axes if axis.get_title().startswith("cycle")]


def test_attention_is_drawn_by_cycle_and_layer() -> None:
    maps = attention_maps(subject().model, toys.batch()[0].float())
    axes = pictures(plots.plot_attention(maps, grid=(2, 2)))
    assert [axis.get_title() for axis in axes] == [f"cycle {c}, layer {n}" for c in (1, 2) for n in (1, 2, 3)]
    for axis, one in zip(axes, maps, strict=True):
        drawn = torch.as_tensor(axis.images[0].get_array())
        weights = one.weights[0].mean(0)[0]  # 5 keys: 1 is what each would get of uniform attention
        torch.testing.assert_close(drawn, 5 * weights[-4:].reshape(2, 2))


def test_a_row_has_one_scale_from_zero() -> None:
    strong, weak = torch.tensor([0.8, 0.1, 0.1, 0.0]), torch.tensor([0.4, 0.2, 0.2, 0.2])
    maps = [AttentionMap(c, n, w.view(1, 1, 1, 4)) for c, n, w in ((1, 0, strong), (1, 1, weak), (2, 0, weak))]
    figure = plots.plot_attention(maps, grid=(2, 2))
    limits = [axis.images[0].get_clim() for axis in pictures(figure)]
    assert limits == [(0, pytest.approx(3.2)), (0, pytest.approx(3.2)), (0, 2)]
    scales = [axis for axis in figure.axes if axis.get_ylabel() == "times uniform"]
    assert len(scales) == 2


def test_uniform_attention_looks_uniform() -> None:
    """Rounding is no pattern: to the eye all pixels have one colour, that in the middle of the scale."""
    maps = [AttentionMap(1, 0, torch.full((1, 2, 1, 16), 1 / 16) + 1e-8 * torch.randn(1, 2, 1, 16))]
    (axis,) = pictures(plots.plot_attention(maps, grid=(4, 4), image=torch.rand(8, 8, 3)))
    (drawn,) = axis.images  # no photo behind it
    colours = drawn.to_rgba(drawn.get_array(), bytes=True).reshape(-1, 4).astype(int)
    assert abs(colours - [int(part) for part in drawn.cmap(0.5, bytes=True)]).max() <= 3


def test_the_photo_is_alone_ahead_of_the_first_row() -> None:
    maps = attention_maps(subject().model, toys.batch()[0].float())
    photo = torch.rand(8, 8, 3)
    figure = plots.plot_attention(maps, grid=(2, 2), image=photo)
    (seen,) = (axis for axis in figure.axes if axis.get_title() == "what it sees")
    torch.testing.assert_close(torch.as_tensor(seen.images[0].get_array()), photo)
    assert all(len(axis.images) == 1 for axis in pictures(figure))


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
    assert len(pictures(plots.plot_attention(maps, grid=(3, 3), prefix=8))) == 1
    assert len(pictures(plots.plot_attention(maps, grid=(4, 4)))) == 1, "the layer with fewer tokens is left out"
    for draw in (plots.plot_parameters, plots.plot_exits):
        with pytest.raises(ValueError, match="0 models"):
            draw({})
    with pytest.raises(ValueError, match="25 models: from 1 to 24"):
        plots.plot_exits({str(number): {1: 0.5} for number in range(25)})
    with pytest.raises(ValueError, match="drifts is empty"):
        plots.plot_drift([])


def test_cycles_without_a_file_to_run_them_on_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The page would say so many in its title, and hold nothing of them."""
    with pytest.raises(ValueError, match="cycles=5 are run on the files that are shown, and there is none"):
        insight_report(subject(), [], cycles=5)
    assert main(["insight", "runs/a", "--cycles", "5"]) == 2
    assert "--cycles 5 are run on the files of --image, and none is given" in capsys.readouterr().err


@pytest.mark.slow
def test_every_attention_of_a_layer_has_its_picture() -> None:
    maps = [AttentionMap(1, layer, torch.rand(1, 1, 2, 5), part) for layer, part in ((0, 0), (1, 0), (1, 1))]
    axes = pictures(plots.plot_attention(maps))
    titles = ["cycle 1, layer 1", "cycle 1, layer 2, part 1", "cycle 1, layer 2, part 2"]
    assert [axis.get_title() for axis in axes] == titles
    for axis, one in zip(axes, maps, strict=True):
        torch.testing.assert_close(torch.as_tensor(axis.images[0].get_array()), 5 * one.weights[0, 0])


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
    assert [axis.get_title() for axis in pictures(figure)] == [f"cycle 1, layer {n}" for n in (1, 5, 9)]


def test_curves_hold_the_numbers() -> None:
    figure = plots.plot_drift([Drift(1, 3.0, 0.5, 0.8, 0.9), Drift(2, 4.0, 0.2, 0.95, 0.99)])
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[0.5, 0.2], [0.8, 0.95], [0.9, 0.99]]
    assert list(figure.axes[1].lines[0].get_ydata()) == [3.0, 4.0]
    profile = parameter_profile(toys.make())
    (line,) = plots.plot_parameters({"toy": profile}).axes[0].lines
    torch.testing.assert_close(torch.as_tensor(line.get_ydata()), profile.density)
    (line,) = plots.plot_exits({"toy": {1: 0.5, 3: 0.75}}).axes[0].lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 3], [0.5, 0.75])


def test_scores_stand_on_an_axis_from_zero_with_their_intervals() -> None:
    figure = plots.plot_exits({"a": {1: 72.2, 2: 72.7}}, intervals={"a": {1: (71.8, 72.6), 2: (72.3, 73.1)}})
    (axis,) = figure.axes
    assert axis.get_ylim()[0] == 0 and axis.get_ylim()[1] > 73.1
    bars = [path.vertices for bar in axis.collections for path in bar.get_paths()]
    assert [(bar[0][1], bar[1][1]) for bar in bars] == [(71.8, 72.6), (72.3, 73.1)]
    low, high = plots.plot_exits({"a": {1: -0.2, 2: 0.1}}).axes[0].get_ylim()
    assert low < -0.2 and high > 0.1
    assert plots.plot_exits({"a": {1: 0.0}}).axes[0].get_ylim() == (0, 1)


SCORES = Scores("AP", {1: 0.5, 2: 0.7}, intervals={2: (0.65, 0.75)}, method="made up", samples="9 pictures", digits=3)


@pytest.mark.slow
def test_the_page_holds_everything_it_shows() -> None:
    page = insight_report(replace(subject(), scores=SCORES), [Path("a<b.jpg")], compare=subject(3))
    seen = Tags(page)
    lines = [line.strip() for line in seen.text.splitlines()]
    assert "What 2 cycles did to toy <1>" in lines and "Shown a<b.jpg" in lines
    assert "blocks, 3 blocks" in page and "toy <1>" not in page and "What it sees" not in page
    for said in ("9 pictures", "interval: made up", "0.650 to 0.750", "0.500", "Made on ", "torch "):
        assert said in seen.text
    # The photo, two rows of three layers with a scale each, drift, parameters and the curve.
    assert [value for name, value in seen.attributes if name == "src" and not str(value).startswith("data:")] == []
    assert seen.tags.count("img") == 1 + 2 * (3 + 1) + 3 and "script" not in seen.tags
    assert ("name", "viewport") in seen.attributes


def test_no_name_becomes_markup() -> None:
    """Of a run, a file, a token, a score: they stand on the page as they are, and nothing of them is a tag."""
    bad = {
        name: f"<script>{name}('1')" for name in ("name", "key", "fact", "row", "score", "samples", "method", "file")
    }
    named = replace(
        subject(),
        name=bad["name"],
        facts={bad["key"]: bad["fact"]},
        row_names=(bad["row"],),
        scores=replace(SCORES, name=bad["score"], samples=bad["samples"], method=bad["method"]),
    )
    page = insight_report(named, [Path(bad["file"])])
    found = Tags(page)
    assert "<script" not in page and [tag for tag in found.tags if tag == "script"] == []
    assert [each for each in bad.values() if each not in found.text] == []


@pytest.mark.slow
def test_what_an_exit_costs_is_counted_as_cost_counts_it() -> None:
    one = subject()
    counted = cost(one.model, toys.batch()[0][:1].float(), 2)
    page = insight_report(one, [Path("a.jpg")])
    rows = re.findall(r"<tr><td>(\d)</td><td>([\d.e+-]+) <small>x ([\d.]+)</small></td>", page)
    assert [(int(n), float(giga)) for n, giga, _ in rows] == [
        (n, pytest.approx(macs.total / 1e9, rel=5e-3)) for n, macs in enumerate(counted.exits, 1)
    ]
    assert rows[0][2] == "1.00" and float(rows[1][2]) > 1.5
    plain = replace(one, model=toys.make().float().eval(), blocks="blocks", example=toys.batch()[0][:1].float())
    page = insight_report(plain, [])
    assert len(re.findall(r"<tr><td>\d</td>", page)) == 1 and "A look into toy" in page
    assert "not counted: give a file" in insight_report(one, [])


def test_two_runs_of_the_same_name_are_two_curves(monkeypatch: Any) -> None:
    drawn: dict[str, Any] = {}
    for name in ("plot_parameters", "plot_exits"):
        draw = getattr(plots, name)

        def keep(curves: Any, *rest: Any, name: str = name, draw: Any = draw, **more: Any) -> Any:
            drawn[name] = curves
            return draw(curves, *rest, **more)

        monkeypatch.setattr(plots, name, keep)
    scored = replace(subject(), scores=SCORES)
    other = replace(subject(3), path=Path("runs/b"), scores=Scores("AP", {1: 0.4}))
    page = insight_report(replace(scored, path=Path("runs/a")), [], compare=other)
    assert list(drawn["plot_parameters"]) == ["toy <1> (a)", "toy <1> (b)"]
    assert list(drawn["plot_exits"].values()) == [{1: 0.5, 2: 0.7}, {1: 0.4}]
    assert "AP, by cycles at inference, from 0; bars are the intervals" in page
    drawn.clear()
    insight_report(scored, [], compare=replace(subject(3), scores=Scores("AR", {1: 0.4})))  # another figure
    assert list(drawn["plot_parameters"]) == ["toy <1>, 1", "toy <1>, 2"]
    assert list(drawn["plot_exits"].values()) == [{1: 0.5, 2: 0.7}]


@pytest.mark.slow
def test_models_with_windows_and_plain_ones(monkeypatch: Any) -> None:
    page = insight_report(replace(subject(), grid=(9, 9)), [Path("a.jpg")])
    assert "windows are not drawn beside the picture" in page and "Tokens before and after" in page
    plain = replace(subject(), model=toys.make().float().eval(), blocks="blocks")
    page = insight_report(plain, [Path("a.jpg")])
    assert "none, a plain model" in page and "Where the class token looks" in page


def test_the_command(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    run, image, out = tmp_path / "run", tmp_path / "a.jpg", tmp_path / "page.html"
    run.mkdir()
    image.touch()
    entry = SimpleNamespace(name="toys", load=lambda: lambda path, ema: subject() if path == run else None)
    monkeypatch.setattr(
        "cycledistill.announced.entry_points", lambda group: [entry] if group == GROUP else entry_points(group=group)
    )
    assert main(["insight", str(run), "--image", str(image), "--output", str(out)]) == 0
    assert out.read_text().startswith("<!doctype html>")
    for arguments, message in (
        ([str(tmp_path / "no")], "the folder of a run"),
        ([str(tmp_path)], "asked: toys"),
        ([str(run), "--image", str(tmp_path / "no.jpg")], "no such file"),
        ([str(run), "--cycles", "0"], "--cycles 0"),
        ([str(run), "--output", str(tmp_path / "no" / "page.html")], "no folder"),
    ):
        assert main(["insight", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_an_integration_whose_packages_are_missing_does_not_stand_in_the_way(tmp_path: Path, monkeypatch: Any) -> None:
    def missing() -> Any:
        raise ModuleNotFoundError("No module named 'cv2'", name="cv2")

    entries = [
        SimpleNamespace(name="a", load=missing),
        SimpleNamespace(name="b", load=lambda: lambda path, ema: subject()),
    ]
    monkeypatch.setattr("cycledistill.announced.entry_points", lambda group: entries)
    assert open_subject(tmp_path).path == tmp_path
    monkeypatch.setattr("cycledistill.announced.entry_points", lambda group: entries[:1])
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
    assert found.scores is not None and sorted(found.scores.values) == sorted(found.scores.intervals) == [1, 2, 3]
    for said in (
        "top-1 accuracy, %, by cycles",
        "on 4 pictures; interval: 95 %, Wilson",
        "Where the class token looks",
        "as the last step left them, model.safetensors; not their average, which --ema shows",
        "data: train, measured on validation",
    ):
        assert said in page
    assert "running average over training (EMA)" in open_subject(tmp_path / "run", ema=True).facts["weights"]
    (find_checkpoint(tmp_path / "run") / "ema.safetensors").unlink()
    with pytest.raises(ValueError, match="holds no average of the weights: leave out --ema"):
        open_subject(tmp_path / "run", ema=True)
    recipe = find_checkpoint(tmp_path / "run") / "recipe.json"
    recipe.write_text(recipe.read_text().replace('"optim":', '"optym":'))
    with pytest.raises(ValueError, match="no recipe of this library: .*optym"):
        open_subject(tmp_path / "run")
    (tmp_path / "bad.png").write_text("no image")
    with pytest.raises(ValueError, match=r"bad\.png: not a picture, or a broken one"):
        insight_report(found, [tmp_path / "bad.png"])
