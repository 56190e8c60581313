"""Every lifting golden: published code's results for known weights, through our converter and our models."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cycledistill.integrations.human36m.models.lifter import Lifter
from cycledistill.integrations.human36m.models.registry import create_lifter
from cycledistill.integrations.human36m.weights.key_map import from_official, to_official
from tests.golden import fill as golden_fill

GOLDEN = Path(__file__).parents[2] / "golden"

SMALL: dict[str, Any] = {"frames": 27, "dim": 32}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "mixste_27f": ("mixste", SMALL),
    "mhformer_27f": ("mhformer", {**SMALL, "hidden": 64}),
    "motionbert_243f": ("motionbert_lite", {}),
}
# with a third of the frames kept; no golden is of the full length of TPC's 61 of 243
HOURGLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "hot_mixste_27f": ("hot_mixste", SMALL),
    "tpc_mhformer_27f": ("tpc_mhformer", {**SMALL, "hidden": 64}),
    "hot_motionbert_243f": ("hot_motionbert", {}),
}
CASES = NETWORKS | HOURGLASSES


@pytest.fixture(scope="module")
def fill() -> Any:
    return golden_fill


@cache
def golden(case: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / f"{case}.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def official_state(fill: Any, case: str) -> dict[str, torch.Tensor]:
    counter = torch.zeros((), dtype=torch.long)  # BatchNorm's, which the formulas leave alone
    return {
        key: counter.clone() if value is None else torch.from_numpy(value) for key, value in fill.weights(case).items()
    }


def filled(fill: Any, case: str, name: str, options: dict[str, Any]) -> Lifter:
    model = create_lifter(name, **options)
    model.load_state_dict(from_official(official_state(fill, case), model), strict=True)
    return model.eval()


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    """Largest difference over the largest value; the goldens' own gate is 1e-4."""
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("case", NETWORKS)
def test_hosts_give_the_published_output(fill: Any, case: str) -> None:
    want = golden(case)
    with torch.no_grad():
        got = filled(fill, case, *NETWORKS[case])(want["input"])
    assert error(got, want["output"]) < 1e-5


@pytest.mark.parametrize("case", HOURGLASSES)
def test_hourglasses_give_the_published_output(fill: Any, case: str) -> None:
    model, want, clips = filled(fill, case, *HOURGLASSES[case]), golden(case), golden(case.partition("_")[2])["input"]
    model.hourglass.index = want["index_sorted"].long()
    with torch.no_grad():
        got = model(clips)
    assert error(got, want["output"]) < 1e-5


@pytest.mark.parametrize("case", ["hot_mixste_27f", "tpc_mhformer_27f"])
def test_the_official_noise_gives_the_official_choice(fill: Any, case: str) -> None:
    model, want, clips = filled(fill, case, *HOURGLASSES[case]), golden(case), golden(case.partition("_")[2])["input"]
    model.hourglass.noise = torch.from_numpy(fill.density_noise(*clips.shape[:2]))
    with torch.no_grad():
        got = model(clips)
    assert torch.equal(model.hourglass.index, want["index_sorted"].long())
    assert error(got, want["output"]) < 1e-5


def test_the_kept_frames_of_tpc_hold_the_centre(fill: Any) -> None:
    case = "tpc_mhformer_27f"
    model, want = filled(fill, case, *HOURGLASSES[case]), golden(case)
    model.hourglass.index = want["index_sorted"].long()
    with torch.no_grad():
        centre = model.hourglass.centre_frame(model(golden("mhformer_27f")["input"]))
    at = (want["index_sorted"] == 13).int().argmax(1)
    assert error(centre, want["output"][torch.arange(2), at]) < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_every_official_name_has_one_of_ours_and_back(fill: Any, case: str) -> None:
    name, options = CASES[case]
    theirs = official_state(fill, case)
    model = filled(fill, case, name, options)
    back = to_official(model.state_dict(), model)
    assert {key: tuple(shape) for key, shape in fill.manifest()[case]["keys"]} == {
        key: tuple(tensor.shape) for key, tensor in back.items()
    }
    assert all(torch.equal(back[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("case", NETWORKS)
def test_clips_of_a_batch_do_not_see_each_other(fill: Any, case: str) -> None:
    name, options = NETWORKS[case]
    model = filled(fill, case, name, options)
    clip = golden(case)["input"][:1, :27] if case == "motionbert_243f" else golden(case)["input"][:1]
    with torch.no_grad():
        pair = model(torch.cat([clip, clip.flip(1)]))
        alone = model(clip)
    assert error(pair[:1], alone) < 1e-5
    assert error(pair[1:], alone) > 1e-3
