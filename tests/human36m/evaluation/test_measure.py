"""Evaluation: what is asked of the model, what counts, mirrored passes, centre frames, several processes' parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cycledistill import wrap_cyclic, wrap_hourglass
from cycledistill.integrations.human36m.data.clips import Clip, film
from cycledistill.integrations.human36m.data.motion import generate_motion
from cycledistill.integrations.human36m.data.skeleton import mirror
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.evaluation.measure import EvalSettings, evaluate, predict
from cycledistill.integrations.human36m.evaluation.metrics import MotionScores
from cycledistill.integrations.human36m.lift import lift
from cycledistill.integrations.human36m.models.registry import create_lifter

FRAMES = 9


class Oracle(nn.Module):
    """Knows the clips: answers with the truth of every window it has seen; anything else is an error."""

    def __init__(self, clips: list[Clip], depth: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.answers: dict[bytes, Tensor] = {}
        for clip in clips:
            for inputs, targets in ((clip.inputs, clip.targets), (mirror(clip.inputs), mirror(clip.targets))):
                for seen, pose in zip(inputs, targets, strict=True):
                    self.answers[(seen + 0.0).tobytes()] = torch.from_numpy(pose) * depth
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return torch.stack([torch.stack([self.answers[(f.numpy() + 0.0).tobytes()] for f in clip]) for clip in inputs])


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return film(generate_motion(3, 25) + generate_motion(1, 5, first=7), 1)


@pytest.mark.parametrize("mode", ["sequence", "centre"])
@pytest.mark.parametrize("flip", [True, False])
def test_the_truth_scores_zero_and_moves_as_much(
    clips: list[Clip], mode: Any, flip: bool, caplog: pytest.LogCaptureFixture
) -> None:
    oracle = Oracle(clips)
    caplog.set_level("INFO")
    found = evaluate(oracle, clips, settings=EvalSettings(FRAMES, mode, flip, batch_size=4), progress=True)[1]
    assert found["mpjpe_frame_mean"] < 1e-4 and found["velocity_frame_mean"] < 1e-4
    assert found["temporal_std_ratio_frame_mean"] == pytest.approx(1, abs=1e-5)
    assert found["frames"] == 25 * 3 + 5, "every frame once"
    assert set(found["actions"]) == {"walking", "waving", "squatting", "reaching"}
    windows = 3 * 3 + 1 if mode == "sequence" else 80
    assert oracle.calls == -(-windows // 4) * (2 if flip else 1)
    assert f"evaluate: 0 of {-(-windows // 4)} batches" in caplog.text


def test_the_official_way_counts_repeated_frames_too(clips: list[Clip]) -> None:
    half = Oracle(clips, depth=0.5)
    masked, official = (
        evaluate(half, clips, settings=EvalSettings(FRAMES, border=border))[1] for border in ("mask", "official")
    )
    assert (masked["frames"], official["frames"]) == (80, 90)
    by_hand = np.concatenate([np.linalg.norm(0.5 * clip.targets, axis=-1).mean(axis=-1) for clip in clips]) * 1000
    assert masked["mpjpe_frame_mean"] == pytest.approx(by_hand.mean(), rel=1e-4)
    assert official["mpjpe_frame_mean"] != pytest.approx(by_hand.mean(), rel=1e-4)
    assert masked["n_mpjpe_frame_mean"] < 1e-3
    assert masked["temporal_std_ratio_frame_mean"] == pytest.approx(0.5, rel=1e-4)


def test_mirrored_passes_average_as_by_hand(clips: list[Clip]) -> None:
    model = create_lifter("frame_lifter", frames=FRAMES, dim=16, depth=2).eval()
    inputs = torch.from_numpy(clips[0].inputs[None, :FRAMES])
    with torch.no_grad():
        back = mirror(model(torch.from_numpy(mirror(inputs.numpy()))).numpy())
        expected = (model(inputs) + torch.from_numpy(back)) / 2
    torch.testing.assert_close(predict(model, inputs, EvalSettings(FRAMES)), expected)
    assert not torch.allclose(expected, predict(model, inputs, EvalSettings(FRAMES, flip=False)), atol=1e-4)


def test_a_confidence_is_not_mirrored(clips: list[Clip]) -> None:
    seen = []

    class Listening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, inputs: Tensor) -> Tensor:
            seen.append(inputs)
            return inputs

    inputs = torch.rand(1, FRAMES, 17, 3)
    predict(Listening(), inputs, EvalSettings(FRAMES))
    assert torch.equal(seen[1][..., 2], inputs[..., [0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13], 2])


def test_centre_frames_of_an_hourglass_that_keeps_a_few(clips: list[Clip]) -> None:
    torch.manual_seed(0)
    model = create_lifter("frame_lifter", frames=FRAMES, dim=16, depth=3, mode="seq2frame").eval()
    wrap_hourglass(model, layer=1, keep=3, recover=False)
    settings = EvalSettings(FRAMES, "centre", flip=False)
    inputs = torch.from_numpy(np.stack([clip.inputs[:FRAMES] for clip in clips[:3]]))
    with torch.no_grad():
        poses, index = model(inputs), model.hourglass.index
    assert poses.shape[1] == 3
    expected = poses[index == 4][:, None]
    assert torch.equal(predict(model, inputs, settings), expected)
    with pytest.raises(LiftingDataError, match="3 poses for 9 frames.*mode 'centre'"):
        predict(model, inputs, EvalSettings(FRAMES))
    # the mirrored pass keeps the frames of the first, and the choice is free again afterwards
    indices = []
    hook = model.register_forward_hook(lambda module, args, out: indices.append(module.hourglass.index.clone()))
    predict(model, inputs, EvalSettings(FRAMES, "centre"))
    predict(model, inputs.flip(1), EvalSettings(FRAMES, "centre", flip=False))
    hook.remove()
    assert torch.equal(indices[0], indices[1])
    assert not torch.equal(indices[2], indices[0])


@pytest.mark.parametrize("mode", ["centre", "sequence"])
def test_frames_that_a_user_injected_stay(clips: list[Clip], mode: Any) -> None:
    torch.manual_seed(0)
    model = create_lifter("frame_lifter", frames=FRAMES, dim=16, depth=3).eval()
    wrap_hourglass(model, layer=1, keep=3, recover=False if mode == "centre" else "linear")
    inputs = torch.from_numpy(np.stack([clip.inputs[:FRAMES] for clip in clips[:2]]))
    given = torch.tensor([[0, 4, 8]])
    free = predict(model, inputs, EvalSettings(FRAMES, mode))
    model.hourglass.index = given
    indices = []
    hook = model.register_forward_hook(lambda module, args, out: indices.append(module.hourglass.index.clone()))
    for _ in range(2):
        found = predict(model, inputs, EvalSettings(FRAMES, mode))
        evaluate(model, clips[:1], settings=EvalSettings(FRAMES, mode))
    hook.remove()
    assert all(torch.equal(index, given) for index in indices)
    assert torch.equal(model.hourglass.index, given)
    assert not torch.equal(found, free)
    model.hourglass.index = None
    assert torch.equal(predict(model, inputs, EvalSettings(FRAMES, mode)), free), "and they can be taken away"


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"frames": 0}, "frames=0: a whole number"),
        ({"frames": 9.0}, "frames=9.0: a whole number"),
        ({"frames": True}, "frames=True"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"mode": "center"}, "mode='center': one of 'sequence', 'centre'"),
        ({"border": "foo"}, "border='foo': one of 'mask', 'official'"),
        ({"precision": "fp8"}, "precision='fp8': one of 'fp32', 'bf16', 'fp16'"),
        ({"flip": "yes"}, "flip='yes': True or False"),
    ],
)
def test_settings_that_are_none(field: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvalSettings(**{"frames": FRAMES, **field})


def test_each_exit_is_measured_and_put_back(clips: list[Clip]) -> None:
    model = wrap_cyclic(create_lifter("frame_lifter", frames=FRAMES, dim=16, depth=2), 2, blocks="levels")
    model.cyclic.exit = 2
    found = evaluate(model, clips, settings=EvalSettings(FRAMES), exits=(1, 2, 3))
    assert len({figures["mpjpe_frame_mean"] for figures in found.values()}) == 3
    assert model.cyclic.exit == 2
    with pytest.raises(ValueError, match="exit 1 only"):
        evaluate(create_lifter("frame_lifter", frames=FRAMES), clips, settings=EvalSettings(FRAMES), exits=(2,))
    with pytest.raises(LiftingDataError, match="no clips to measure on"):
        evaluate(model, [], settings=EvalSettings(FRAMES))


def test_parts_join_to_the_whole() -> None:
    draw = torch.Generator().manual_seed(0)
    poses = [torch.randn(2, 6, 17, 3, generator=draw) for _ in range(6)]
    whole, parts = MotionScores(), [MotionScores(), MotionScores()]
    for number, action in enumerate(("a", "b", "a")):
        for scores in (whole, parts[number % 2]):
            scores.add(action, poses[2 * number], poses[2 * number + 1])
    joined, expected = MotionScores.joined(parts).summary(), whole.summary()
    assert (joined["frames"], joined["sequences"]) == (expected["frames"], expected["sequences"]) == (36, 6)
    assert joined["mpjpe_frame_mean"] == pytest.approx(expected["mpjpe_frame_mean"], abs=1e-5)


@pytest.mark.parametrize("mode", ["sequence", "centre"])
@pytest.mark.parametrize("length", [4, 9, 25])
def test_lifting_a_clip_of_any_length(clips: list[Clip], mode: Any, length: int) -> None:
    clip = clips[0]
    poses = lift(Oracle(clips), clip.inputs[:length], EvalSettings(FRAMES, mode, batch_size=2))
    np.testing.assert_allclose(poses, clip.targets[:length], atol=1e-6)


class Drifting(Oracle):
    """The truth, and beside it what windows do: each sees the body further right, the later in it the further."""

    def forward(self, inputs: Tensor) -> Tensor:
        poses = super().forward(inputs)
        poses[..., 1:, 0] += 0.02 * torch.linspace(-1, 1, FRAMES)[:, None]
        return poses


def test_velocity_counts_the_steps_between_windows(clips: list[Clip]) -> None:
    """By hand: within a window all joints but the root are .005 m a step too fast, at a seam .04 m back."""
    long = [clips[0]]  # 25 frames in windows of 9, of which the first lies one before the clip and the last one behind
    found = evaluate(Drifting(clips), long, settings=EvalSettings(FRAMES, flip=False))[1]
    inside, seams = 7 + 8 + 7, 2
    expected = 1000 * 16 / 17 * (inside * 0.005 + seams * 0.04) / (inside + seams)
    assert found["velocity_frame_mean"] == pytest.approx(expected, rel=1e-4)
    assert expected > 1.5 * 1000 * 16 / 17 * 0.005, "which windows by themselves do not show"
    official = evaluate(Drifting(clips), long, settings=EvalSettings(FRAMES, flip=False, border="official"))[1]
    expected = 1000 * 16 / 17 * (24 * 0.005 + 2 * 0.04) / 26  # repeated frames count too
    assert official["velocity_frame_mean"] == pytest.approx(expected, rel=1e-4)


def test_seams_are_blended(clips: list[Clip]) -> None:
    """A step at a seam is spread over the frames that windows share."""
    clip, settings = clips[0], EvalSettings(FRAMES, flip=False)
    jumps = {}
    for overlap in (0, 3, 8, None):
        off = (lift(Drifting(clips), clip.inputs, settings, overlap=overlap) - clip.targets)[:, 1, 0]
        jumps[overlap] = float(np.abs(np.diff(off)).max())
    assert jumps[0] == pytest.approx(0.04, rel=1e-3)
    # of three shared frames the windows say what differs by six steps of .005: a quarter of that a step, less a step
    assert jumps[3] == pytest.approx(max(6 * 0.005 / 4 - 0.005, 0.005), rel=1e-3)
    assert max(jumps[8], jumps[None]) < jumps[0] / 4
    for wrong in (9, -1, 2.0, True):
        with pytest.raises(LiftingDataError, match="overlap=.*from 0 to 8"):
            lift(Drifting(clips), clip.inputs, settings, overlap=wrong)  # type: ignore[arg-type]
    with pytest.raises(LiftingDataError, match="in mode 'centre' there is a window around every frame"):
        lift(Drifting(clips), clip.inputs, EvalSettings(FRAMES, "centre"), overlap=3)


def test_pixels_are_not_lifted(clips: list[Clip]) -> None:
    with pytest.raises(LiftingDataError, match="are they pixels"):
        lift(Oracle(clips), clips[0].inputs * 500 + 500, EvalSettings(FRAMES))
