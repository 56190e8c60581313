"""Models that cannot be cycled are refused with a clear error, and nothing is left half wrapped."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cycledistill import CycleOutput, StackError, unwrap_cyclic, wrap_cyclic
from cycledistill.stack.find import find_stacks
from tests import toys
from tests.cycle.refused import Between, TwoWidths, refused
from tests.oracle import Truth, assert_same, snapshot


class OwnCyclic(toys.ToyViT):
    def __init__(self) -> None:
        super().__init__()
        self.cyclic = True


class Skipping(toys.ToyViT):
    """Runs only the blocks it is told to: early exit."""

    skip = 1

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for i, block in enumerate(self.blocks):
            x = x if i == self.skip else block(x)
        return self.norm(x)


class Twice(toys.ToyViT):
    """Runs its stack twice by itself."""

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for _ in range(2):
            for block in self.blocks:
                x = block(x)
        return self.norm(x)


def test_container_that_is_never_called_in_order() -> None:
    class Parts(nn.Module):
        """Siblings of one class used side by side, not one after another."""

        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(toys.Block() for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.parts[0](x) + self.parts[1](x)

    model = wrap_cyclic(toys.make(Parts), 2, blocks="parts")
    with pytest.raises(StackError, match="block 1 does not receive the output of block 0"):
        model(torch.randn(2, 4, toys.DIM, dtype=torch.float64))


def test_blocks_whose_shapes_differ() -> None:
    model = wrap_cyclic(toys.make(TwoWidths), 2, blocks="blocks")
    with pytest.raises(StackError, match=r"\(3, 5, 8\).*\(3, 5, 16\)"):
        model(toys.batch()[0])
    with pytest.raises(StackError, match=r"\(3, 5, 8\).*\(3, 5, 16\)"):
        model.eval().cyclic.exit = 2
        model(toys.batch()[0])


def test_two_stages_of_one_block_class() -> None:
    message = refused(toys.make(toys.TwoStageViT), "(?s)stages.1.*stages.0")
    assert "%" in message and "Block" in message


def test_convolutional_network() -> None:
    refused(toys.make(toys.ConvNet), "no attention stack")


@pytest.mark.parametrize("more", [0, 1], ids=["all of it", "a part of it"])
@pytest.mark.parametrize("path", ["auto", "", "[0:3]"])
def test_a_model_that_is_itself_the_stack(path: str, more: int) -> None:
    model = nn.Sequential(*toys.make().blocks, *(nn.Identity() for _ in range(more)))
    assert find_stacks(model) == [], "no path names that run"
    refused(model, r"^the blocks stand in the Sequential itself.*nn.Sequential\(model\)", blocks=path)
    inside = nn.Sequential(model)
    wrap_cyclic(inside, 2, blocks=find_stacks(inside)[0].path)
    assert len(inside(torch.randn(2, 4, toys.DIM, dtype=torch.float64)).outputs) == 2


def test_a_stack_of_its_own_path_is_taken_beside_a_run_in_the_model_itself() -> None:
    """As behind a stem of convolutions: what cannot be taken is in nobody's way."""
    convolutions = [nn.Conv2d(3, 3, 3, padding=1) for _ in range(2)]
    model = nn.Sequential(*convolutions, toys.make())
    assert wrap_cyclic(model, 2).cyclic.stack.path == "2.blocks"


def test_wrapping_twice() -> None:
    model = wrap_cyclic(toys.make(), 2)
    message = refused(model, "already wrapped", cycles=3)
    assert "unwrap_cyclic" in message and "cyclic.cycles" in message
    assert model.cyclic.cycles == 2 and len(model(toys.batch()[0])) == 2


def test_wrapping_a_model_with_a_wrapped_part() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = wrap_cyclic(toys.ToyViT(), 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    refused(Outer(), "already wrapped", blocks="net.blocks")


def test_wrapping_a_part_of_a_wrapped_model() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = toys.ToyViT()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    model = wrap_cyclic(Outer(), 2, blocks="net.blocks")
    before = snapshot(model)
    with pytest.raises(StackError, match="wrapped"):
        wrap_cyclic(model.net, 2)
    assert snapshot(model) == before


def test_compiled_models() -> None:
    model = toys.make()
    refused(torch.compile(model, backend="eager"), "(?i)compile")


@pytest.mark.slow
def test_model_compiled_in_place_is_right_or_refused() -> None:
    """`model.compile()` keeps the class, and compiles when called: nothing need be wrong."""
    model = toys.make()
    x, _ = toys.batch()
    want = Truth(model).cycles(2, x)
    model.compile(backend="eager")
    model(x)
    try:
        wrap_cyclic(model, 2)
    except StackError as error:
        assert "compile" in str(error)
    else:
        assert_same(model(x).outputs, want)


def test_scripted_models() -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(toys.ScriptableViT())
    with pytest.raises(StackError, match="(?i)script"):
        wrap_cyclic(scripted, 2)


def test_frozen_stack() -> None:
    model = toys.make()
    model.blocks.requires_grad_(False)
    message = refused(model, "(?i)frozen|requires_grad|gradient")
    assert "blocks" in message


def test_stack_frozen_after_wrapping() -> None:
    model = wrap_cyclic(toys.make(), 2)
    model.requires_grad_(False)
    with pytest.raises(StackError, match="(?i)frozen|requires_grad|gradient"):
        model(toys.batch()[0])


def test_partly_frozen_stack_is_fine() -> None:
    """Adapters freeze most of a stack: it still trains."""
    model = toys.make()
    model.blocks.requires_grad_(False)
    model.blocks[1].mlp[0].bias.requires_grad_(True)
    assert len(wrap_cyclic(model, 2)(toys.batch()[0])) == 2


def test_model_with_an_attribute_called_cyclic() -> None:
    message = refused(OwnCyclic(), "cyclic")
    assert "attribute" in message


def test_data_parallel_wrappers_are_refused() -> None:
    message = refused(nn.DataParallel(toys.make()), "(?i)DataParallel")
    assert ".module" in message or "wrap the model first" in message


def test_replicas_of_data_parallel_are_refused() -> None:
    """replicate() needs devices; a replica is a shallow copy with a flag, made here as torch makes it."""
    model = wrap_cyclic(toys.make(), 2)
    replica = model._replicate_for_data_parallel()
    with pytest.raises(StackError, match="DistributedDataParallel"):
        replica(toys.batch()[0])


@pytest.mark.parametrize("cls", [Skipping, Twice])
def test_forward_that_does_not_run_the_stack_once(cls: type[nn.Module]) -> None:
    model = wrap_cyclic(toys.make(cls), 2, blocks="blocks")
    x, _ = toys.batch()
    for mode in (True, False):
        model.train(mode)
        model.cyclic.exit = 2
        with pytest.raises(StackError, match=r"blocks"):
            model(x)
    model.cyclic.exit = 1
    assert isinstance(model(x), Tensor)


def test_a_second_state_that_is_made_anew_between_blocks_is_refused() -> None:
    """Chaining the first state alone would replay cycle 1's second state in every cycle, silently wrong."""

    class Encodes(toys.TwoStateViT):
        def forward(self, x: Tensor) -> Tensor:
            pixel, patch = self.embed(x), self.embed2(x[:, ::2])
            for block in self.blocks:
                pixel, patch = block(pixel, patch + 0.1)
            return self.head(torch.cat([pixel.mean(1), patch.mean(1)], dim=1))

    model = wrap_cyclic(toys.make(Encodes), 2, blocks="blocks")
    with pytest.raises(StackError, match="block 1"):
        model(toys.batch()[0])
    model.eval().cyclic.exit = 2
    with pytest.raises(StackError, match="block 1"):
        model(toys.batch()[0])


def test_a_second_output_that_nobody_takes_is_fine() -> None:
    """Attention maps returned beside the tokens are no state."""

    class WithMap(toys.Block):
        def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(x) * mask, x @ x.transpose(1, 2)

    class Maps(toys.ToyViT):
        def __init__(self) -> None:
            super().__init__(block=WithMap)

        def forward_features(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            mask = torch.full_like(x, 0.9)
            for block in self.blocks:
                x, _ = block(x, mask)
            return self.norm(x)

    model = toys.make(Maps)
    x, _ = toys.batch()
    want = Truth(model).cycles(2, x)
    assert_same(wrap_cyclic(model, 2)(x).outputs, want)


def test_stack_that_the_forward_does_not_reach() -> None:
    class Idle(toys.ToyViT):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.embed(x)).mean(1))

    model = wrap_cyclic(toys.make(Idle), 2)
    with pytest.raises(StackError, match="blocks"):
        model(toys.batch()[0])


def test_block_that_changes_its_input_in_place_is_right_or_refused() -> None:
    class InPlace(toys.Block):
        def forward(self, x: Tensor) -> Tensor:
            x += self.attn(self.norm1(x))
            x += self.mlp(self.norm2(x))
            return x

    model = toys.make(block=InPlace)
    x, _ = toys.batch()
    with torch.no_grad():
        want = Truth(model).cycles(2, x)
        try:
            out = wrap_cyclic(model, 2, blocks="blocks")(x)
        except StackError:
            return
        assert_same(out.outputs, want)


def test_refusal_in_a_forward_leaves_the_wrapped_model_whole() -> None:
    model = wrap_cyclic(toys.make(Between), 2, blocks="blocks")
    before = snapshot(model)
    with pytest.raises(StackError):
        model(toys.batch()[0])
    assert snapshot(model) == before
    assert isinstance(model.eval()(toys.batch()[0]), Tensor)
    unwrap_cyclic(model)
    assert type(model) is Between


def test_a_distillation_callable_that_fails_leaves_the_model_usable() -> None:
    def fail(out: CycleOutput) -> Tensor:
        raise RuntimeError("from the scheme")

    model = wrap_cyclic(toys.make(), 2, distill=fail)
    with pytest.raises(RuntimeError, match="from the scheme"):
        model(toys.batch()[0])
    model.cyclic.distill = None
    assert len(model(toys.batch()[0])) == 2
