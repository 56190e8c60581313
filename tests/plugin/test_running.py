"""How a forward runs, and that compilers can follow the question."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cycledistill.plugin.running import has_autocast, is_eager


def test_eager_unless_a_cuda_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_eager()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not is_eager()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)  # CUDA would start by being asked
    assert is_eager()


@pytest.mark.filterwarnings("ignore:.*jit.trace:FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_not_eager_while_traced() -> None:
    seen = []

    def forward(x: Tensor) -> Tensor:
        seen.append(is_eager())
        return x

    torch.jit.trace(forward, torch.ones(1), check_trace=False)
    assert seen == [False]


@pytest.mark.usefixtures("cuda_in_use")
def test_compilers_follow_the_question_where_cuda_is_in_use() -> None:
    def forward(x: Tensor) -> Tensor:
        return x + 1 if is_eager() or not has_autocast("cuda") or has_autocast("meta") else x

    assert torch.compile(forward, fullgraph=True, backend="eager")(torch.ones(1)) == 1


@pytest.mark.usefixtures("cuda_in_use")
@pytest.mark.parametrize("query", [torch.cuda.is_current_stream_capturing, torch.cuda.current_device])
def test_the_fixture_sees_a_query_in_compiled_code(query: Callable[[], Any]) -> None:
    name = query.__name__

    def forward(x: Tensor) -> Tensor:
        return x if getattr(torch.cuda, name)() else x + 1

    with pytest.raises(Exception, match="called while compiling"):
        torch.compile(forward, fullgraph=True, backend="eager")(torch.ones(1))


def test_autocast_by_kind_of_device() -> None:
    assert has_autocast("cpu")
    assert not has_autocast("meta")
