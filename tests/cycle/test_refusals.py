"""Bad input gives a clear error, the advice in it works, and nothing is left half wrapped."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cycledistill import CycleOutput, Distill, StackError, unwrap_cyclic, wrap_cyclic
from cycledistill.stack.find import find_stacks
from tests import toys
from tests.oracle import Truth, assert_same, snapshot


class TwoWidths(toys.ToyViT):
    """The second of four blocks widens the tokens."""

    def __init__(self) -> None:
        super().__init__()
        wide = 2 * toys.DIM
        self.blocks = nn.ModuleList(
            [toys.Block(), toys.Block(out=wide), toys.Block(wide), toys.Block(wide)],
        )
        self.norm = nn.LayerNorm(wide)
        self.head = nn.Linear(wide, toys.CLASSES)


class Between(toys.ToyViT):
    """Something sits between block 1 and block 2."""

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for i, block in enumerate(self.blocks):
            x = block(x if i != 2 else x + 1)
        return self.norm(x)


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


def refused(model: nn.Module, match: str, error: type[Exception] = StackError, **options: Any) -> str:
    """Wraps, expects the refusal, and checks that the model is as it was and still works."""
    before = snapshot(model)
    options = {"cycles": 2, **options}
    with pytest.raises(error, match=match) as caught:
        wrap_cyclic(model, **options)
    assert snapshot(model) == before, "the refusal left the model half wrapped"
    assert not isinstance(getattr(model, "cyclic", None), CycleOutput)
    return str(caught.value)


@pytest.mark.parametrize("cycles", [0, -1, 2.0, 1.5, "2", None, True])
def test_cycles_that_are_no_count(cycles: object) -> None:
    message = refused(toys.make(), re.escape(repr(cycles)), cycles=cycles)
    assert "cycles" in message


@pytest.mark.parametrize("name", ["sdpos", "", "SDPose", 3, 0.5])
def test_unknown_preset(name: object) -> None:
    message = refused(toys.make(), re.escape(repr(name)), (ValueError, TypeError), distill=name)
    assert "preset" in message
    if isinstance(name, str):
        assert all(repr(preset) in message for preset in ("sdpose", "exits", "elt", "mct"))


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0)])
def test_weights_of_the_wrong_length(weights: tuple[float, ...]) -> None:
    message = refused(toys.make(), r"task_weights", ValueError, distill=Distill(task_weights=weights))
    assert re.search(rf"{len(weights)}\b.*2 cycles", message)


def test_weights_of_the_wrong_length_after_a_change_of_cycles() -> None:
    model = wrap_cyclic(toys.make(), 2, distill=Distill(task_weights=(1.0, 0.5)))
    with pytest.raises(ValueError, match=r"task_weights.*3 cycles"):
        model.cyclic.cycles = 3
        model(toys.batch()[0])
    model.cyclic.cycles = 2
    assert model(toys.batch()[0]).task_weights == (1.0, 0.5)


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("layers", "layers"),
        ("block", "blocks"),  # the nearest name
        ("encoder.blocks", "encoder"),
        ("blocks.7", "blocks.7"),
        ("head", "(?i)leaf|holds no blocks"),
        ("blocks.0.norm1", "(?i)leaf|holds no blocks"),
        ("blocks[2:2]", "blocks"),
        ("blocks[1:9]", "3 blocks"),
        ("blocks[3:1]", "3 blocks"),
        ("blocks[-2:]", r"blocks\[-2:\]"),
        ("blocks[::2]", r"blocks\[::2\]"),
        ("blocks[1]", r"blocks\[1\]"),
        ("", "path"),
        ("cls_token", "cls_token"),
        ("num_classes", "num_classes"),
    ],
)
def test_path_that_names_no_stack(path: str, match: str) -> None:
    refused(toys.make(), match, blocks=path)


@pytest.mark.parametrize("path", [None, 3, ["blocks"], nn.ModuleList()])
def test_path_of_another_type(path: object) -> None:
    refused(toys.make(), "blocks", (StackError, TypeError), blocks=path)


def test_empty_container() -> None:
    refused(toys.make(depth=0), "(?i)leaf|no blocks|holds no", blocks="blocks")
    refused(toys.make(depth=0), "(?i)no stack|no attention stack")


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


@pytest.mark.parametrize(
    ("groups", "match"),
    [
        ({"a": slice(0, 9)}, "out of range|5 tokens"),
        ({"a": slice(5, None)}, "empty|out of range"),
        ({"a": slice(0, 3), "b": slice(2, 5)}, "overlap"),
        ({"a": slice(3, 2)}, "empty|out of range"),
    ],
)
def test_token_groups_that_do_not_fit_are_refused_at_the_forward(groups: dict[str, slice], match: str) -> None:
    model = wrap_cyclic(toys.make(), 2, tokens=groups)
    with pytest.raises(StackError, match=match) as caught:
        model(toys.batch()[0])
    assert "'a'" in str(caught.value)


@pytest.mark.parametrize(
    "groups", [{}, {"a": 3}, {"a": slice(0, 4, 2)}, {1: slice(0, 1)}, [slice(0, 1)], "prefix", {"a": slice("x", None)}]
)
def test_token_groups_of_another_type(groups: object) -> None:
    refused(toys.make(), "tokens", (StackError, TypeError), tokens=groups)


def test_token_groups_that_do_not_fit_are_refused_at_once_where_the_shape_is_known() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_vit", img_size=32)
    refused(model, "out of range|5 tokens", tokens={"a": slice(0, 17)})
    refused(model, "overlap", tokens={"a": slice(0, 3), "b": slice(1, 5)})


def test_token_groups_on_another_layout() -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("samvit_base_patch16", img_size=64)
    refused(model, r"\(B, N, C\)", tokens={"a": slice(0, 1)})
    two_states = wrap_cyclic(toys.make(toys.TwoStateViT), 2, blocks="blocks", tokens={"a": slice(0, 1)})
    with pytest.raises(StackError, match=r"tokens"):
        two_states(toys.batch()[0])


def test_weight_for_a_group_that_does_not_exist() -> None:
    scheme = Distill(token_weight={"keypoint": 0.1})
    message = refused(toys.make(), "keypoint", ValueError, distill=scheme, tokens={"query": slice(0, 1)})
    assert "query" in message


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


@pytest.mark.parametrize("thing", [None, "vit", torch.zeros(3), toys.ToyViT])
def test_things_that_are_no_module(thing: object) -> None:
    with pytest.raises((StackError, TypeError), match="Module"):
        wrap_cyclic(thing, 2)


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


EDITS = {
    "replaced block": lambda m: m.blocks.__setitem__(1, toys.Block().double()),
    "replaced container": lambda m: setattr(m, "blocks", nn.ModuleList(toys.Block().double() for _ in range(3))),
    "copied container": lambda m: setattr(m, "blocks", copy.deepcopy(m.blocks)),
    "removed block": lambda m: m.blocks.__delitem__(1),
    "removed last": lambda m: m.blocks.__delitem__(2),
    "pruned": lambda m: setattr(m, "blocks", m.blocks[:2]),
    "appended block": lambda m: m.blocks.append(toys.Block().double()),
    "inserted block": lambda m: m.blocks.insert(0, toys.Block().double()),
    "swapped order": lambda m: setattr(m, "blocks", nn.ModuleList([m.blocks[1], m.blocks[0], m.blocks[2]])),
    "emptied": lambda m: setattr(m, "blocks", nn.ModuleList()),
    "removed container": lambda m: delattr(m, "blocks"),
    "identity": lambda m: m.blocks.__setitem__(0, nn.Identity()),
}


@pytest.mark.parametrize("edit", EDITS)
def test_edited_model_is_refused(edit: str) -> None:
    x, _ = toys.batch()
    for prepare in (lambda m: m.train(), lambda m: m.eval(), lambda m: (m.eval(), setattr(m.cyclic, "exit", 2))):
        model = wrap_cyclic(toys.make(), 2)
        EDITS[edit](model)
        prepare(model)
        with pytest.raises(StackError, match="edited|wrapped|blocks"):
            model(x)


def test_pruned_timm_model_is_refused() -> None:
    timm = pytest.importorskip("timm")
    x = torch.randn(2, 3, 32, 32)
    for mode in ("train", "eval", "exit"):
        model = wrap_cyclic(timm.create_model("test_vit", img_size=32), 2)
        model.prune_intermediate_layers([2], prune_norm=False, prune_head=False)
        if mode != "train":
            model.eval().cyclic.exit = {"eval": 1, "exit": 2}[mode]
        with pytest.raises(StackError, match="edited|wrapped"):
            model(x)
        unwrap_cyclic(model)
        assert len(wrap_cyclic(model.train(), 2)(x)) == 2


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


def proposals(message: str) -> list[str]:
    """The blocks= arguments of the calls a message proposes (what stands after its listing of candidates)."""
    return re.findall(r'blocks="([^"]+)"', message)


def works(model: nn.Module, path: str, x: Tensor) -> bool:
    model = copy.deepcopy(model)
    try:
        return len(wrap_cyclic(model, 2, blocks=path)(x)) == 2
    except StackError:
        return False


def test_every_candidate_in_a_refusal_works() -> None:
    model = toys.make(toys.TwoStageViT)
    paths = proposals(refused(model, "Candidates"))
    assert sorted(set(paths)) == ["stages.0", "stages.1"]
    assert all(works(model, path, toys.batch()[0]) for path in paths)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "pit_ti_224", "pvt_v2_b0", "mvitv2_tiny", "convit_tiny", "hiera_tiny_224"]
)
def test_every_candidate_of_a_timm_model_works(name: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name)
        x = torch.randn(1, 3, 224, 224)
    paths = set(proposals(refused(model, "Candidates")))
    assert len(paths) >= 1
    for path in sorted(paths):
        assert works(model, path, x), f'the refusal lists blocks="{path}", and that call does not work'


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "efficientnet_b0"])
def test_the_call_proposed_for_a_convolutional_network_works(name: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name)
        x = torch.randn(2, 3, 224, 224)
    (path,) = proposals(refused(model, "no attention stack"))
    assert works(model, path, x)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "path"), [("convit_tiny", "blocks"), ("hiera_tiny_224", "blocks"), ("mvitv2_tiny", "stages.2.blocks")]
)
def test_the_call_proposed_for_a_broken_path_works(name: str, path: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name)
        x = torch.randn(1, 3, 224, 224)
    others = [p for p in proposals(refused(model, "blocks", blocks=path)) if p != path]
    assert others, "no call is proposed, though this model has stacks that work"
    for other in others:
        assert works(model, other, x), f'the refusal proposes blocks="{other}", and that call does not work'


@pytest.mark.parametrize("cls", [Between, TwoWidths])
def test_the_call_proposed_at_the_first_forward_works(cls: type[nn.Module]) -> None:
    """Here no probe ran. No call need be proposed, but one that is must work."""
    model = toys.make(cls)
    x, _ = toys.batch()
    with pytest.raises(StackError) as caught:
        wrap_cyclic(copy.deepcopy(model), 2, blocks="blocks")(x)
    for path in set(proposals(str(caught.value))) - {"blocks"}:
        assert works(model, path, x), f'the refusal proposes blocks="{path}", and that call does not work'


def test_near_names_are_proposed() -> None:
    message = refused(toys.make(), "blcks", blocks="blcks")
    assert "'blocks'" in message


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
