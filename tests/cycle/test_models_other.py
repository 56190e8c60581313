"""Models of other libraries, built small from a configuration: cycles equal the truth, eval bits are kept."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cycledistill import CycleLoss, Distill, wrap_cyclic
from tests import toys
from tests.oracle import (
    Truth,
    assert_differ,
    assert_same,
    assert_same_gradients,
    calm,
    gradients,
    scramble,
)

X = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
LABELS = torch.tensor([0, 3])
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "attention_dropout": 0.0,
    "num_labels": 5,
}


def _hf(name: str, config: str, nested: bool = False, **options: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    made = getattr(transformers, config)(**{**SMALL, **options})
    return getattr(transformers, name)(made)


def vit() -> nn.Module:
    return _hf("ViTForImageClassification", "ViTConfig")


def deit() -> nn.Module:
    return _hf("DeiTForImageClassification", "DeiTConfig")


def deit_with_teacher() -> nn.Module:
    return _hf("DeiTForImageClassificationWithTeacher", "DeiTConfig")


def dinov2() -> nn.Module:
    return _hf("Dinov2ForImageClassification", "Dinov2Config", mlp_ratio=2)


def dinov2_registers() -> nn.Module:
    return _hf("Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig", mlp_ratio=2)


def siglip() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    text = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 20,
    }
    config = transformers.SiglipConfig(vision_config=SMALL, text_config=text, num_labels=5)
    return transformers.SiglipForImageClassification(config)


def clip() -> nn.Module:
    return _hf("CLIPVisionModelWithProjection", "CLIPVisionConfig", projection_dim=8)


def torchvision_vit() -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    return models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=5)


def open_clip_tower() -> nn.Module:
    transformer = pytest.importorskip("open_clip.transformer")
    return transformer.VisionTransformer(32, 8, 16, 3, 2, 2.0, output_dim=8)


class Row(NamedTuple):
    build: Callable[[], nn.Module]
    auto: str  # what the bare call takes, as the end of the path
    depth: int = 3


ROWS = [
    Row(vit, "layers"),
    Row(deit, "layers"),
    Row(deit_with_teacher, "layers"),
    Row(dinov2, "layer"),
    Row(dinov2_registers, "layer"),
    Row(siglip, "layers"),
    Row(clip, "layers"),
    Row(torchvision_vit, "encoder.layers"),
    Row(open_clip_tower, "transformer.resblocks"),
]


def built(row: Row) -> nn.Module:
    torch.manual_seed(0)
    return scramble(calm(row.build().double()), 0.2)


def deepen(model: nn.Module, times: int) -> Callable[[], None]:
    """Some Hugging Face encoders run as many layers as their configuration says."""
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values()
    kept = [(c, c.num_hidden_layers) for c in configs if hasattr(c, "num_hidden_layers")]
    for config, depth in kept:
        config.num_hidden_layers = depth * times
    return lambda: [setattr(config, "num_hidden_layers", depth) for config, depth in kept] and None


def tensors(output: Any) -> list[Tensor]:
    """The tensors of a model's output, whatever class holds them."""
    if isinstance(output, Tensor):
        return [output]
    values = output.to_tuple() if hasattr(output, "to_tuple") else tuple(output)
    return [t for value in values for t in (tensors(value) if not isinstance(value, Tensor) else [value])]


def task(output: Any) -> Tensor:
    return sum(t.square().mean() for t in tensors(output))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.build.__name__)
def test_bare_call_equals_the_truth(row: Row) -> None:
    model = built(row)
    model.eval()
    keys, cls = list(model.state_dict()), type(model)
    with torch.no_grad():
        plain = tensors(copy.deepcopy(model)(X))
    pristine = copy.deepcopy(model)
    wrap_cyclic(model, 2, distill=None)
    stack = model.cyclic.stack
    assert stack.path.endswith(row.auto) and stack.depth == row.depth
    assert isinstance(model, cls) and type(model).__name__ == cls.__name__ and list(model.state_dict()) == keys
    truth = Truth(pristine, stack.path, adjust=deepen)
    with torch.no_grad():
        assert_same(tensors(model(X)), plain, what="eval")
        model.cyclic.exit = 2
        assert_same(tensors(model(X)), tensors(truth(2, X)), rtol=1e-12, what="exit 2")
    model.train()
    truth.model.train()
    want = truth.cycles(2, X)
    out = model(X)
    assert [type(o) for o in out.outputs] == [type(o) for o in want]
    for k in range(2):
        assert_same(tensors(out[k]), tensors(want[k]), rtol=1e-12, what=f"cycle {k + 1}")
    assert_differ(tensors(out[0]), tensors(out[1]))
    CycleLoss(task)(out).backward()
    sum(task(o) for o in want).backward()
    assert_same_gradients(gradients(model), truth.gradients(), rtol=1e-10)


@pytest.mark.parametrize("build", [vit, dinov2, siglip])
def test_hugging_face_losses_are_summed_over_cycles(build: Callable[[], nn.Module]) -> None:
    model = built(Row(build, ""))
    pristine = copy.deepcopy(model)
    wrap_cyclic(model, 2, distill=Distill(output_weight=0.5))
    truth = Truth(pristine, model.cyclic.stack.path, adjust=deepen)
    model.train()
    truth.model.train()
    out = model(X, labels=LABELS)
    want = truth.cycles(2, X, labels=LABELS)
    kl = F.kl_div(
        want[0].logits.log_softmax(-1), want[1].logits.log_softmax(-1), reduction="batchmean", log_target=True
    )
    total = want[0].loss + want[1].loss + 0.5 * kl
    loss = CycleLoss()(out)
    assert_same(loss, total, rtol=1e-12)
    loss.backward()
    total.backward()
    assert_same_gradients(gradients(model), truth.gradients(), rtol=1e-10)


@pytest.mark.parametrize("build", [vit, deit, dinov2, siglip])
def test_hidden_states_are_those_of_the_cycle(build: Callable[[], nn.Module]) -> None:
    model = built(Row(build, "")).eval()
    pristine = copy.deepcopy(model)
    wrap_cyclic(model, 2, distill=None)
    truth = Truth(pristine, model.cyclic.stack.path, adjust=deepen)
    with torch.no_grad():
        deep = truth(2, X, output_hidden_states=True).hidden_states
        assert len(deep) == 1 + 2 * 3
        first = model(X, output_hidden_states=True).hidden_states
        assert_same(list(first), list(truth(1, X, output_hidden_states=True).hidden_states), rtol=1e-12)
        model.cyclic.exit = 2
        late = model(X, output_hidden_states=True).hidden_states
        assert len(late) == len(first)
        assert_same(list(late[-3:]), list(deep[-3:]), rtol=1e-12, what="exit 2")
        model.train()
        out = model(X, output_hidden_states=True)
    assert [len(o.hidden_states) for o in out.outputs] == [len(first)] * 2
    assert_same(list(out[1].hidden_states[-3:]), list(deep[-3:]), rtol=1e-12, what="cycle 2")


def test_hugging_face_save_and_load(tmp_path: Any) -> None:
    transformers = pytest.importorskip("transformers")
    model = wrap_cyclic(vit(), 2).eval()
    model.save_pretrained(tmp_path)
    plain = transformers.ViTForImageClassification.from_pretrained(tmp_path).eval()
    assert plain.config.architectures == ["ViTForImageClassification"]
    assert type(plain) is transformers.ViTForImageClassification
    assert list(plain.state_dict()) == list(model.state_dict())
    x = X.float()
    with torch.no_grad():
        assert_same(plain(x).logits, model(x).logits)


class Encoder(nn.Module):
    """torch's own encoder, with a padding mask."""

    def __init__(self, **options: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(toys.FEATURES, toys.DIM)
        layer = nn.TransformerEncoderLayer(toys.DIM, 2, 16, dropout=0.0, batch_first=True)
        self.enc = nn.TransformerEncoder(layer, 3, **options)
        self.head = nn.Linear(toys.DIM, toys.CLASSES)

    def forward(self, x: Tensor, pad: Tensor | None = None) -> Tensor:
        y = self.enc(self.embed(x), src_key_padding_mask=pad)
        return self.head(y.mean(1) if pad is None else (y * ~pad[..., None]).sum(1))


PAD = torch.tensor([[False, False, False, True], [False, True, True, True], [False, False, False, False]])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("pad", [None, PAD], ids=["bare", "padded"])
@pytest.mark.parametrize(("path", "stack"), [("auto", "enc.layers"), ("enc.layers", "enc.layers"), ("enc", "enc")])
@pytest.mark.parametrize("nested", [True, False])
def test_torch_encoder(path: str, stack: str, pad: Tensor | None, nested: bool) -> None:
    model = toys.make(Encoder, enable_nested_tensor=nested)
    x, target = toys.batch()
    truth = Truth(model, stack)
    plain = copy.deepcopy(model).eval()
    wrap_cyclic(model, 2, distill=None, blocks=path)
    assert model.cyclic.stack.path == stack
    out, want = model(x, pad), truth.cycles(2, x, pad)
    assert_same(out.outputs, want, rtol=1e-12)
    assert_differ(out[0], out[1])
    CycleLoss(nn.CrossEntropyLoss())(out, target).backward()
    sum(F.cross_entropy(y, target) for y in want).backward()
    theirs = {name.replace("enc.module.", "enc."): g for name, g in truth.gradients().items()}
    assert_same_gradients(gradients(model), theirs, rtol=1e-11)
    model.eval()
    truth.model.eval()
    with torch.no_grad():
        assert_same(model(x, pad), plain(x, pad))
        model.cyclic.exit = 2
        late = truth(2, x, pad)
        assert_same(model(x, pad), late, rtol=1e-12, what="exit 2")


@pytest.mark.slow
@pytest.mark.parametrize("build", [vit, torchvision_vit, open_clip_tower])
@pytest.mark.usefixtures("cuda_in_use")
def test_other_models_deepcopy_and_compile(build: Callable[[], nn.Module]) -> None:
    model = wrap_cyclic(built(Row(build, "")), 2, distill=None).train()
    twin = copy.deepcopy(model)
    out = torch.compile(model, backend="eager", fullgraph=True)(X)
    assert_same([tensors(o) for o in out.outputs], [tensors(o) for o in twin(X).outputs], rtol=1e-10)
