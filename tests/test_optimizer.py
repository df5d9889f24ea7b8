"""Parameter groups by what parameters are, and the learning rate's course."""

from __future__ import annotations

import pytest
import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import nn

from schnet.config import load_config
from schnet.engine.optimizer import (
    build_lr_scheduler,
    build_optimizer,
    parameter_groups,
    warmup_poly,
)


class _Adapter(nn.Module):
    """A module with parameters that only it knows to be exempt."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.zeros(3, 4))
        self.inner = nn.Linear(4, 4)
        self.table = nn.Module()
        self.table.position = nn.Parameter(torch.zeros(2, 2))

    def no_weight_decay(self) -> set[str]:
        return {"tokens", "table.position"}


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(
            [nn.LayerNorm((2, 4)), nn.GroupNorm(2, 4), LayerNorm2d(4), nn.BatchNorm2d(4)]
        )
        self.adapter = _Adapter()
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Conv2d(4, 2, 1)


def _of(model: nn.Module, groups: list[dict], key: str) -> dict[str, float]:
    """Name of each grouped parameter to its group's value; a parameter must be in one group."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    values: dict[str, float] = {}
    for group in groups:
        for parameter in group["params"]:
            assert names[parameter] not in values
            values[names[parameter]] = group[key]
    return values


def test_decay_spares_norms_biases_and_declared_parameters() -> None:
    model = _Model()
    decay = _of(model, parameter_groups(model, 1.0, 0.1), "weight_decay")
    assert {name for name, value in decay.items() if value} == {
        "adapter.inner.weight",
        "head.weight",
    }
    # LayerNorm over two axes has a matrix for a scale: the type tells, not the dimensions.
    assert decay["norms.0.weight"] == 0


def test_frozen_parameters_are_left_out_and_no_other() -> None:
    model = _Model()
    grouped = set(_of(model, parameter_groups(model, 1.0, 0.1), "lr"))
    assert grouped == {name for name, p in model.named_parameters() if p.requires_grad}


def test_lr_factor_reaches_down_to_modules_with_their_own() -> None:
    model = _Model()
    model.adapter.lr_factor = 0.1
    model.adapter.table.lr_factor = 1.0
    rates = _of(model, parameter_groups(model, 2.0, 0.1), "lr")
    assert rates["adapter.tokens"] == rates["adapter.inner.bias"] == pytest.approx(0.2)
    assert rates["adapter.table.position"] == rates["head.weight"] == 2.0


def test_shared_module_is_optimised_once() -> None:
    model = nn.Module()
    model.first = nn.Linear(2, 2)
    model.second = model.first
    groups = parameter_groups(model, 1.0, 0.1)
    assert sum(len(group["params"]) for group in groups) == 2


def test_unknown_exempt_name_is_a_defect() -> None:
    adapter = _Adapter()
    adapter.no_weight_decay = lambda: {"token"}
    with pytest.raises(ValueError, match="'token'"):
        parameter_groups(adapter, 1.0, 0.1)


def test_warmup_rises_to_one_and_poly_falls_to_zero() -> None:
    factor = warmup_poly(max_iter=110, warmup_iters=10, warmup_factor=0.2, power=2.0)
    assert factor(0) == pytest.approx(0.2)
    assert factor(5) == pytest.approx(0.6)
    assert factor(10) == 1.0
    assert factor(60) == pytest.approx(0.25)
    assert 0 < factor(109) < 1e-3
    assert factor(110) == factor(500) == 0.0


def test_schedule_without_warmup_or_longer_than_the_run() -> None:
    assert warmup_poly(10, 0, 0.1, 0.9)(0) == 1.0
    assert warmup_poly(10, 100, 0.0, 0.9)(9) == pytest.approx(0.09)


def test_config_reaches_optimizer_and_schedule() -> None:
    cfg = load_config(
        [],
        [
            *("SOLVER.BASE_LR", "0.5", "SOLVER.WEIGHT_DECAY", "0.3"),
            *("SOLVER.BETAS", "[0.7, 0.8]", "SOLVER.WARMUP_ITERS", "2"),
            *("SOLVER.WARMUP_FACTOR", "0.1", "SOLVER.MAX_ITER", "4", "SOLVER.POLY_POWER", "1.0"),
        ],
    )
    optimizer = build_optimizer(cfg, nn.Linear(2, 2))
    scheduler = build_lr_scheduler(cfg, optimizer)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.3, 0.0}
    assert optimizer.param_groups[0]["betas"] == (0.7, 0.8)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.05, 0.275, 0.5, 0.25])
