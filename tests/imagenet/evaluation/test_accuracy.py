"""Accuracy at every exit, counted against a hand-made count."""

from __future__ import annotations

import pytest
import timm
import torch

from cycledistill import wrap_cyclic
from cycledistill.integrations.imagenet.evaluation.accuracy import evaluate
from cycledistill.recipes.run.seeding import derive_seed, seeded


@pytest.fixture
def model():
    torch.manual_seed(0)
    return timm.create_model("test_vit", img_size=32, num_classes=8, depth=2)


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(n, 3, 32, 32, generator=generator), torch.randint(8, (n,), generator=generator)) for n in (5, 5, 2)
    ]


def test_every_exit_is_counted(model, batches, caplog):
    caplog.set_level("INFO")
    wrap_cyclic(model, 2, "exits")
    model.cyclic.exit = 2
    measured = evaluate(model.train(), batches, exits=(1, 3), progress=True)
    assert "evaluate: 0 of 3 batches" in caplog.text
    assert (list(measured), model.cyclic.exit, model.training) == ([1, 3], 2, False)
    for number, found in measured.items():
        model.cyclic.exit = number
        with torch.no_grad():
            logits = torch.cat([model(images) for images, _ in batches])
        target = torch.cat([labels for _, labels in batches])
        ranks = (logits > logits.gather(1, target[:, None])).sum(1)
        assert found["top1"] == pytest.approx(100 * (ranks < 1).float().mean().item(), abs=1e-4)
        assert found["top5"] == pytest.approx(100 * (ranks < 5).float().mean().item(), abs=1e-4)
        assert found["images"] == len(target) == 12
        assert found["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, target).item(), abs=1e-5)
    assert measured[1]["loss"] != measured[3]["loss"]


def test_a_plain_model_has_one_exit(model, batches):
    plain = evaluate(model, batches)
    assert list(plain) == [1]
    assert plain == evaluate(wrap_cyclic(model, 3), batches)
    with pytest.raises(ValueError, match="not wrapped has exit 1 only"):
        evaluate(timm.create_model("test_vit"), batches, exits=(1, 2))


def test_seeds_are_apart_and_leave_no_trace():
    assert len({derive_seed(0, a, b) for a in range(20) for b in range(20)}) == 400
    before = torch.get_rng_state()
    with seeded(3):
        first = torch.rand(3)
    with seeded(3):
        assert torch.equal(first, torch.rand(3))
    assert torch.equal(before, torch.get_rng_state())
