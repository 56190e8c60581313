"""Choosing frames: against the official code's results, against loops, and where numbers are degenerate."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cycledistill.hourglass.selection import most_attended, motion, pool_frames, tpc, uniform
from tests.hourglass.oracle import chosen

GOLDEN = Path(__file__).parents[1] / "golden" / "tpc.npz"
CASES = ("small_exact", "mid_mm", "long", "center")


def golden(case: str) -> dict[str, Tensor]:
    with np.load(GOLDEN) as file:
        names = [name for name in file.files if name.startswith(case)]
        found = {name.removeprefix(f"{case}_"): torch.from_numpy(np.asarray(file[name])) for name in names}
    centre, (batch, frames) = int(found["center"]), found["noise"].shape
    found["forced"] = (torch.arange(frames) == centre).expand(batch, -1)
    return found


@pytest.mark.parametrize("case", CASES)
def test_official_choice(case: str) -> None:
    given = golden(case)
    index = tpc(
        given["pooled"], given["index_sorted"].shape[1], forced=given["forced"], noise=given["noise"], exact=False
    )
    assert torch.equal(index, given["index_sorted"].long())


@pytest.mark.parametrize("case", CASES)
def test_exact_distances_with_the_same_noise(case: str) -> None:
    given = golden(case)
    index = tpc(given["pooled"], given["index_sorted"].shape[1], forced=given["forced"], noise=given["noise"])
    assert torch.equal(index, given["index_f64_exact"].long())


def test_pooling_is_the_official_one() -> None:
    given = golden("small_exact")
    torch.testing.assert_close(pool_frames(given["tokens"], "mean"), given["pooled"], rtol=1e-6, atol=1e-6)
    side_by_side = pool_frames(given["tokens"], "concat")
    assert torch.equal(side_by_side, torch.cat(given["tokens"].unbind(2), -1))


@pytest.mark.parametrize("case", CASES)
def test_without_noise_the_earlier_of_a_pair_is_the_denser(case: str) -> None:
    given = golden(case)
    centre = int(given["center"])
    keep = given["index_sorted"].shape[1]
    index = tpc(given["pooled"], keep, forced=given["forced"])
    clip = given["pooled"][0].double()
    assert index[0].tolist() == chosen(clip, keep, centre if centre >= 0 else None)


def test_every_clip_is_chosen_by_itself_and_the_same_every_time() -> None:
    x = torch.randn(4, 30, 8)
    together = tpc(x, 10)
    assert torch.equal(together, torch.cat([tpc(clip[None], 10) for clip in x]))
    assert torch.equal(together, tpc(x, 10))
    assert not torch.equal(tpc(x * 1e-3, 10, noise=torch.rand(4, 30)), tpc(x * 1e-3, 10, noise=torch.rand(4, 30)))


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_repeated_frames_are_dropped_but_for_the_first(offset: float) -> None:
    x = torch.randn(2, 20, 8) + offset
    x = torch.cat((x[:, :1].expand(-1, 9, -1), x), 1)  # frame 0 ten times, as at a padded edge
    index = tpc(x, 20)
    assert torch.equal(index, torch.tensor([0, *range(10, 29)]).expand(2, -1))


def test_a_clip_that_stands_still_keeps_its_first_frames() -> None:
    assert tpc(torch.randn(1, 1, 8).expand(1, 9, 8) * 7.3, 4).tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_scale_is_no_matter_of_underflow(scale: float) -> None:
    x = torch.cat([torch.randn(1, 6, 4) * 0.01 + centre for centre in (0.0, 1.0, 5.0)], 1)
    index = tpc(x.double() * scale, 3)
    assert [int(frame) // 6 for frame in index[0]] == ([0, 1, 2] if scale <= 1 else [int(i) // 6 for i in index[0]])
    densest = tpc(x.double() * scale, 1)
    distances = torch.cdist(x, x)[0].fill_diagonal_(torch.inf).amin(1)
    assert int(densest) == int(distances.argmin()) or scale <= 1  # far apart, density alone decides


def test_all_frames_and_one_frame() -> None:
    x = torch.randn(2, 7, 3)
    for choose in (tpc, motion, uniform):
        assert torch.equal(choose(x, 7), torch.arange(7).expand(2, -1))
        assert choose(x, 1).shape == (2, 1)


def test_in_half_precision_and_under_autocast_the_choice_is_that_of_full_precision() -> None:
    x = torch.randn(2, 40, 16)
    half = x.bfloat16()
    assert torch.equal(tpc(half, 12), tpc(half.double(), 12))
    for exact in (True, False):
        want = tpc(x, 12, exact=exact)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(tpc(x, 12, exact=exact), want)
    assert pool_frames(half[:, :, None], "mean").dtype == torch.float32


@pytest.mark.parametrize(
    ("frames", "keep", "want"),
    [(9, 3, [0, 4, 8]), (10, 1, [4]), (10, 4, [0, 3, 6, 9]), (5, 2, [0, 4]), (243, 3, [0, 121, 242])],
)
def test_uniform(frames: int, keep: int, want: list[int]) -> None:
    assert uniform(torch.zeros(2, frames, 1), keep).tolist() == [want, want]


def test_uniform_with_a_forced_frame() -> None:
    forced = torch.zeros(2, 10, dtype=torch.bool)
    forced[0, 4] = forced[1, 9] = True
    assert uniform(torch.zeros(2, 10, 1), 4, forced=forced).tolist() == [[0, 4, 6, 9], [0, 3, 6, 9]]


def test_motion() -> None:
    x = torch.tensor([0.0, 0.0, 3.0, 3.1, 7.0, 7.0])[None, :, None]
    assert motion(x, 2).tolist() == [[2, 4]]
    assert motion(x, 4).tolist() == [[0, 2, 3, 4]]  # of those that do not move, the earliest
    assert motion(x, 2, forced=torch.arange(6)[None] == 5).tolist() == [[4, 5]]


def test_most_attended_counts_what_each_frame_receives() -> None:
    heads, frames, width = 2, 7, 8
    qkv = torch.randn(3, 4, frames, 3 * width)
    received = torch.zeros(3, frames)
    for clip in range(3):
        for line in range(4):
            rows = qkv[clip, line]
            for head in range(heads):
                q = rows[:, head * 4 : head * 4 + 4]
                k = rows[:, width + head * 4 : width + head * 4 + 4]
                for query in q:
                    received[clip] += (k @ query / 2).softmax(0)
    want = received.topk(3).indices.sort().values
    assert torch.equal(most_attended([(SimpleNamespace(num_heads=heads), qkv)], 3), want)
    doubled = SimpleNamespace(num_heads=heads, scale=0.5, q_norm=nn.Identity(), k_norm=None)
    assert torch.equal(most_attended([(doubled, qkv), (doubled, qkv)], 3), want)


@pytest.mark.parametrize("keep", [0, 8, -1])
def test_keep_out_of_range(keep: int) -> None:
    for choose in (tpc, motion, uniform):
        with pytest.raises(ValueError, match="from 1 to the 7 frames"):
            choose(torch.randn(1, 7, 2), keep)


def test_frames_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"\(B, F, C\)"):
        tpc(torch.randn(7, 2), 3)
    with pytest.raises(ValueError, match="neighbours=9"):
        tpc(torch.randn(1, 7, 2), 3, neighbours=9)
