"""Multiply-accumulates of the pose models by every rule, against counts made on the published code."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts import load_script

# mmcv's rule, true of one cycle, true of a training forward with all cycles; G of multiply-accumulates
COUNTS = {
    "tokenpose_s_v1": (2.4039, 2.7261, None),
    "tokenpose_s_v2": (4.6735, 7.4872, None),
    "tokenpose_b": (5.9775, 6.2761, None),
    "tokenpose_l_d6": (9.7502, 9.8665, None),
    "tokenpose_l_d6_plain": (9.7414, 9.8577, None),
    "tokenpose_l_d24": (11.5655, 12.1931, None),
    "tokenpose_t": (1.2598, 1.6007, None),
    "sdpose_t": (1.7988, 1.9506, 3.5443),
    "sdpose_s_v1": (2.4039, 2.7261, 4.2985),
    "sdpose_s_v2": (4.6735, 7.4872, 13.8206),
    "sdpose_b_narrow": (5.1643, 5.4707, 7.0431),
    "distilpose_s": (2.3826, 2.7048, None),
    "sdpose_reg": (2.3826, 2.7048, 4.2559),  # SDPose-S-V1's 4.2985 with its heads exchanged
}
# With pruning, true is that of the published code, which reads the scores off the attention matrix it forms anyway.
PRUNED = {
    "ppt_s": (2.0152, 2.1862, (180, 126, 89)),
    "ppt_b": (5.5888, 5.7361, (180, 126, 89)),
    "ppt_b_narrow": (4.7756, 4.9308, (180, 126, 89)),
    "ppt_l_d6": (9.6684, 9.7575, (180,)),
}
# The rule of PPT's and TokenPose's papers
HRNET = {
    "tokenpose_s_v1_original": 2.226,
    "tokenpose_b": 5.655,
    "tokenpose_l_d6_plain": 9.065,
    "ppt_s_original": 1.614,
    "ppt_b": 5.043,
    "tokenpose_t": 1.292,
    "ppt_l_d6": 8.937,
}
# Printed figures that are not what the named models count, as known
DIFFER = {"ppt_b_narrow": {"macs"}, "ppt_l_d6": {"parameters", "macs"}}


@pytest.fixture(scope="module")
def costs() -> ModuleType:
    module = load_script("benchmarks/paper_costs.py")
    module.examine = cache(module.examine)  # type: ignore[attr-defined]  # a second or two a model
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_counts_by_both_conventions(costs: ModuleType, name: str) -> None:
    mmcv, true, train = COUNTS[name]
    record = costs.examine(name)
    assert record["mmcv"] == pytest.approx(mmcv, abs=5.1e-5)
    assert record["true"] == pytest.approx(true, abs=5.1e-5)
    assert record["train"] == (train if train is None else pytest.approx(train, abs=5.1e-5))


@pytest.mark.slow
@pytest.mark.parametrize("name", PRUNED)
def test_counts_of_pruned_models(costs: ModuleType, name: str) -> None:
    mmcv, true, left = PRUNED[name]
    record = costs.examine(name)
    # Our scores are a product of their own: 17 rows, over the tokens in front of each pruning.
    before = (256, *left[:-1])
    scores = sum(17 * (17 + tokens) * 192 for tokens in before) / 1e9
    assert record["mmcv"] == pytest.approx(mmcv, abs=1e-4)
    assert record["true"] - scores == pytest.approx(true, abs=5.1e-5)


@pytest.mark.parametrize("name", HRNET)
def test_counts_by_the_rule_of_the_older_papers(costs: ModuleType, name: str) -> None:
    assert costs.examine(name)["hrnet"] == pytest.approx(HRNET[name], abs=5.1e-4)


@pytest.mark.parametrize("name", ["views apart", "last two layers fused", "last two layers fused, unpruned"])
def test_counts_of_several_views(costs: ModuleType, name: str) -> None:
    options, official, _ = costs.MULTIVIEW[name]
    record = costs.examine_multiview(name)
    # The published code reads the scores off the attention matrix that it forms anyway; the fused kernel forms none.
    scores = 0 if options["keep"] == 1 else 4 * 17 * 192 * sum(17 + tokens for tokens in (256, 180, 126)) / 1e9
    assert record["true"] - scores == pytest.approx(official, abs=6e-4)
    assert record["agrees"]


def test_transformer_alone(costs: ModuleType) -> None:
    assert costs.examine("tokenpose_b")["transformer"] == pytest.approx(1.4446, abs=5e-5)
    assert costs.examine("tokenpose_l_d6_plain")["transformer"] == pytest.approx(0.7223, abs=5e-5)
    assert costs.examine("ppt_s")["transformer"] == pytest.approx(0.896, abs=5e-4)


@pytest.mark.slow
def test_printed_figures_agree_where_they_should(costs: ModuleType) -> None:
    off = {}
    for name in costs.PRINTED:
        for printed in costs.examine(name)["printed"]:
            differing = {what for what, agrees in printed["agrees"].items() if not agrees}
            if differing:
                off[name] = differing
    assert off == DIFFER


def test_the_command_prints_a_table_and_writes_json(
    costs: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "costs.json"
    assert costs.main(["--names", "sdpose_t", "ppt_b_narrow", "--out", str(out)]) == 0
    records = {record["name"]: record for record in json.loads(out.read_text())["models"]}
    assert records["sdpose_t"]["parameters"] == 4_447_680
    printed = capsys.readouterr().out
    assert "SDPose 4.4 / 1.8 by mmcv: agrees" in printed
    assert "SDPose 13.2 / 4.7 by mmcv: DIFFERS: macs" in printed


def test_an_unknown_name_stops_the_command(costs: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        costs.main(["--names", "sdpose_x"])
    assert "nearest" in capsys.readouterr().err
