"""Runs of a study: paired by seed, the same after a stop, and told as they are."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

pytest.importorskip("timm")
pytest.importorskip("sklearn")
pytest.importorskip("markdown_it")

from matplotlib.figure import Figure
from study import report as study_report
from study.command import main
from study.costs import ArmCost, arm_costs
from study.errors import StudyError
from study.load import load_plan
from study.tasks import open_task
from study.tasks.mazes import Mazes
from study.train import Run

from cycledistill import at_exit, wrap_cyclic
from tests.insight.test_pages import Tags
from tests.recipes.run.graph.tape import TapeCapture

Written = Callable[..., Path]
CPU = torch.device("cpu")
COSTS: dict[str, dict[str, ArmCost]] = {}  # by the plan, for counting takes most of a short run's time


def lines(folder: Path, name: str = "tiny") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def run_of(path: Path, arm: str, work: Path, seed: int = 0) -> Run:
    plan = load_plan(path)
    task = open_task(plan.task, None, CPU)
    work.mkdir(exist_ok=True)
    costs = COSTS.get(plan.digest) or COSTS.setdefault(plan.digest, arm_costs(plan, task))
    return Run(plan, task, arm, seed, costs[arm], work, CPU)


def without_times(record: dict[str, Any] | None) -> dict[str, Any]:
    assert record is not None
    return {key: value for key, value in record.items() if key != "seconds"}


@pytest.mark.slow
def test_a_study_from_its_plan_to_its_report(written: Written, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, results = str(written()), tmp_path / "results"
    assert main(["status", path, "--results", str(results)]) == 0
    assert "tiny: 0 of 12 runs" in capsys.readouterr().out
    assert main(["run", path, "--results", str(results), "--device", "cpu"]) == 0
    runs = lines(results)
    assert [(run["arm"], run["seed"]) for run in runs] == [
        (arm, seed) for seed in (0, 1) for arm in ("base", "exits", "base_eq", "deep", "narrow", "narrow_eq")
    ]
    assert all(run["deployed_equal"] and not run["diverged"] for run in runs)
    assert all(set(run["metrics"]["cells 4x4"]) == {"1", "2", "3"} for run in runs)
    capsys.readouterr()
    assert main(["run", path, "--results", str(results), "--device", "cpu"]) == 0  # nothing is left to do
    assert lines(results) == runs
    assert main(["status", path, "--results", str(results)]) == 0
    assert "tiny: 12 of 12 runs" in capsys.readouterr().out
    assert main(["report", path, "--results", str(results)]) == 0
    report = (results / "tiny.md").read_text(encoding="utf-8")
    assert "| `exits@2` | `base@1` | cells 4x4 |" in report
    assert "<table>" in (results / "tiny.html").read_text(encoding="utf-8")
    assert (results / "tiny.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_equal_training_is_equal_in_multiply_accumulates(written: Written) -> None:
    plan = load_plan(written(training={"steps": 100, "batch": 8, "rate": 1e-2}))
    costs = arm_costs(plan, open_task(plan.task, None, CPU))
    assert costs["base_eq"].training == pytest.approx(costs["exits"].training, rel=0.01)
    assert costs["base_eq"].steps == pytest.approx(200, abs=1)  # the head alone is not of the stack, and small
    one, two, three = costs["exits"].exits
    assert two - one == three - two > 0.9 * one
    assert costs["deep"].exits[0] == two


def test_a_narrower_stack_has_as_many_weights_or_is_refused(written: Written) -> None:
    plan = load_plan(written(arms={"narrow": {"depth": 2, "width": 12, "heads": 1}}))
    with pytest.raises(StudyError, match=r"arms\.narrow has 1\.\d\d of the number of weights of exits"):
        arm_costs(plan, open_task(plan.task, None, CPU))


def test_equal_training_is_counted_and_not_believed(written: Written) -> None:
    """Tied to an arm that runs no further cycle, a baseline trains for half of what it stands for."""
    late = {"cycles": 2, "distill": "exits", "schedule": "late", "turn": 1.0, "without": {"plain": "not asked"}}
    plan = load_plan(written(arms={"late": late, "base_eq": {"equal_training": "late"}}))
    with pytest.raises(StudyError, match=r"arms\.base_eq has 0\.50 of the training cost of exits"):
        arm_costs(plan, open_task(plan.task, None, CPU))


def test_metrics_are_checked_before_anything_is_trained(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = written(metrics=["cells 4x4", "solved 9x9"])
    assert main(["run", str(path), "--results", str(tmp_path), "--device", "cpu"]) == 2
    assert "the task has no 'solved 9x9'; it has 'solved 4x4', 'cells 4x4', 'solved 5x5'" in capsys.readouterr().err
    assert not (tmp_path / "tiny.jsonl").exists()


def test_stochastic_depth_that_a_network_has_not_is_refused(written: Written, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"arms\.dropped: the network of this task has no stochastic depth"):
        run_of(written(arms={"dropped": {"drop_path": 0.1}}), "dropped", tmp_path / "work")


def test_weights_of_another_content_are_not_started_from(written: Written, tmp_path: Path) -> None:
    reasons = dict.fromkeys(("plain", "equal training", "deeper", "narrower", "narrower, equal training"), "not asked")
    arms = {"tuned": {"cycles": 2, "distill": "exits", "start_from": "base", "without": reasons}}
    run_of(written(), "base", tmp_path / "work").go(math.inf)
    run_of(written(arms=arms), "tuned", tmp_path / "work")
    changed = written(arms=arms, training={"steps": 5, "batch": 8, "rate": 1e-2})
    with pytest.raises(StudyError, match=r"base-0\.safetensors is of a study of other content"):
        run_of(changed, "tuned", tmp_path / "work")


def test_one_study_that_cannot_run_does_not_stop_the_next(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "elsewhere").mkdir()
    pictures = {"kind": "pictures", "set": "cifar10", "size": 32, "patch": 8, "shift": 0, "flip": True, "smoothing": 0}
    first = written("first")
    first.write_text(yaml.safe_dump({**yaml.safe_load(first.read_text(encoding="utf-8")), "task": pictures}))
    arguments = ["run", str(first), str(written()), "--results", str(tmp_path), "--device", "cpu"]
    assert main([*arguments, "--arms", "base", "--seeds", "0"]) == 2
    assert "give --data" in capsys.readouterr().err
    assert len(lines(tmp_path)) == 1


def test_a_circle_of_equal_training_is_named(written: Written) -> None:
    plan = load_plan(written(arms={"a": {"equal_training": "b"}, "b": {"equal_training": "a"}}))
    with pytest.raises(StudyError, match="in a circle: a -> b -> a"):
        arm_costs(plan, open_task(plan.task, None, CPU))


def test_one_cycle_trains_as_a_loop_by_hand(written: Written, tmp_path: Path) -> None:
    """The oracle: the same network in a loop that knows nothing of studies and cycles."""
    run = run_of(written(), "base", tmp_path / "work")
    task, plan = run.task, run.plan
    torch.manual_seed(0)
    model = task.network(plan.network)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1]},
            {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        weight_decay=0.05,
        fused=True,
    )
    for step in range(4):
        given, target = task.batch(0, step, 8)
        rate = 1e-2 * min((step + 1) / 1, (1 + math.cos(math.pi * step / 4)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        task.loss(model(given), *target).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert run.go(math.inf) is not None
    for name, value in model.state_dict().items():
        assert torch.equal(run.model.state_dict()[name], value), name


@pytest.mark.slow
def test_graphed_steps_end_as_eager_ones(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With a stand-in for CUDA's graphs; changes of the number of cycles are graphs of their own."""
    arms = {"exits": {"cycles": 2, "distill": "exits", "schedule": "late", "link": "input"}}
    path = written(training={"steps": 12, "batch": 8, "rate": 1e-2}, arms=arms)
    eager = run_of(path, "exits", tmp_path / "eager").go(math.inf)
    captures = []
    monkeypatch.setattr("study.step.capture_on", lambda device: captures.append(TapeCapture()) or captures[0])
    run = run_of(path, "exits", tmp_path / "graphed")
    assert without_times(run.go(math.inf)) == without_times(eager)
    assert captures[0].captures >= 2 and captures[0].replays > 0
    assert "run eagerly" not in caplog.text


def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(arms={"exits": {"cycles": 2, "distill": "exits", "schedule": "random"}})
    whole = run_of(path, "exits", tmp_path / "a").go(math.inf)
    run = run_of(path, "exits", tmp_path / "b")
    assert run.go(-math.inf) is None  # stops after a step
    assert run.step == 1
    again = run_of(path, "exits", tmp_path / "b")
    assert again.step == 1
    assert without_times(again.go(math.inf)) == without_times(whole)
    again.forget()
    assert [file.suffix for file in sorted((tmp_path / "b").iterdir())] == [".safetensors"]


def test_a_scheme_that_does_not_fit_the_task_is_named(written: Written, tmp_path: Path) -> None:
    run = run_of(written(arms={"exits": {"cycles": 2, "distill": "elt"}}), "exits", tmp_path / "work")
    with pytest.raises(StudyError, match=r"arms\.exits: .*compares logits of shape"):
        run.go(math.inf)


def test_weights_that_are_elsewhere_are_asked_for(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    reasons = dict.fromkeys(("plain", "equal training", "deeper", "narrower", "narrower, equal training"), "not asked")
    path = str(written(arms={"more": {"cycles": 2, "start_from": "base", "without": reasons}}))
    arguments = ["run", path, "--results", str(tmp_path), "--device", "cpu", "--seeds", "0", "--arms"]
    assert main([*arguments, "base", "--work", str(tmp_path / "a")]) == 0
    assert main([*arguments, "more", "base", "--work", str(tmp_path / "b")]) == 2
    assert "base, seed 0 was run elsewhere, and its weights, from which more starts" in capsys.readouterr().err
    assert main([*arguments, "more", "--work", str(tmp_path / "a")]) == 0


def test_a_state_of_another_study_is_not_gone_on_with(written: Written, tmp_path: Path) -> None:
    run_of(written(), "base", tmp_path / "work").go(-math.inf)
    other = written(training={"steps": 5, "batch": 8, "rate": 1e-2})
    with pytest.raises(StudyError, match="is of a study of other content"):
        run_of(other, "base", tmp_path / "work")


def test_arms_of_a_seed_see_the_same_and_start_alike(written: Written, tmp_path: Path) -> None:
    base, exits = (run_of(written(), arm, tmp_path / arm) for arm in ("base", "exits"))
    for name, value in base.model.state_dict().items():
        assert torch.equal(exits.model.state_dict()[name], value)
    for step in (0, 40):
        one, two = (run.task.batch(0, step, 8)[0] for run in (base, exits))
        assert torch.equal(one, two)
    assert not torch.equal(base.task.batch(0, 0, 8)[0], base.task.batch(1, 0, 8)[0])
    assert not torch.equal(base.task.batch(0, 0, 8)[0], base.task.batch(0, 1, 8)[0])


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_run_and_not_the_study(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path, results = str(written()), str(tmp_path / "results")
    loss = Mazes.loss

    def broken(self: Mazes, output: Tensor, *target: Tensor) -> Tensor:
        return loss(self, output, *target) * (math.nan if broken.on else 1)  # type: ignore[attr-defined]

    broken.on = True  # type: ignore[attr-defined]
    monkeypatch.setattr(Mazes, "loss", broken)
    assert main(["run", path, "--results", results, "--arms", "base", "--seeds", "0", "--device", "cpu"]) == 0
    broken.on = False  # type: ignore[attr-defined]
    assert main(["run", path, "--results", results, "--device", "cpu"]) == 0
    first, *others = lines(tmp_path / "results")
    assert first["diverged"] and first["metrics"] == {} and first["looks"]["loss"] == [None]
    assert len(others) == 11 and not any(run["diverged"] for run in others)
    main(["status", path, "--results", results])
    assert "diverged: base 0" in capsys.readouterr().out
    assert main(["report", path, "--results", results]) == 0
    assert "Diverged: base of seed 0." in (tmp_path / "results" / "tiny.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arms", "nothing"], "--arms nothing: tiny has base, exits"),
        (["--device", "cuda"], "--device cuda: torch sees no GPU here"),
        (["--device", "foo"], "--device foo: cpu or cuda is expected"),
        (["--device", "meta"], "--device meta: cpu or cuda is expected"),
        (["--seeds", "0", "7"], "--seeds 7: tiny has [0, 1]; more are registered in its file"),
        (["--minutes", "-1"], "numbers above 0 are expected"),
        (["--threads", "0"], "numbers above 0 are expected"),
    ],
)
def test_bad_options(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert main(["run", str(written()), "--results", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_pictures_without_their_files(tmp_path: Path) -> None:
    settings = {
        "kind": "pictures", "set": "cifar10", "size": 32, "patch": 8, "shift": 4, "flip": True, "smoothing": 0.1
    }  # fmt: skip
    with pytest.raises(StudyError, match="give --data, the folder that holds cifar10/"):
        open_task(settings, None, CPU)
    with pytest.raises(StudyError, match=r"cifar10 holds no train\.parquet"):
        open_task(settings, tmp_path, CPU)
    with pytest.raises(StudyError, match="one of mazes, curves, pictures, figures, persons"):
        open_task({"kind": "sounds"}, None, CPU)
    with pytest.raises(StudyError, match=r"unknown key 'task\.colour'\. A task of kind pictures has"):
        open_task({**settings, "colour": True}, None, CPU)


@pytest.mark.slow
def test_a_run_starts_from_the_weights_of_another(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    arms = {"tuned": {"cycles": 2, "distill": "exits", "start_from": "base", "without": {
        "plain": "base itself", "equal training": "not asked", "deeper": "not asked", "narrower": "not asked",
        "narrower, equal training": "not asked",
    }}}  # fmt: skip
    path, results = str(written(arms=arms)), str(tmp_path / "results")
    caplog.set_level("INFO")
    main(["run", path, "--results", results, "--seeds", "0", "--arms", "tuned", "--device", "cpu"])
    assert "waits for the weights of base" in caplog.text
    main(["run", path, "--results", results, "--seeds", "0", "--arms", "base", "tuned", "--device", "cpu"])
    assert [run["arm"] for run in lines(tmp_path / "results")] == ["base", "tuned"]
    work = tmp_path / "results" / ".work" / "tiny"
    run = run_of(Path(path), "tuned", work)
    trained = run_of(Path(path), "base", tmp_path / "again")
    trained.go(math.inf)
    assert torch.equal(run.model.head.weight, trained.model.head.weight)


@pytest.mark.slow
def test_samples_of_a_trained_arm_stop_where_they_are_sure(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path, results = str(written()), str(tmp_path / "results")
    asked = ["adaptive", path, "--results", results, "--exits", "1", "2", "3", "--arm"]
    assert main([*asked, "exits"]) == 2
    assert "tiny has no finished run of exits" in capsys.readouterr().err
    for exits in (["2", "1"], ["0", "1"], ["1"], ["1", "1"]):
        assert main([*asked[:4], "--exits", *exits, "--arm", "exits"]) == 2
        assert "two or more numbers of cycles are expected, from 1, ascending" in capsys.readouterr().err
    main(["run", path, "--results", results, "--arms", "exits", "--device", "cpu"])
    assert main([*asked, "nothing"]) == 2
    assert "--arm nothing: tiny has base, exits" in capsys.readouterr().err
    assert main([*asked, "exits"]) == 0
    shown = capsys.readouterr().out
    assert "| each where it is sure |" in shown and "| the same, thresholds chosen by the labels" in shown
    record = json.loads((tmp_path / "results" / "tiny-adaptive.json").read_text(encoding="utf-8"))
    assert [curve["seed"] for curve in record["curves"]] == [0, 1]
    for curve in record["curves"]:  # from all as early as they can to none
        assert len(curve["by_metric"]) == 21 and curve["by_metric"][0] == curve["adaptive"][0]
        assert curve["by_metric"] != curve["adaptive"]
    # The oracle: the exit that all take, on the half that was read, by the fixed exits of the run's own network.
    run = run_of(Path(path), "exits", tmp_path / "again")
    run.go(math.inf)
    model = wrap_cyclic(run.model, 1, None, blocks="blocks").eval()  # the run took the plain model back
    for exit, (cost, percent) in record["curves"][0]["fixed"].items():
        assert cost == pytest.approx(int(exit), rel=0.1)
        right = []
        for name, given, target in run.task.test():
            if name == "4x4":
                half = len(given) // 2
                with torch.no_grad(), at_exit(model, int(exit)):
                    output = model(given[half:])
                right.append(run.task.right(output, *(each[half:] for each in target))["cells"])
        assert percent == pytest.approx(100 * torch.cat(right).mean().item(), abs=0.01)


def test_markup_in_the_words_of_a_study_is_text(written: Written, tmp_path: Path, monkeypatch: Any) -> None:
    plan = load_plan(written(question="<script>alert(1)</script> & <b>more</b>"))
    monkeypatch.setattr(study_report, "markdown", lambda plan, _: f"# {plan.name}\n\n{plan.question}\n")
    monkeypatch.setattr(study_report, "draw", lambda *_: Figure())
    study_report.write_report(plan, [{"arm": "base"}], tmp_path)  # type: ignore[list-item]
    page = Tags((tmp_path / "tiny.html").read_text(encoding="utf-8"))
    assert plan.question.strip() in page.text and not {"script", "b"} & set(page.tags)
    assert page.tags.count("h1") == 1 and ("name", "viewport") in page.attributes
