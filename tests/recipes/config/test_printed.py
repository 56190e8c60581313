"""``--print-config``: the whole recipe as YAML that reads back the same, and where each value is from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from cycledistill.commands.frame import main

pytest.importorskip("timm")
Lines = pytest.CaptureFixture[str]


def printed(capsys: Lines, *words: str) -> tuple[str, dict[str, str]]:
    """The text, and the comment of each line by the last name of its key."""
    assert main([*words, "--print-config"]) == 0
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if "  # " in line]
    return text, {line.partition(":")[0].strip(): line.rpartition("  # ")[2] for line in lines}


@pytest.mark.parametrize(
    ("command", "config"), [("coco", "sdpose_t"), ("human36m", "tpc_mixste"), ("imagenet", "deit_tiny"),
                            ("multiview", "small_generated")]
)  # fmt: skip
def test_what_is_printed_is_the_recipe(command: str, config: str, capsys: Lines, tmp_path: Path) -> None:
    import importlib

    load = importlib.import_module(f"cycledistill.integrations.{command}.recipe").load_recipe
    text, _ = printed(capsys, "train", command, "--config", config, "--epochs", "7")
    expected = load(config, {"schedule.epochs": 7})
    assert yaml.safe_load(text) == expected.to_dict()
    (tmp_path / "again.yaml").write_text(text)
    assert load(tmp_path / "again.yaml") == expected


def test_each_value_says_where_it_is_from(capsys: Lines, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("run: {eval_every: 3}\noptim: {lr: 1e-3}\ncyclic: {distill: {preset: elt}}\n")  # an older key
    text, source = printed(
        capsys, "train", "imagenet", "--config", str(file), "--epochs", "40", "--distill", "exits", "--seed", "9",
        "--set", "cyclic.distill.temperature=2", "--set", "run.seed=5", "--set", 'model.name="a: # b\\nc"',
    )  # fmt: skip
    assert source["lr"] == source["every"] == f"config {file}"
    assert source["epochs"] == "--epochs 40"
    assert source["distill"] == "--distill exits, --set cyclic.distill.temperature=2"
    assert source["seed"] == "--set run.seed=5"
    assert source["weight_decay"] == "default"
    read = yaml.safe_load(text)
    assert (read["run"]["seed"], read["model"]["name"]) == (5, "a: # b\nc")


def test_of_a_run_it_is_the_runs(capsys: Lines, tmp_path: Path) -> None:
    from cycledistill.integrations.coco.recipe import load_recipe

    stored = load_recipe(None, {"optim.lr": 0.25, "model.options": {"dim": 96}}).to_dict()
    (tmp_path / "recipe.json").write_text(json.dumps({"command": "coco", "recipe": stored}))
    text, source = printed(capsys, "evaluate", str(tmp_path), "--batch-size", "3")
    assert source["lr"] == f"run {tmp_path}"
    assert source["weight_decay"] == source["keep"] == f"default, in run {tmp_path} too"
    assert "batch_size: 3  # --batch-size 3" in text
    assert source["options"] == f"run {tmp_path}"
    assert (yaml.safe_load(text)["optim"]["lr"], yaml.safe_load(text)["model"]["options"]) == (0.25, {"dim": 96})
