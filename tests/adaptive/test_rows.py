"""Every row of an adaptive call is the row that the fixed exit gives for the whole batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cycledistill import at_exit, wrap_cyclic
from cycledistill.adaptive import AdaptiveExit
from cycledistill.cost.macs import MacCounter
from tests import toys
from tests.adaptive import models
from tests.adaptive.models import EXITS, check_rows, fixed, images, wobble, wrapped

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


ROUNDING = 1e-12  # of other batch sizes, in double precision


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (toys.ToyViT, {}),
        (toys.ToyViT, {"depth": 1}),
        (toys.TapViT, {}),
        (toys.TwoStateViT, {}),
        (toys.DictViT, {}),
        (toys.PairViT, {}),
        (toys.SlicingViT, {}),
        (toys.NormedViT, {}),
        (models.SecondAxisViT, {}),
        (models.ReadsItsInput, {}),
    ],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
def test_rows_are_those_of_the_fixed_exits(cls: type[nn.Module], options: dict[str, Any]) -> None:
    with torch.no_grad():
        check_rows(wrapped(cls, **options), images(), rtol=ROUNDING)


@pytest.mark.parametrize("shape", [(6, 4, 1), (1, 4, 1), (4, 1), (6, 1, 1)], ids=str)
def test_a_mask_is_taken_by_sample_where_it_is_one_a_sample(shape: tuple[int, ...]) -> None:
    model = wrapped(toys.ArgumentViT)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(3)).double() + 0.5
    with torch.no_grad():
        check_rows(model, images(), mask=mask, rtol=ROUNDING)


@pytest.mark.parametrize("embedded", [False, True], ids=["buffer", "made by a module"])
def test_a_shared_table_as_long_as_the_batch_stays_whole(embedded: bool) -> None:
    """Also where another size of batch came before."""
    model = wrapped(models.TableViT, length=6, embedded=embedded)
    with torch.no_grad():
        for size in (6, 5, 6):
            check_rows(model, images(size), rtol=ROUNDING)


def test_a_shared_table_among_the_arguments_stays_whole_and_one_a_sample_does_not() -> None:
    model = wrapped(models.TableViT)
    with torch.no_grad():
        check_rows(model, images(), torch.randn(6, toys.DIM).double(), rtol=ROUNDING)
        check_rows(model, images(), torch.randn(6, 6, toys.DIM).double(), rtol=ROUNDING)
        check_rows(model, images(), table=torch.randn(5, toys.DIM).double(), rtol=ROUNDING)


def test_one_adaptive_model_serves_many_kinds_of_input() -> None:
    """A table as long as the batch, then a batch of another size, then one row a sample in its place."""
    model = wrapped(models.TableViT)
    adaptive = AdaptiveExit(model, EXITS, confidence=wobble, threshold=0.0)
    tables = [torch.randn(6, toys.DIM), torch.randn(6, 6, toys.DIM), torch.randn(5, toys.DIM), torch.randn(6, toys.DIM)]
    reached = set()
    with torch.no_grad():
        for seed, (size, table) in enumerate(zip((6, 6, 6, 5), tables, strict=True)):
            x = toys.batch(seed=seed, size=size)[0]
            truth = fixed(model, EXITS, x, table.double())
            outputs, exits = adaptive(x, table.double(), return_exits=True)
            reached |= set(exits.tolist())
            expected = torch.stack([truth[each - 1][row] for row, each in enumerate(exits.tolist())])
            torch.testing.assert_close(outputs, expected, rtol=ROUNDING, atol=ROUNDING)
    assert len(reached) > 1


@pytest.mark.parametrize("exits", [(1,), (2,), (2, 4), (1, 3), (3, 4, 6)], ids=str)
def test_exits_may_leave_out_cycles_and_exceed_those_trained(exits: tuple[int, ...]) -> None:
    model = wrapped()
    with torch.no_grad():
        if len(exits) > 1:
            check_rows(model, images(), exits=exits, rtol=ROUNDING)
        else:
            torch.testing.assert_close(AdaptiveExit(model, exits)(images()), fixed(model, exits, images())[0])


@pytest.mark.parametrize(("threshold", "place"), [(0.0, 0), (float("inf"), 2), ((float("inf"), 0.0), 1)])
def test_all_sure_and_none_sure_are_the_fixed_exits_bit_for_bit(threshold: Any, place: int) -> None:
    model = wrapped()
    adaptive = AdaptiveExit(model, EXITS, threshold=threshold)
    with torch.no_grad():
        outputs, exits = adaptive(images(), return_exits=True)
        assert torch.equal(outputs, fixed(model, EXITS, images())[place])
    assert exits.tolist() == [EXITS[place]] * 6 and exits.dtype == torch.int64


def test_one_sample() -> None:
    model = wrapped()
    with torch.no_grad():
        for threshold, place in ((0.0, 0), (float("inf"), 2)):
            outputs, exits = AdaptiveExit(model, EXITS, threshold=threshold)(images(1), return_exits=True)
            assert torch.equal(outputs, fixed(model, EXITS, images(1))[place]) and exits.tolist() == [EXITS[place]]


@pytest.mark.parametrize("size", [2, 3])
def test_small_batches(size: int) -> None:
    model = wrapped()
    for seed in range(4):
        x = toys.batch(seed=seed, size=size)[0]
        with torch.no_grad():
            truth = fixed(model, EXITS, x)
            values = torch.stack([wobble(each) for each in truth], 1)
            adaptive = AdaptiveExit(model, EXITS, confidence=wobble, threshold=float(values[:, :2].median()))
            outputs, exits = adaptive(x, return_exits=True)
        expected = torch.stack([truth[each - 1][row] for row, each in enumerate(exits.tolist())])
        torch.testing.assert_close(outputs, expected, rtol=ROUNDING, atol=ROUNDING)


def test_a_confidence_that_is_nan_goes_on() -> None:
    model = wrapped()

    def unknown(output: Tensor) -> Tensor:
        return torch.tensor([1.0, float("nan")] * (len(output) // 2))

    with torch.no_grad():
        _, exits = AdaptiveExit(model, (1, 2), unknown, threshold=0.5)(images(), return_exits=True)
    assert exits.tolist() == [1, 2] * 3


def test_only_samples_that_go_on_are_computed() -> None:
    """Rows that blocks, modules before them and the head really see, and multiply-accumulates, against the promise."""
    model = wrapped(linear=toys.Counted)
    seen: dict[str, list[int]] = {"embed": [], "blocks.0": [], "head": []}
    adaptive = AdaptiveExit(model, EXITS, wobble)
    with torch.no_grad():
        models.spread(adaptive, fixed(model, EXITS, images()))
        _, exits = adaptive(images(), return_exits=True)  # with the trial of a few samples
        for name, rows in seen.items():
            model.get_submodule(name).register_forward_hook(lambda *call, rows=rows: rows.append(len(call[1][0])))
        calls = model.embed.calls
        with MacCounter(model) as counter:
            adaptive(images())
    later = [int((exits >= each).sum()) for each in EXITS]
    assert 6 == later[0] > later[1] > later[2] > 0
    assert seen["head"] == later and model.embed.calls == calls + 1
    assert adaptive.mean_cost() == pytest.approx(counter.read().total / 6 / one_cycle(model), rel=1e-12)


def one_cycle(model: nn.Module) -> float:
    with torch.no_grad(), at_exit(model, 1), MacCounter(model) as counter:
        model(images(1))
    return counter.read().total


def test_hooks_of_the_model_run_once_on_the_whole_batch() -> None:
    model = wrapped()
    seen = []
    model.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    adaptive = AdaptiveExit(model, EXITS, wobble, threshold=0.0)
    with torch.no_grad():
        adaptive(images())
    assert seen == [(6, toys.CLASSES)]


def test_gradients_flow_as_through_the_fixed_exits() -> None:
    model = wrapped()
    adaptive = AdaptiveExit(model, EXITS, wobble)
    models.spread(adaptive, fixed(model, EXITS, images()))
    outputs, exits = adaptive(images(), return_exits=True)
    outputs.square().sum().backward()
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    truth = fixed(model, EXITS, images())
    torch.stack([truth[each - 1][row] for row, each in enumerate(exits.tolist())]).square().sum().backward()
    expected = [parameter.grad for parameter in model.parameters()]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_model_is_left_as_it_was() -> None:
    model = wrapped()
    model.cyclic.exit = 2
    before = copy.deepcopy(model.state_dict())
    adaptive = AdaptiveExit(model, EXITS, wobble, threshold=0.0)
    with torch.no_grad():
        plain = model(images())
        adaptive(images())
        assert torch.equal(model(images()), plain) and model.cyclic.exit == 2
    assert model.cyclic.recorder.running is None
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert list(adaptive.state_dict()) == [f"model.{name}" for name in before]


def test_an_error_inside_leaves_the_model_usable() -> None:
    model = wrapped()

    def failing(output: Tensor) -> Tensor:
        raise RuntimeError("no")

    with torch.no_grad():
        with pytest.raises(RuntimeError, match="no"):
            AdaptiveExit(model, EXITS, failing, threshold=0.5)(images())
        assert torch.equal(model(images()), fixed(model, (1,), images())[0])


def test_a_model_that_is_set_otherwise_later_is_looked_at_again() -> None:
    """What its blocks take beside the tokens is a shared table, then one a sample, then shared again."""
    model = wrapped(models.TableViT, length=6)
    adaptive = AdaptiveExit(model, EXITS, wobble)
    with torch.no_grad():
        for of_samples in (False, True, False):
            model.of_samples = of_samples
            truth = fixed(model, EXITS, images())
            models.spread(adaptive, truth)
            outputs, exits = adaptive(images(), return_exits=True)
            assert len(set(exits.tolist())) == 3
            expected = torch.stack([truth[each - 1][row] for row, each in enumerate(exits.tolist())])
            torch.testing.assert_close(outputs, expected, rtol=ROUNDING, atol=ROUNDING)


def test_agreement_is_with_the_exit_before_of_the_same_sample() -> None:
    model, exits = wrapped(), (1, 2, 3, 4, 5)
    adaptive = AdaptiveExit(model, exits, "agreement")
    x = images(30)
    with torch.no_grad():
        truth = fixed(model, exits, x)
        values = adaptive.confidences(truth)
        threshold = [float("inf"), *(float(column.sort().values[14:16].mean()) for column in values[:, 1:].unbind(1))]
        adaptive.threshold = threshold
        outputs, reached = adaptive(x, return_exits=True)
    places = [next((place for place in range(4) if row[place] >= threshold[place]), 4) for row in values.tolist()]
    assert reached.tolist() == [exits[place] for place in places] and len(set(places)) > 2
    expected = torch.stack([truth[place][row] for row, place in enumerate(places)])
    torch.testing.assert_close(outputs, expected, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_224"])
def test_timm_models(name: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    side = 28 if "14" in name else 32
    model = wrap_cyclic(timm.create_model(name, img_size=side, num_classes=7, depth=2), 3, "exits").double().eval()
    with torch.no_grad():
        check_rows(model, torch.randn(4, 3, side, side).double(), rtol=1e-9)


@pytest.mark.slow
def test_rotary_tables_as_long_as_the_batch_stay_whole() -> None:
    """Four patches, and four images: the table is (4, C)."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    for name in ("eva02_tiny_patch14_224", "vit_small_patch16_dinov3"):
        side = 28 if "14" in name else 32
        model = timm.create_model(name, img_size=side, num_classes=7, depth=2)
        model = wrap_cyclic(model, 3, "exits").double().eval()
        with torch.no_grad():
            check_rows(model, torch.randn(4, 3, side, side).double(), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("keep", [0.5, 1.0])
def test_with_pruning_rows_keep_their_tokens(keep: float) -> None:
    pytest.importorskip("timm")
    from cycledistill import wrap_pruning
    from tests.prune.oracle import images as pictures
    from tests.prune.oracle import vit

    torch.manual_seed(0)
    model = wrap_cyclic(wrap_pruning(vit(), layers=(1, 2), keep=keep), 3, "exits").eval()
    with torch.no_grad():
        check_rows(model, pictures(6), rtol=1e-9)
        model(pictures(6))


@pytest.mark.slow
def test_hugging_face_models() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        num_labels=5,
    )  # fmt: skip
    model = wrap_cyclic(transformers.ViTForImageClassification(config), 3, "exits").double().eval()
    pixels = torch.randn(6, 3, 32, 32).double()
    with torch.no_grad():
        check_rows(model, pixel_values=pixels, rtol=1e-9)
        check_rows(model, pixel_values=pixels, output_hidden_states=True, rtol=1e-9)
        adaptive = AdaptiveExit(model, threshold=0.2)
        assert adaptive(pixel_values=pixels).logits.shape == (6, 5)
        with pytest.raises(TypeError, match=r"output at .*loss.* is a tensor \(\)"):
            adaptive(pixel_values=pixels, labels=torch.zeros(6, dtype=torch.long))


@pytest.mark.parametrize("more", [(), (6, 1)], ids=["a table", "a table and a mask a sample"])
def test_a_table_that_is_constant_in_the_first_call_teaches_nothing(more: tuple[int, ...]) -> None:
    class Masked(models.TableViT):
        def forward(self, x: Tensor, table: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
            return super().forward(x if mask is None else x * mask[..., None], table)

    adaptive = AdaptiveExit(wrapped(Masked), EXITS, wobble)
    rest = [torch.rand(more).double()] if more else []
    with torch.no_grad():
        for table in (torch.zeros(6, toys.DIM), torch.randn(6, toys.DIM), torch.zeros(6, toys.DIM)):
            truth = fixed(adaptive.model, EXITS, images(), table.double(), *rest)
            models.spread(adaptive, truth)
            outputs, exits = adaptive(images(), table.double(), *rest, return_exits=True)
            assert len(set(exits.tolist())) == 3
            expected = torch.stack([truth[each - 1][row] for row, each in enumerate(exits.tolist())])
            torch.testing.assert_close(outputs, expected, rtol=ROUNDING, atol=ROUNDING)


def test_only_so_many_kinds_of_input_are_remembered_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    class Scaled(toys.ToyViT):
        def forward(self, x: Tensor, scale: float) -> Tensor:
            return super().forward(x) * scale

    adaptive = AdaptiveExit(wrapped(Scaled), (1, 2), threshold=0.0)
    with torch.no_grad():
        for number in range(16):
            adaptive(images(2), 1.0 + number)
        assert not caplog.messages
        for number in range(16, 20):
            adaptive(images(2), 1.0 + number)
    assert len(adaptive._forward._layouts) == 16
    (said,) = caplog.messages
    assert "more than 16 kinds of input" in said and "as tensors" in said
