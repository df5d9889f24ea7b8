"""A model whose gradients are the batch's own values, and a step trainer around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch import nn

from schnet.engine.bad_batches import BadSteps, LabelColours
from schnet.engine.ema import ModelEma
from schnet.engine.precision import Precision
from schnet.engine.step import StepTrainer

Batch = list[dict[str, Any]]

COLOURS = LabelColours(["background", "hair"], [(0, 0, 0), (200, 30, 30)], 255)


class ValueModel(nn.Module):
    """Losses that are linear in one weight: the gradients are the mean of the batch's values."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.linear = nn.Linear(2, 2).requires_grad_(False)
        self.seen_dtypes: list[torch.dtype] = []
        self.calls = 0

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        self.calls += 1
        values = torch.stack([entry["value"] for entry in batch]).mean(0)
        self.seen_dtypes.append(self.linear(values).dtype)
        terms = self.weight * values
        return {"loss_a": terms[0], "loss_b": terms[1]}


def item(*values: float, name: str = "photos/a.jpg") -> dict[str, Any]:
    """An image that the model makes its two losses of."""
    return {
        "value": torch.tensor(values),
        "file_name": name,
        "image": torch.full((3, 16, 8), 90, dtype=torch.uint8),
        "sem_seg": torch.tensor([[0] * 8, [1] * 8] * 7 + [[255] * 8] * 2),
    }


def step_trainer(
    model: nn.Module,
    batches: Sequence[Batch],
    folder: Path,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    clip_norm: float | None = None,
    dtype: torch.dtype | None = None,
    allowed: int = 0,
    accumulate_steps: int = 1,
    ema: ModelEma | None = None,
) -> StepTrainer:
    """A trainer of plain gradient descent at rate 1 over these batches."""
    trained = [p for p in model.parameters() if p.requires_grad]
    trainer = StepTrainer(
        model,
        optimizer or torch.optim.SGD(trained, lr=1.0),
        clip_norm=clip_norm,
        precision=Precision("cpu", dtype),
        bad_steps=BadSteps(folder / "bad_batches", allowed, COLOURS),
        accumulate_steps=accumulate_steps,
        ema=ema,
    )
    trainer.use_loader(batches)
    trainer.iter = 0
    return trainer


def run_steps(trainer: StepTrainer, count: int = 1) -> dict[str, float]:
    """Make steps; the latest value of each metric."""
    with EventStorage(int(trainer.iter)) as storage:
        for _ in range(count):
            trainer.run_step()
            trainer.iter += 1
            storage.step()
        return {name: value for name, (value, _) in storage.latest().items()}
