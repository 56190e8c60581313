from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from tests.scripts import exit_code, load_script, run_program

SENTENCE = re.compile(
    r"  (\w+) at (\d) cycles? is (ahead of|behind|not told apart from) (\w+) at (\d) cycles?( on 9 x 9)?: "
    r"([+-][\d.]+) points \[([+-][\d.]+), ([+-][\d.]+)\], higher in (\d+) of (\d+) seeds\."
)


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_script("examples/imagenet_deit.py")


def made_up(**solved: list[list[float]]) -> dict[str, list[dict[str, Any]]]:
    """Runs of every arm; arms that are not given equal base. On larger boards, half of it is solved."""
    cost = {"base": 1.0, "base_eq": 2.9}
    return {
        arm: [
            {
                "seed": seed,
                "steps": 10,
                "cpu_seconds": cost.get(arm, 2.8),
                "solved": values,
                "solved_larger": [value / 2 for value in values],
            }
            for seed, values in enumerate(solved.get(arm, solved["base"]))
        ]
        for arm in ("base", "base_eq", "mct", "exits", "deep", "narrow_eq")
    }


@pytest.mark.slow
def test_with_no_data_it_prints_a_table_and_saves_a_picture(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(example, "TEST_BOARDS", 20)
    monkeypatch.setattr(example, "BATCH", 8)
    figure = tmp_path / "figures" / "picture.png"
    call = ["--seeds", "2", "--steps", "6", "--output", str(tmp_path / "out"), "--figure", str(figure)]
    assert example.main(call) == 0
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    with Image.open(figure) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 400
    assert str(figure) in printed
    assert "answer bit for bit" in printed
    rows = [re.split(r"\s{2,}", line.strip()) for line in printed.splitlines()]
    for arm, runs in record["runs"].items():
        shown = [row for row in rows if row[0] == arm]
        for row, key in zip(shown, ("solved", "solved_larger"), strict=True):
            solved = np.array([run[key] for run in runs])
            assert solved.shape == (2, 5)
            cells = [f"{mean:.1f} ± {std:.1f}" for mean, std in zip(solved.mean(0), solved.std(0, ddof=1), strict=True)]
            assert row[2:] == [str(runs[0]["steps"]), f"{record['training_cost'][arm]:.2f}", *cells]
    assert record["runs"]["base_eq"][0]["steps"] > 6
    assert len(SENTENCE.findall(printed)) == len(record["comparisons"])


def test_every_sentence_agrees_with_scipys_paired_test(example: ModuleType) -> None:
    draw = np.random.default_rng(0)
    level = {
        "base": [44, 24, 17, 15, 12],
        "base_eq": [51, 17, 15, 15, 15],
        "mct": [10, 50, 72, 71, 64],
        "exits": [44, 59, 65, 66, 61],
        "deep": [70, 65, 52, 45, 37],
        "narrow_eq": [60, 35, 32, 25, 17],
    }
    runs = made_up(**{arm: (np.array(means) + draw.normal(0, 4, (6, 5))).tolist() for arm, means in level.items()})
    sentences = SENTENCE.findall(example.explain(runs))
    assert len(sentences) == sum(map(len, example.QUESTIONS.values()))
    assert sum(bool(sentence[5]) for sentence in sentences) == 2
    verdicts = set()
    for left, exit, verdict, right, other, larger, mean, low, high, wins, seeds in sentences:
        key = "solved_larger" if larger else "solved"
        one = np.array([run[key][example.EXITS.index(int(exit))] for run in runs[left]])
        two = np.array([run[key][example.EXITS.index(int(other))] for run in runs[right]])
        interval = stats.ttest_rel(one, two).confidence_interval(0.95)
        assert float(mean) == pytest.approx((one - two).mean(), abs=0.051)
        assert (float(low), float(high)) == pytest.approx((interval.low, interval.high), abs=0.051)
        assert (int(wins), int(seeds)) == (sum(one > two), 6)
        expected = "ahead of" if interval.low > 0 else "behind" if interval.high < 0 else "not told apart from"
        assert verdict == expected
        verdicts.add(verdict)
    assert verdicts == {"ahead of", "behind", "not told apart from"}


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [([3.0, 4.0, 5.0], "ahead of"), ([-3.0, -4.0, -5.0], "behind"), ([-3.0, 4.0, 0.5], "not told apart from")],
)
def test_the_text_claims_no_more_than_the_interval(example: ModuleType, difference: list[float], verdict: str) -> None:
    base = [[80.0, 70.0, 60.0, 50.0, 40.0]] * 3
    exits = [[80.0 + gain, 70.0, 60.0, 50.0, 40.0] for gain in difference]
    text = example.explain(made_up(base=base, exits=exits))
    assert f"exits at 1 cycle is {verdict} base at 1 cycle" in text
    assert f"exits at 1 cycle is {verdict} base_eq at 1 cycle" in text
    assert "exits at 3 cycles is behind base_eq at 1 cycle: -20.0 points [-20.0, -20.0]" in text


def test_arms_of_a_seed_start_from_the_same_weights_and_see_the_same_boards(example: ModuleType) -> None:
    seen: dict[str, list[torch.Tensor]] = {}
    for arm in ("base", "exits"):
        model = example.build_model(arm, seed=3)
        start = next(model.parameters()).clone()
        if example.ARMS[arm][-1]:
            example.wrap_cyclic(model, cycles=example.CYCLES, distill=example.ARMS[arm][-1], blocks="blocks")
        seen[arm] = [start]
        model.embed.register_forward_pre_hook(lambda _, inputs, kept=seen[arm]: kept.append(inputs[0].clone()))
        example.train(model, steps=3, seed=3)
    assert len(seen["base"]) == 4
    assert all(torch.equal(*pair) for pair in zip(seen["base"], seen["exits"], strict=True))


def test_models_are_read_on_boards_that_none_was_trained_on(example: ModuleType) -> None:
    cells, _ = example.held_out(example.SIDE)
    draws = [torch.Generator().manual_seed(seed) for seed in range(6)]
    trained = torch.cat([example.boards(1280, example.SIDE, example.WALLS, draw)[0] for draw in draws])
    both = torch.cat([cells, trained]).flatten(1).unique(dim=0)
    assert len(both) == len(cells.flatten(1).unique(dim=0)) + len(trained.flatten(1).unique(dim=0))


def test_equal_compute_stretches_the_steps_by_the_counted_cost(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(arm: str, seed: int, steps: int) -> dict[str, Any]:
        return {"seed": seed, "steps": steps, "cpu_seconds": steps * (1.0 + seed), "solved": [1.0] * 5}

    monkeypatch.setattr(example, "run_arm", fake)
    runs = example.run_study(seeds=3, steps=100)
    many = {arm: {run["steps"] for run in runs[arm]} for arm in runs}
    assert all(many[arm] == {100} for arm in example.ARMS if arm not in example.AS_COSTLY)
    (one,), (two,) = many["base_eq"], many["narrow_eq"]
    assert one == pytest.approx(300, abs=1)  # the head is not of the stack, and small
    costs = {arm: example.counted(arm).training_step for arm in ("base", "narrow_eq")}
    assert two * costs["narrow_eq"][0].total == pytest.approx(100 * costs["base"][2].total, rel=0.01)
    assert example.training_cost(runs, "base_eq") == pytest.approx(one / 100)


def test_a_deployed_model_that_differs_is_noticed(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrapped(seed: int) -> Any:
        return example.wrap_cyclic(example.build_model("base", seed), cycles=2, blocks="blocks")

    example.check_deployed(wrapped(1), "base")

    def unwrap_and_spoil(model: Any) -> None:
        example_unwrap(model)
        model.head.bias.add_(1)

    example_unwrap = example.unwrap_cyclic
    monkeypatch.setattr(example, "unwrap_cyclic", unwrap_and_spoil)
    with pytest.raises(AssertionError, match="does not answer like"):
        example.check_deployed(wrapped(0), "base")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1"], "at least 2 seeds"),
        (["--steps", "0"], "1 step"),
        (["--seeds", "two"], "invalid int value: 'two'"),
        (["--cycles", "3", "--distill", "elt"], "--cycles, --distill: for the ImageNet recipe"),
        (["--max-steps", "0"], "needs --data"),
        (["--data", "somewhere", "--steps", "5"], "knows no --figure, --seeds, --steps, --tune"),
        (["--data", "no/such/folder", "--output", "out"], "no/such/folder"),
        (["--data", ".", "--set", "optim.lrr=1"], "optim.lr"),
        (["--evaluate", "no/such/run", "--data", "."], "no/such/run"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_arguments_are_named(
    example: ModuleType,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_code(example.main, arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("runs*"))


@pytest.mark.slow
def test_with_a_data_folder_it_trains_resumes_and_evaluates(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for index in range(4):
                pixels = draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{index}.jpg")
    small = ["--set", "model.kwargs={depth: 2, embed_dim: 24, patch_size: 16}", "--set", "model.img_size=32"]
    options = ["--data", tmp_path / "data", "--device", "cpu", "--workers", "0", "--batch-size", "4"]
    command = [
        *options,
        "--config",
        "cpu_96",
        "--output",
        tmp_path / "run",
        "--cycles",
        "3",
        "--distill",
        "exits",
        *small,
    ]
    first = run_program("examples/imagenet_deit.py", *command, "--max-steps", "2")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["step"] == 2
    # The script has run as a program; what else it does, it does in this process as well, and sooner.
    assert example.main([*map(str, command), "--max-steps", "3", "--resume", "auto"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 3
    assert example.main(["--evaluate", *map(str, (tmp_path / "run", *options))]) == 0
    assert json.loads(capsys.readouterr().out)["exits"].keys() == {"1", "2", "3", "4"}
