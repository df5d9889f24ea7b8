"""Evaluation, best and periodic checkpoints: when, in which order, and what a resumed run keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from detectron2.utils.events import EventStorage, EventWriter, get_event_storage
from torch import nn

from schnet.checkpoint import ParsingCheckpointer, latest_checkpoint
from schnet.engine.best import BestCheckpointHook
from schnet.engine.hooks import (
    CheckpointHook,
    EvaluationHook,
    is_due,
)
from schnet.engine.writers import WriterHook
from schnet.evaluation.watched_metric import WatchedMetric


class _Writer(EventWriter):
    """Notes when it is asked to write."""

    def __init__(self) -> None:
        self.written: list[int] = []

    def write(self) -> None:
        self.written.append(get_event_storage().iter)

    def close(self) -> None:
        self.written.append(-1)


class _Run:
    """Three hooks around steps that do nothing; evaluation gives one value after the other."""

    def __init__(self, folder: Path, values: Sequence[float], **settings: int) -> None:
        self.values = iter(values)
        self.evaluated: list[int] = []
        self.checkpointer = ParsingCheckpointer(nn.Linear(1, 1), str(folder))
        self.saver = CheckpointHook(
            self.checkpointer, settings.get("save_period", 1000), settings.get("keep", 2)
        )
        self.evaluation = EvaluationHook(
            settings.get("eval_period", 0), self._evaluate, self.saver.save_before_evaluation
        )
        self.best = BestCheckpointHook(self.evaluation, self.checkpointer, WatchedMetric("mIoU"))
        self.writer = _Writer()
        writing = WriterHook(self.evaluation, [self.writer], settings.get("write_period", 1000))
        self.hooks = (self.evaluation, self.best, writing, self.saver)
        self.fail: Exception | None = None

    def _evaluate(self) -> dict[str, Any]:
        self.evaluated.append(self.trainer.iter)
        if self.fail is not None:
            raise self.fail
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
            for hook in self.hooks:
                hook.after_train()
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


def test_a_later_checkpoint_that_was_passed_over_costs_no_new_one(tmp_path: Path) -> None:
    damaged = tmp_path / "model_0000008.pth"
    damaged.write_bytes(b"half a file")
    run = _Run(tmp_path, [], save_period=2, keep=1)
    run.train(3, 5, 20)
    assert _names(tmp_path) == ["model_0000003", "model_0000008"]
    assert latest_checkpoint(tmp_path) == tmp_path / "model_0000003.pth"
    run.train(5, 10, 20)
    assert _names(tmp_path) == ["model_0000009"]


def test_evaluation_comes_before_saving(tmp_path: Path) -> None:
    run = _Run(tmp_path, [4], eval_period=1, save_period=1)
    run.checkpointer.add_checkpointable("evaluation", run.evaluation)
    run.train(0, 1, 9)
    saved = torch.load(tmp_path / "model_0000000.pth", weights_only=True)
    assert saved["evaluation"]["results"]["sem_seg"]["mIoU"] == 4.0


def test_metrics_are_written_periodically_after_evaluations_and_at_the_end_once() -> None:
    run = _Run(Path("unused"), [1, 2], eval_period=5, write_period=3)
    run.saver = run.checkpointer = None  # type: ignore[assignment]
    run.hooks = (run.evaluation, run.hooks[2])
    run.evaluation._save = None
    run.train(0, 8, 20)
    assert run.writer.written == [2, 4, 5, 7, -1]
    run.writer.written.clear()
    run.train(8, 10, 20)
    assert run.writer.written == [8, 9, -1]  # not again at the end


def _state(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def test_run_is_saved_before_an_evaluation_and_again_with_its_results(tmp_path: Path) -> None:
    run = _Run(tmp_path, [4, 5], eval_period=2)
    run.checkpointer.add_checkpointable("evaluation", run.evaluation)
    run.train(0, 2, 9)
    saved = _state(tmp_path / "model_0000001.pth")
    assert saved["evaluation"]["results"]["sem_seg"]["mIoU"] == 4.0
    assert saved["evaluation"]["pending"] is False
    run.fail = RuntimeError("killed in the evaluation")
    with pytest.raises(RuntimeError):
        run.train(2, 4, 9)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000003.pth"
    saved = _state(tmp_path / "model_0000003.pth")
    assert saved["iteration"] == 3 and saved["evaluation"]["pending"] is True
    assert saved["evaluation"]["results"]["sem_seg"]["mIoU"] == 4.0


def test_pending_evaluation_is_run_whatever_the_periods_say(tmp_path: Path) -> None:
    run = _Run(tmp_path, [4], eval_period=0)
    run.evaluation.load_state_dict({"results": {}, "pending": True})
    run.train(3, 4, 9)
    assert run.evaluated == [3] and not run.evaluation.pending
    assert "model_0000003" in _names(tmp_path)


def test_checkpoint_holds_the_random_numbers_and_an_iteration_is_saved_once(
    tmp_path: Path,
) -> None:
    run = _Run(tmp_path, [], save_period=2)
    run.train(0, 2, 9)
    path = tmp_path / "model_0000001.pth"
    (state,) = _state(path)["rng"]
    assert torch.equal(state["torch"], torch.get_rng_state())
    before = path.stat().st_mtime_ns
    run.saver.save(1)
    assert path.stat().st_mtime_ns == before
    run.saver.save(2)
    assert "model_0000002" in _names(tmp_path)
