"""One step: the update, clipping, autocast, and the stop at numbers that are not finite."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from schnet.engine.step import StepTrainer
from schnet.errors import InputError

Batch = list[dict[str, Any]]


class _Model(nn.Module):
    """Losses that are linear in one weight: the gradients are the batch's values."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.linear = nn.Linear(2, 2).requires_grad_(False)
        self.seen_dtype: torch.dtype | None = None

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        values = torch.stack([entry["value"] for entry in batch]).mean(0)
        self.seen_dtype = self.linear(values).dtype
        terms = self.weight * values
        return {"loss_a": terms[0], "loss_b": terms[1]}


def _batch(*values: float) -> Batch:
    return [{"value": torch.tensor(values), "file_name": "photos/a.jpg"}]


def _step(
    batch: Batch, clip_norm: float | None = None, dtype: torch.dtype | None = None
) -> tuple[_Model, EventStorage]:
    model = _Model()
    optimizer = torch.optim.SGD([model.weight], lr=1.0)
    trainer = StepTrainer(model, optimizer, clip_norm=clip_norm, autocast_dtype=dtype)
    trainer.use_loader([batch])
    with EventStorage() as storage:
        trainer.run_step()
    return model, storage


def test_updates_and_reports() -> None:
    model, storage = _step(_batch(3.0, 4.0))
    assert model.weight.tolist() == [-3.0, -4.0]
    latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest["grad_norm"] == pytest.approx(5.0)
    assert {"total_loss", "loss_a", "loss_b", "data_time"} <= set(latest)


def test_clips_the_norm_of_the_whole_gradient() -> None:
    model, storage = _step(_batch(3.0, 4.0), clip_norm=1.0)
    assert model.weight.tolist() == pytest.approx([-0.6, -0.8], rel=1e-4)
    assert storage.latest()["grad_norm"][0] == pytest.approx(5.0)  # before clipping


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_autocasts_the_forward_pass(dtype: torch.dtype | None) -> None:
    model, _ = _step(_batch(1.0, 1.0), dtype=dtype)
    assert model.seen_dtype is (dtype or torch.float32)
    assert model.weight.dtype is torch.float32


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_loss_that_is_not_finite_stops_before_the_update(bad: float) -> None:
    model = _Model()
    optimizer = torch.optim.SGD([model.weight], lr=1.0)
    trainer = StepTrainer(model, optimizer, clip_norm=1.0, autocast_dtype=None)
    trainer.use_loader([_batch(bad, 1.0)])
    with EventStorage(), pytest.raises(InputError, match=r"loss_a nan.*images photos/a.jpg"):
        trainer.run_step()
    assert model.weight.tolist() == [0.0, 0.0]


def test_gradient_that_is_not_finite_stops_before_the_update() -> None:
    model = _Model()
    # sqrt at 0: a finite loss with an infinite slope.
    model.forward = lambda batch: {"loss_a": model.weight.sum().sqrt()}  # type: ignore[method-assign]
    optimizer = torch.optim.SGD([model.weight], lr=1.0)
    trainer = StepTrainer(model, optimizer, clip_norm=1.0, autocast_dtype=None)
    trainer.use_loader([_batch(1.0, 1.0)])
    with EventStorage(), pytest.raises(InputError, match="gradient's norm is"):
        trainer.run_step()
    assert model.weight.tolist() == [0.0, 0.0]


def test_old_gradients_do_not_count() -> None:
    model = _Model()
    trainer = StepTrainer(
        model, torch.optim.SGD([model.weight], lr=1.0), clip_norm=None, autocast_dtype=None
    )
    trainer.use_loader([_batch(1.0, 0.0)] * 2)
    with EventStorage():
        trainer.run_step()
        trainer.run_step()
    assert model.weight.tolist() == [-2.0, 0.0]
