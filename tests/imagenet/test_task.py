"""The contract with timm's tasks (checked against the installed timm)."""

from __future__ import annotations

import inspect

import pytest
import timm
import torch
from timm.task import ClassificationTask, TrainingTask, resume_task_checkpoint
from timm.utils import CheckpointSaver

from cycledistill import CycleLoss, Distill, wrap_cyclic
from cycledistill.integrations.imagenet.task import CyclicTask


def tiny_vit():
    torch.manual_seed(0)
    return timm.create_model("test_vit", img_size=32, num_classes=5, depth=2)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, 32, 32, generator=generator), torch.tensor([0, 1, 2, 3])


def test_signature_covers_timms():
    ours, theirs = (inspect.signature(cls.__init__).parameters for cls in (CyclicTask, ClassificationTask))
    assert set(theirs) <= set(ours)
    assert list(inspect.signature(CyclicTask.forward).parameters) == list(
        inspect.signature(TrainingTask.forward).parameters
    )


def test_result_names_every_term(batch):
    distill = Distill(token_weight=0.5, output_weight=2.0)
    task = CyclicTask(tiny_vit(), cycles=2, distill=distill, criterion_kwargs={"smoothing": 0.1}, verbose=False)
    result = task.train()(*batch)
    assert set(result) == {"loss", "output", "task_1", "task_2", "token_prefix", "token_patch", "output_loss"}
    assert result["output"].shape == (4, 5)  # the logits, not the distillation term of that name
    parts = [value for name, value in result.items() if name not in ("loss", "output")]
    assert torch.equal(result["loss"], sum(parts[1:], parts[0]))
    model = wrap_cyclic(tiny_vit(), 2, distill)
    out = model(batch[0])
    assert torch.equal(result["output"], out[0])
    assert torch.equal(result["loss"], CycleLoss(timm.loss.LabelSmoothingCrossEntropy(0.1))(out, batch[1]))


def test_eval_result_is_the_plain_models(batch):
    task = CyclicTask(tiny_vit(), cycles=3, distill="exits", verbose=False).eval()
    result = task(*batch)
    plain = tiny_vit().eval()(batch[0])
    assert torch.equal(result["output"], plain)
    assert torch.equal(result["loss"], torch.nn.functional.cross_entropy(plain, batch[1]))


def test_one_cycle_trains_as_timms_own_task(batch):
    losses = []
    for task in (
        CyclicTask(tiny_vit(), cycles=1, distill=None, verbose=False),
        ClassificationTask(tiny_vit(), verbose=False),
    ):
        optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)
        for _ in range(3):
            result = task.train()(*batch)
            optimizer.zero_grad()
            result["loss"].backward()
            optimizer.step()
            losses.append(result["loss"].detach())
    assert torch.equal(torch.stack(losses[:3]), torch.stack(losses[3:]))


def train_step(task, batch):
    optimizer = torch.optim.AdamW(task.get_trainable_module().parameters(), lr=1e-3)
    task.train()(*batch)["loss"].backward()
    torch.nn.utils.clip_grad_norm_(task.get_clip_parameters(), 1.0)
    optimizer.step()
    task.update_ema(step=1)
    return optimizer


def test_ema_and_plain_keys(batch):
    task = CyclicTask(tiny_vit(), verbose=False)
    task.setup_ema(decay=0.5)
    start = {name: value.clone() for name, value in tiny_vit().state_dict().items()}
    train_step(task, batch)
    task.update_ema(step=10)
    states = {**task.get_checkpoint_state(), **task.get_checkpoint_state(ema=True)}
    for name in ("state_dict", "state_dict_ema"):
        assert list(states[name]) == list(start)
        timm.create_model("test_vit", img_size=32, num_classes=5, depth=2).load_state_dict(states[name], strict=True)
    assert not torch.equal(states["state_dict"]["head.weight"], start["head.weight"])
    average = task.get_eval_model(ema=True).module.eval()
    assert average(batch[0]).shape == (4, 5)
    assert average.cyclic.cycles == 2


@pytest.mark.slow
@pytest.mark.usefixtures("cuda_in_use")
def test_compiled_task_equals_eager(batch):
    eager, compiled = (CyclicTask(tiny_vit(), verbose=False) for _ in range(2))
    torch._dynamo.reset()
    compiled.compile(backend="eager", fullgraph=True)
    a, b = eager.train()(*batch), compiled.train()(*batch)
    a["loss"].backward()
    b["loss"].backward()
    assert torch.equal(a["loss"], b["loss"])
    for p, q in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    assert list(compiled.get_checkpoint_state()["state_dict"]) == list(eager.get_checkpoint_state()["state_dict"])


def test_timms_own_checkpoints(batch, tmp_path):
    task = CyclicTask(tiny_vit(), verbose=False)
    optimizer = train_step(task, batch)
    saver = CheckpointSaver(None, optimizer, task=task, checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path))
    saver.save_checkpoint(0)
    again = CyclicTask(tiny_vit(), verbose=False)
    resume_task_checkpoint(again, str(tmp_path / "last.pth.tar"), log_info=False)
    assert again.get_checkpoint_state()["state_dict"].keys() == tiny_vit().state_dict().keys()
    for p, q in zip(task.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)
