"""``Trainer`` after one line: the loss is that of all cycles, what is saved is the plain architecture."""

from __future__ import annotations

import copy
import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cycledistill import CycleLoss, Distill, StackError, unwrap_cyclic, wrap_cyclic
from cycledistill.integrations.transformers import rewrap_for_trainer, unwrap_for_trainer, wrap_for_trainer

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 8,
    "num_labels": 3,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def vit() -> Any:
    torch.manual_seed(0)
    return transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL))


def swin() -> Any:
    torch.manual_seed(0)
    config = transformers.SwinConfig(
        image_size=32, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4, num_labels=3
    )
    return transformers.SwinForImageClassification(config)


def dinov2() -> Any:
    torch.manual_seed(0)
    sizes = {name: value for name, value in SMALL.items() if name != "intermediate_size"}
    return transformers.Dinov2ForImageClassification(transformers.Dinov2Config(**sizes))


def deit() -> Any:
    torch.manual_seed(0)
    return transformers.DeiTForImageClassification(transformers.DeiTConfig(**SMALL))


class Pictures(torch.utils.data.Dataset):
    """Random pictures whose brightness tells their class."""

    def __init__(self, count: int = 16, size: int = 16) -> None:
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.arange(count) % 3
        self.images = torch.randn(count, 3, size, size, generator=generator) + self.labels[:, None, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        # Trainer must drop the column that the model does not take: it reads the signature for that.
        return {"pixel_values": self.images[index], "labels": int(self.labels[index]), "path": f"{index}.jpg"}


def arguments(folder: Path, **changes: Any) -> Any:
    options = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "seed": 0,
    }
    return transformers.TrainingArguments(**{**options, **changes})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "blocks", "size"),
    [(vit, "auto", 16), (deit, "auto", 16), (dinov2, "auto", 16), (swin, "swin.encoder.layers.1.blocks", 32)],
)
def test_training_saving_and_loading(build: Any, blocks: str, size: int, tmp_path: Path) -> None:
    model = wrap_for_trainer(build(), 2, "sdpose", blocks=blocks)
    plain = build()
    assert inspect.signature(model.forward) == inspect.signature(plain.forward)
    assert type(model).__name__ == type(plain).__name__ and list(model.state_dict()) == list(plain.state_dict())
    data = Pictures(size=size)
    trainer = transformers.Trainer(model, arguments(tmp_path), train_dataset=data, eval_dataset=data)
    done = trainer.train()
    assert done.global_step == 2 and 0 < done.training_loss < 20
    assert trainer.evaluate()["eval_loss"] > 0
    trainer.save_model(str(tmp_path / "saved"))
    loaded = type(plain).from_pretrained(str(tmp_path / "saved")).eval()
    assert type(loaded) is type(plain)
    with torch.no_grad():
        assert torch.equal(loaded(data.images[:2]).logits, model.eval()(data.images[:2]).logits)
    assert type(unwrap_for_trainer(model)) is type(plain)


def test_the_loss_is_that_of_every_cycle_and_the_output_the_first_ones() -> None:
    scheme = Distill(token_weight=0.1, normalize=True, output_weight=0.5)
    model, data = vit(), Pictures()
    truth = wrap_cyclic(copy.deepcopy(model), 3, scheme)(data.images, labels=data.labels)
    wrap_for_trainer(model, 3, scheme)
    out = model(data.images, labels=data.labels)
    torch.testing.assert_close(out.loss, CycleLoss()(truth))
    torch.testing.assert_close(out.logits, truth[0].logits)
    assert type(out) is type(truth[0])
    again = pickle.loads(pickle.dumps(model))
    torch.testing.assert_close(again(data.images, labels=data.labels).loss, out.loss)
    model.eval()
    assert torch.equal(model(data.images).logits, vit().eval()(data.images).logits)


@pytest.mark.slow
def test_a_saved_model_is_trained_on(tmp_path: Path) -> None:
    model, data = wrap_for_trainer(vit(), 3, Distill(token_weight=0.1)), Pictures()
    transformers.Trainer(model, arguments(tmp_path)).save_model(str(tmp_path / "saved"))
    plain = transformers.ViTForImageClassification.from_pretrained(str(tmp_path / "saved"))
    again = rewrap_for_trainer(plain, tmp_path / "saved").train()
    assert repr(again.cyclic) == repr(model.cyclic) and again.cyclic.distill == model.cyclic.distill
    losses = [each(data.images, labels=data.labels).loss for each in (again, model.train())]
    assert torch.equal(*losses)
    assert type(unwrap_for_trainer(again)) is type(vit())
    with pytest.raises(ValueError, match="there is no such folder"):
        rewrap_for_trainer(vit(), tmp_path / "none")


def scrambled(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("build", [vit, dinov2])
def test_resuming_restores_the_weights(build: Any, tmp_path: Path) -> None:
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-2}
    model = wrap_for_trainer(build(), 2)
    transformers.Trainer(model, arguments(tmp_path / "a", **options), train_dataset=Pictures()).train()
    other = wrap_for_trainer(scrambled(build()), 2)
    trainer = transformers.Trainer(other, arguments(tmp_path / "b", **options), train_dataset=Pictures())
    trainer.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    for (name, one), two in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two), name


@pytest.mark.slow
def test_the_best_model_is_restored(tmp_path: Path) -> None:
    data = Pictures()
    options = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 3}
    options |= {"load_best_model_at_end": True, "learning_rate": 30.0, "optim": "sgd"}  # every step makes it worse
    model = wrap_for_trainer(vit(), 2)
    trainer = transformers.Trainer(model, arguments(tmp_path, **options), train_dataset=data, eval_dataset=data)
    trainer.train()
    best = transformers.ViTForImageClassification.from_pretrained(trainer.state.best_model_checkpoint)
    for (name, one), two in zip(model.state_dict().items(), best.state_dict().values(), strict=True):
        assert torch.equal(one, two), name


def test_other_state_dicts_load_as_ever() -> None:
    model, plain = wrap_for_trainer(scrambled(vit()), 2), scrambled(vit())
    model.load_state_dict(plain.state_dict())
    assert torch.equal(model.eval()(Pictures().images).logits, plain.eval()(Pictures().images).logits)
    with pytest.raises(RuntimeError, match="nowhere"):
        model.load_state_dict({**plain.state_dict(), "nowhere": torch.zeros(1)})


def gradients_of_a_step(tmp_path: Path, batch: int, accumulation: int, scheme: Distill) -> dict[str, Tensor]:
    """The change of the weights by one step of plain gradient descent."""
    model = wrap_for_trainer(vit(), 2, scheme)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    options = arguments(
        tmp_path,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        optim="sgd",
        learning_rate=1.0,
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
    )
    transformers.Trainer(model, options, train_dataset=Pictures(8)).train()
    return {name: before[name] - p.detach() for name, p in model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [1.0, "auto"])
def test_accumulated_steps_weigh_distillation_as_one_batch_does(tmp_path: Path, tokens: Any) -> None:
    """Terms that follow the task loss are scaled in each micro-batch, by a mean over these: about the same."""
    scheme = Distill(token_weight=tokens, token_fraction=10.0, normalize=True, output_weight=1.0)
    whole, parts = (gradients_of_a_step(tmp_path, *how, scheme) for how in ((8, 1), (4, 2)))
    assert max(float(g.abs().max()) for g in whole.values()) > 1e-3
    for name, gradient in whole.items():
        if tokens != "auto":
            torch.testing.assert_close(parts[name], gradient, rtol=1e-3, atol=1e-5, msg=name)
        else:
            assert (parts[name] - gradient).norm() <= 0.2 * gradient.norm() + 1e-4, name


def test_the_mean_of_the_task_loss_outlives_a_step_and_is_no_weight() -> None:
    model = wrap_for_trainer(vit(), 2, Distill(token_weight="auto", token_fraction=0.5))
    assert list(model.state_dict()) == list(vit().state_dict()) and not list(model.named_buffers())
    plain, criterion = wrap_cyclic(vit(), 2, distill=Distill(token_weight="auto", token_fraction=0.5)), CycleLoss()
    for step in range(1, 4):  # sums of losses that grow: a mean of one step alone would be another
        given = {"pixel_values": Pictures(6).images * step, "labels": Pictures(6).labels}
        torch.testing.assert_close(model(**given).loss, criterion(plain(**given)))
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    torch.testing.assert_close(copied(**given).loss, model(**given).loss)
    unwrap_for_trainer(model)
    assert vars(model).keys() == vars(vit()).keys()


def mae() -> Any:
    torch.manual_seed(0)
    decoder = {f"decoder_{name}": SMALL[name] for name in ("hidden_size", "num_attention_heads", "num_hidden_layers")}
    config = transformers.ViTMAEConfig(**SMALL, **decoder, decoder_intermediate_size=32, mask_ratio=0.5)
    return transformers.ViTMAEForPreTraining(config)


def masked_images() -> Any:
    torch.manual_seed(0)
    return transformers.ViTForMaskedImageModeling(transformers.ViTConfig(**SMALL, encoder_stride=8))


def video_mae() -> Any:
    torch.manual_seed(0)
    decoder = {f"decoder_{name}": SMALL[name] for name in ("hidden_size", "num_attention_heads", "num_hidden_layers")}
    config = transformers.VideoMAEConfig(**SMALL, **decoder, decoder_intermediate_size=32, num_frames=4, tubelet_size=2)
    return transformers.VideoMAEForPreTraining(config)


def clip() -> Any:
    torch.manual_seed(0)
    small = {name: SMALL[name] for name in ("hidden_size", "num_attention_heads", "num_hidden_layers")}
    text = {**small, "intermediate_size": 32, "vocab_size": 20, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    vision = {**small, "intermediate_size": 32, "image_size": 16, "patch_size": 8}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision))


def adapted() -> Any:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        target_modules=["q_proj", "query"], modules_to_save=["classifier"], init_lora_weights=False
    )
    return peft.get_peft_model(vit(), config)


PIXELS = torch.randn(4, 3, 16, 16)
MASKED = torch.arange(4).repeat(4, 1) % 2 == 0
TRAINED: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "masked autoencoder": (mae, "vit.layers", {"pixel_values": PIXELS}),
    "masked images": (masked_images, "auto", {"pixel_values": PIXELS, "bool_masked_pos": MASKED}),
    "masked videos": (
        video_mae,
        "videomae.encoder.layer",
        {
            "pixel_values": PIXELS[:, None].repeat(1, 4, 1, 1, 1),
            "bool_masked_pos": torch.arange(8).repeat(4, 1) % 2 == 0,
        },
    ),
    "image and text": (
        clip,
        "vision_model.encoder.layers",
        {"pixel_values": PIXELS, "input_ids": torch.tensor([[1, 5, 2]] * 4), "return_loss": True},
    ),
    "adapters": (adapted, "auto", {"pixel_values": PIXELS, "labels": torch.arange(4) % 3}),
}


class Rows(torch.utils.data.Dataset):
    """A batch, row by row."""

    def __init__(self, batch: dict[str, Any]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 4

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {name: each[row] if isinstance(each, Tensor) else each for name, each in self.batch.items()}


@pytest.mark.parametrize(("build", "blocks", "batch"), TRAINED.values(), ids=TRAINED)
def test_the_output_says_whether_there_is_a_loss(build: Any, blocks: str, batch: dict[str, Any]) -> None:
    model = build().train()
    torch.manual_seed(1)  # masks are drawn
    truth = wrap_cyclic(copy.deepcopy(model), 2, "mct", blocks=blocks)(**batch)
    torch.manual_seed(1)
    out = wrap_for_trainer(model, 2, "mct", blocks=blocks)(**batch)
    torch.testing.assert_close(out.loss, CycleLoss()(truth))
    assert type(out) is type(truth[0]) and len(truth) == 2
    unwrap_for_trainer(model)


@pytest.mark.slow
@pytest.mark.parametrize(("build", "blocks", "batch"), TRAINED.values(), ids=TRAINED)
def test_trainer_trains_what_has_a_loss(build: Any, blocks: str, batch: dict[str, Any], tmp_path: Path) -> None:
    model = wrap_for_trainer(build(), 2, blocks=blocks)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        first = rows[0]
        return {
            name: torch.stack([row[name] for row in rows]) if isinstance(first[name], Tensor) else first[name]
            for name in first
        }

    trainer = transformers.Trainer(model, arguments(tmp_path), train_dataset=Rows(batch), data_collator=collate)
    assert 0 < trainer.train().training_loss < 100
    assert any(not torch.equal(before[name], p) for name, p in model.named_parameters() if p.requires_grad)
    trainer.save_model(str(tmp_path / "saved"))
    assert any((tmp_path / "saved").glob("*.safetensors"))


def test_models_without_a_loss() -> None:
    torch.manual_seed(0)
    backbone = wrap_for_trainer(transformers.ViTModel(transformers.ViTConfig(**SMALL)))
    expected = r"BaseModelOutputWithPooling has no loss.*with a head.*return_loss=True.*CycleLoss\(task_loss\)"
    with pytest.raises(ValueError, match=expected):
        backbone(Pictures().images)
    with pytest.raises(ValueError, match=r"CLIPOutput has no loss.*return_loss=True"):
        wrap_for_trainer(clip().train(), blocks="vision_model.encoder.layers")(
            pixel_values=PIXELS, input_ids=torch.tensor([[1, 5, 2]] * 4)
        )
    with pytest.raises(StackError, match="has no stack"):
        wrap_for_trainer(nn.Linear(2, 2))
    model = wrap_for_trainer(vit(), 2)
    with pytest.raises(ValueError, match=r"given no labels: .* label_smoothing_factor or compute_loss_func"):
        model(Pictures().images)
    with pytest.raises(ValueError, match="return_dict=False"):
        model(Pictures().images, labels=Pictures().labels, return_dict=False)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_inside_the_layers_is_exact(reentrant: bool) -> None:
    model, data = wrap_for_trainer(vit(), 2, Distill(token_weight=1.0, normalize=True)), Pictures()
    found = []
    for saves in (False, True):
        if saves:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        model.zero_grad()
        model(data.images, labels=data.labels).loss.backward()
        found.append([p.grad.clone() for p in model.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_losses_that_trainer_computes_itself_are_refused(tmp_path: Path) -> None:
    for changes, more in (({"label_smoothing_factor": 0.1}, {}), ({}, {"compute_loss_func": lambda *_, **__: 0})):
        model = wrap_for_trainer(vit(), 2)
        trainer = transformers.Trainer(model, arguments(tmp_path, **changes), train_dataset=Pictures(), **more)
        with pytest.raises(ValueError, match="see one cycle alone"):
            trainer.train()


def test_wrapping_twice_staged_models_and_nothing_to_undo() -> None:
    model = wrap_for_trainer(vit())
    with pytest.raises(StackError, match="already"):
        wrap_for_trainer(model)
    unwrap_for_trainer(model)
    with pytest.raises(StackError, match="nothing to undo"):
        unwrap_for_trainer(model)
    assert type(unwrap_for_trainer(unwrap_cyclic(wrap_for_trainer(vit())))) is transformers.ViTForImageClassification
    with pytest.raises(StackError, match=r"swin\.encoder\.layers"):
        wrap_for_trainer(swin())
