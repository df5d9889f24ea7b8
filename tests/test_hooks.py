"""Evaluation, best and periodic checkpoints: when, in which order, and what a resumed run keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from schnet.checkpoint import ParsingCheckpointer
from schnet.engine.best import BestCheckpointHook
from schnet.engine.hooks import (
    CheckpointHook,
    EvaluationHook,
    is_due,
)
from schnet.evaluation.watched_metric import WatchedMetric


class _Run:
    """Three hooks around steps that do nothing; evaluation gives one value after the other."""

    def __init__(self, folder: Path, values: Sequence[float], **settings: int) -> None:
        self.values = iter(values)
        self.evaluated: list[int] = []
        self.checkpointer = ParsingCheckpointer(nn.Linear(1, 1), str(folder))
        self.evaluation = EvaluationHook(settings.get("eval_period", 0), self._evaluate)
        self.best = BestCheckpointHook(self.evaluation, self.checkpointer, WatchedMetric("mIoU"))
        saver = CheckpointHook(
            self.checkpointer, settings.get("save_period", 1000), settings.get("keep", 2)
        )
        self.hooks = (self.evaluation, self.best, saver)

    def _evaluate(self) -> dict[str, Any]:
        self.evaluated.append(self.trainer.iter)
        return {"sem_seg": {"mIoU": next(self.values), "IoU-Hat": math.nan}}

    def train(self, start: int, stop: int, max_iter: int) -> EventStorage:
        """Run the iterations from start up to stop of a run of max_iter."""
        with EventStorage(start) as storage:
            self.trainer = SimpleNamespace(
                iter=start, start_iter=start, max_iter=max_iter, storage=storage, stop_reason=None
            )
            for hook in self.hooks:
                hook.trainer = self.trainer
                hook.before_train()
            for iteration in range(start, stop):
                self.trainer.iter = storage.iter = iteration
                for hook in self.hooks:
                    hook.after_step()
        return storage


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.pth"))


@pytest.mark.parametrize(
    ("iteration", "period", "due"),
    [(0, 2, False), (1, 2, True), (9, 0, True), (8, 0, False), (9, 7, True)],
)
def test_due_periodically_and_after_the_last(iteration: int, period: int, due: bool) -> None:
    assert is_due(iteration, period, 10) is due


def test_evaluates_periodically_and_at_the_end_once(tmp_path: Path) -> None:
    run = _Run(tmp_path, [1, 2, 3], eval_period=2)
    storage = run.train(0, 6, 6)
    assert run.evaluated == [1, 3, 5]
    assert storage.latest()["sem_seg/mIoU"] == (3.0, 5)
    assert "sem_seg/IoU-Hat" not in storage.latest()  # NaN is no JSON


def test_first_checkpoint_comes_before_the_first_step(tmp_path: Path) -> None:
    _Run(tmp_path, []).train(0, 0, 6)
    assert _names(tmp_path) == ["model_init"]
    assert torch.load(tmp_path / "model_init.pth", weights_only=True)["iteration"] == -1


def test_existing_checkpoint_is_not_replaced_by_a_first_one(tmp_path: Path) -> None:
    run = _Run(tmp_path, [])
    run.checkpointer.save("model_0000003", iteration=3)
    run.train(4, 4, 6)
    assert _names(tmp_path) == ["model_0000003"]


def test_newest_are_kept_with_best_and_final_besides(tmp_path: Path) -> None:
    _Run(tmp_path, [5, 1, 1, 1], eval_period=2, save_period=1, keep=2).train(0, 8, 8)
    assert _names(tmp_path) == ["model_0000005", "model_0000006", "model_best", "model_final"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert torch.load(tmp_path / "model_final.pth", weights_only=True)["iteration"] == 7


def test_keeping_counts_the_checkpoints_from_before_a_resume(tmp_path: Path) -> None:
    _Run(tmp_path, [], save_period=1, keep=2).train(0, 3, 9)
    _Run(tmp_path, [], save_period=1, keep=2).train(3, 5, 9)
    assert _names(tmp_path) == ["model_0000003", "model_0000004"]


def test_evaluation_comes_before_saving(tmp_path: Path) -> None:
    run = _Run(tmp_path, [4], eval_period=1, save_period=1)
    run.checkpointer.add_checkpointable("evaluation", run.evaluation)
    run.train(0, 1, 9)
    saved = torch.load(tmp_path / "model_0000000.pth", weights_only=True)
    assert saved["evaluation"]["results"]["sem_seg"]["mIoU"] == 4.0
