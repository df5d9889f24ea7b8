"""Values derived from weights: made once, and again when a weight changes in any way."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

from schnet.modeling.derived import Derived


class Doubled:
    """Doubles a weight, and counts how often."""

    def __init__(self) -> None:
        self.derived = Derived()
        self.made = 0

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        def make() -> torch.Tensor:
            self.made += 1
            return 2 * weight.detach()

        return self.derived.get("doubled", (weight,), make)


def test_is_made_once() -> None:
    doubled, weight = Doubled(), nn.Parameter(torch.ones(3))
    assert torch.equal(doubled(weight), torch.full((3,), 2.0))
    assert doubled(weight) is doubled(weight)
    assert doubled.made == 1


def _load(layer: nn.Linear) -> None:
    layer.load_state_dict({"weight": torch.full((2, 2), 5.0), "bias": torch.zeros(2)})


def _assign(layer: nn.Linear) -> None:
    state = {"weight": torch.full((2, 2), 5.0), "bias": torch.zeros(2)}
    layer.load_state_dict(state, assign=True)


def _step(layer: nn.Linear) -> None:
    layer.weight.grad = torch.ones(2, 2)
    torch.optim.AdamW(layer.parameters(), lr=0.1).step()


def _write(layer: nn.Linear) -> None:
    with torch.no_grad():
        layer.weight[0, 0] = 9


def _convert(layer: nn.Linear) -> None:
    layer.double()


@pytest.mark.parametrize("change", [_load, _assign, _step, _write, _convert])
def test_is_made_again_after_a_change(change: Callable[[nn.Linear], None]) -> None:
    doubled, layer = Doubled(), nn.Linear(2, 2)
    before = doubled(layer.weight)
    change(layer)
    after = doubled(layer.weight)
    assert torch.equal(after, 2 * layer.weight) and after.dtype == layer.weight.dtype
    assert not torch.equal(after.float(), before) or change is _convert
    assert doubled.made == 2


def test_what_inference_mode_made_serves_training() -> None:
    doubled, weight = Doubled(), nn.Parameter(torch.ones(3))
    with torch.inference_mode():
        doubled(weight)
    x = torch.ones(3, requires_grad=True)
    (x * doubled(weight)).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 2.0)) and doubled.made == 1


def test_copies_and_pickles_start_empty() -> None:
    doubled, weight = Doubled(), nn.Parameter(torch.ones(3))
    doubled(weight)
    for twin in (copy.deepcopy(doubled), pickle.loads(pickle.dumps(doubled))):
        twin(weight)
        assert twin.made == 2
