"""Pruning against what the published code computed: kept tokens, scores, tokens, positions, one cycle and two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cycledistill import CycleOutput, wrap_cyclic, wrap_pruning
from cycledistill.integrations.coco import TokenPose, create_pose_model
from cycledistill.integrations.coco.weights.key_map import from_official
from cycledistill.prune import parts as pruned

CASE = "ppt_s_sdpose_repo"
KEYPOINTS, PATCHES, LAYERS = 17, 256, (3, 6, 9)


@pytest.fixture(scope="module")
def want() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parents[2] / "golden" / f"{CASE}.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def images(fill: Any) -> Tensor:
    return torch.from_numpy(fill.image())


@pytest.fixture
def plain(fill: Any) -> TokenPose:
    model = create_pose_model("tokenpose_s_v1")
    table = model.pos_embedding.detach()
    state = {key: table if value is None else torch.from_numpy(value) for key, value in fill.weights(CASE).items()}
    model.load_state_dict(from_official(state, model.config).model, strict=True)
    return model.eval()


def by_grid(values: Tensor | np.ndarray, index: Tensor | np.ndarray) -> np.ndarray:
    """Rows (B, n, ...) in the order of their place in the grid: near ties may swap places in ours and in theirs."""
    values, order = np.asarray(values), np.argsort(np.asarray(index), axis=1)
    return np.take_along_axis(values, order.reshape(*order.shape, *[1] * (values.ndim - 2)), axis=1)


def assert_close(got: Any, want: np.ndarray) -> None:
    """Within 1e-5 of the largest value; the golden's own gate is 1e-4."""
    got = np.asarray(got, dtype=np.float64)
    assert got.shape == want.shape
    assert np.abs(got - want).max() / np.abs(want).max() < 1e-5


def assert_cycle(maps: Tensor, tokens: Tensor, index: Tensor, want: dict[str, np.ndarray], name: str) -> None:
    grid = want["prune2_idx_grid"]
    assert_close(maps[:, ::4, ::8, ::8], want[f"{name}_hm_slice"])
    assert_close(maps.sum((2, 3)), want[f"{name}_hm_sum"])
    assert_close(tokens[:, :KEYPOINTS], want[f"{name}_kpt"])
    visual = by_grid(tokens[:, KEYPOINTS:], index)
    assert_close(visual.mean(-1), by_grid(want[f"{name}_vis_mean"], grid))
    places = np.argsort(np.argsort(grid, axis=1), axis=1)[:, ::5]  # where the golden's slice stands in grid order
    rows = np.take_along_axis(visual, places[..., None], axis=1)
    assert_close(rows, want[f"{name}_vis_slice"])


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """All scores that are computed."""
    seen: list[Tensor] = []
    original = pruned.token_scores

    def spy(*args: Any, **kwargs: Any) -> Tensor:
        seen.append(original(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(pruned, "token_scores", spy)
    return seen


@pytest.mark.slow
@torch.no_grad()
def test_scores_and_kept_sets_of_every_layer(
    plain: TokenPose, images: Tensor, want: dict[str, np.ndarray], scored: list[Tensor]
) -> None:
    before, before_golden = torch.arange(PATCHES).expand(2, -1), np.arange(PATCHES)[None].repeat(2, 0)
    embedded, positions = plain.embed(images)
    model = wrap_pruning(plain, LAYERS, 0.7, blocks="blocks", query="keypoint")
    scored.clear()  # wrapping tried it on a copy
    x, stages = embedded, []
    for number, block in enumerate(model.blocks):
        x = block(x, positions if number else None)
        if number in LAYERS:
            stages.append(model.pruning.index)
    assert [stage.shape[1] for stage in stages] == [180, 126, 89]
    for stage, index in enumerate(stages):
        golden = want[f"prune{stage}_idx_grid"]
        assert np.array_equal(np.sort(index, axis=1), np.sort(golden, axis=1))
        assert_close(by_grid(scored[stage], before), by_grid(want[f"prune{stage}_scores"], before_golden))
        before, before_golden = index, golden


@pytest.mark.slow
@torch.no_grad()
def test_one_cycle_and_the_positions_of_the_kept_tokens(
    plain: TokenPose, images: Tensor, want: dict[str, np.ndarray]
) -> None:
    model = wrap_pruning(plain, LAYERS, 0.7, query="keypoint")
    seen: dict[str, Any] = {}
    last = model.blocks[11]
    last.register_forward_pre_hook(lambda _, args: seen.update(positions=args[1]))
    last.register_forward_hook(lambda _, args, output: seen.update(tokens=output))
    maps = model(images)
    index = model.pruning.index
    assert_cycle(maps, seen["tokens"], index, want, "out")
    assert not seen["positions"][:, :KEYPOINTS].any()
    grid = want["prune2_idx_grid"]
    places = np.argsort(np.argsort(grid, axis=1), axis=1)[:, ::8]
    rows = np.take_along_axis(by_grid(seen["positions"][:, KEYPOINTS:], index), places[..., None], axis=1)
    assert_close(rows, want["comb_pos1_slice"])


@pytest.mark.slow
@pytest.mark.parametrize("order", ["prune first", "cycle first"])
@torch.no_grad()
def test_two_cycles_and_the_second_exit(
    plain: TokenPose, images: Tensor, want: dict[str, np.ndarray], order: str
) -> None:
    if order == "cycle first":
        wrap_cyclic(plain, 2, "sdpose")
    wrap_pruning(plain, LAYERS, 0.7, query="keypoint")
    if order == "prune first":
        wrap_cyclic(plain, 2, "sdpose")
    plain.train().backbone.eval()  # as the golden was made
    out = plain(images)
    assert isinstance(out, CycleOutput)
    for cycle in (1, 2):
        assert_cycle(out.outputs[cycle - 1], out.tokens[cycle - 1], plain.pruning.index, want, f"comb_c{cycle}")
    assert_close(out.losses["token_visual"] / 5e-6, want["comb_raw_mse_vis"])
    assert_close(out.losses["token_keypoint"] / 5e-6, want["comb_raw_mse_kpt"])
    plain.eval()
    assert torch.equal(plain(images), out.outputs[0])
    plain.cyclic.exit = 2
    assert torch.equal(plain(images), out.outputs[1])
