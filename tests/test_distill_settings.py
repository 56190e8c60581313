"""A scheme of distillation checks its settings, and can be stored and compared."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import re
from typing import Any

import pytest
import torch

from cycledistill import Distill
from tests.oracle import assert_same

BAD = {
    "negative token weight": ({"token_weight": -1.0}, "-1.0"),
    "negative group weight": ({"token_weight": {"visual": -0.5}}, "visual.*-0.5"),
    "nan weight": ({"token_weight": math.nan}, "nan"),
    "infinite weight": ({"output_weight": math.inf}, "inf"),
    "weight beyond floating point": ({"output_weight": 10**400}, "1000"),
    "temperature beyond floating point": ({"temperature": 10**400}, "1000"),
    "temperature infinite": ({"temperature": math.inf}, "inf"),
    "text weight": ({"output_weight": "1"}, "'1'"),
    "boolean weight": ({"output_weight": True}, "True"),
    "negative output weight": ({"output_weight": -2}, "-2"),
    "negative task weight": ({"task_weights": (1.0, -1.0)}, "-1.0"),
    "no task weight": ({"task_weights": ()}, "task_weights"),
    "unknown task weights": ({"task_weights": "first"}, "'first'.*'all'.*'last'"),
    "number as task weights": ({"task_weights": 1.0}, "1.0"),
    "unknown token loss": ({"token_loss": "l1"}, "'l1'.*'mse'.*'smooth_l1'.*'cosine'"),
    "unknown output loss": ({"output_loss": "ce"}, "'ce'.*'kl'.*'mse'"),
    "unknown teacher": ({"teacher": "first"}, "'first'.*'next'.*'last'"),
    "unknown student": ({"student": "one"}, "'one'.*'all'.*'random'"),
    "temperature zero": ({"temperature": 0.0}, "0.0"),
    "temperature negative": ({"temperature": -1.0}, "-1.0"),
    "select not callable": ({"select": "logits"}, "'logits'"),
    "detach not boolean": ({"detach": "no"}, "'no'"),
    "normalize not boolean": ({"normalize": "no"}, "'no'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_scheme_checks_itself(name: str) -> None:
    options, match = BAD[name]
    with pytest.raises((ValueError, TypeError), match=match) as caught:
        Distill(**options)
    assert next(iter(options)) in str(caught.value)


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_numbers_that_integers_of_tensors_cannot_hold(loss: Any) -> None:
    scheme = Distill(token_weight=10**30, output_weight=10**30, output_loss=loss, temperature=10**30)
    pair = (torch.eye(2), torch.eye(2).flip(0))
    losses = scheme.losses(pair, (pair[0][None], pair[1][None]), {"all": slice(None)})
    assert_same(losses["token_all"], torch.tensor(1e30))
    assert losses["output"] == 1e30 if loss == "mse" else losses["output"] >= 0
    Distill(output_weight=1.0, temperature=1e200).losses(pair, pair, {})  # its square is beyond floating point


@pytest.mark.parametrize("weight", [0.1, {"visual": 0.1}])
def test_detached_raw_mse_is_refused_with_both_ways_out(weight: Any) -> None:
    with pytest.raises(ValueError, match="diverge") as caught:
        Distill(token_weight=weight, detach=True)
    message = str(caught.value)
    ways = re.findall(r"(normalize=True|detach=False)", message)
    assert set(ways) == {"normalize=True", "detach=False"}
    Distill(token_weight=weight, detach=True, normalize=True)
    Distill(token_weight=weight, detach=False)
    Distill(token_weight=weight, detach=True, token_loss="cosine")
    Distill(token_weight=0.0, detach=True)  # no token term: nothing to diverge
    with pytest.raises(ValueError, match="diverge"):
        dataclasses.replace(Distill(token_weight=weight), detach=True)


def test_a_scheme_is_frozen_comparable_and_storable() -> None:
    scheme = Distill(token_weight={"visual": 0.5}, task_weights=[1, 0.5])
    assert scheme.task_weights == (1, 0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        scheme.token_weight = 1.0
    assert pickle.loads(pickle.dumps(scheme)) == scheme == copy.deepcopy(scheme)
    stored = dataclasses.asdict(scheme)
    assert Distill(**stored) == scheme


def test_weights_of_a_dict_cannot_be_changed_behind_the_scheme() -> None:
    weights = {"visual": 0.5}
    scheme = Distill(token_weight=weights)
    weights["visual"] = -1.0
    assert scheme.token_weight == {"visual": 0.5}


def test_unknown_preset_is_named_with_the_known() -> None:
    with pytest.raises(ValueError, match="'sdpos'.*'sdpose'.*'exits'.*'elt'.*'mct'"):
        Distill.preset("sdpos")
