"""The best checkpoint: by any metric and in both directions, through resumes."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from evaluated_run import HookRun, ScriptedEvaluation, of_metric
from torch import nn

from schnet.checkpoint import ParsingCheckpointer
from schnet.engine.best import BestCheckpointHook
from schnet.evaluation.watched_metric import WatchedMetric

MIOU = WatchedMetric("mIoU")
LOSS = WatchedMetric("val/loss", lower_is_better=True)


def _hooks(
    folder: Path, values: list[float], metric: WatchedMetric = MIOU
) -> tuple[ScriptedEvaluation, BestCheckpointHook]:
    task, _, name = metric.name.rpartition("/")
    results = [{task or "sem_seg": {name: value}} for value in values]
    evaluation = ScriptedEvaluation(results)
    checkpointer = ParsingCheckpointer(nn.Linear(1, 1), str(folder))
    return evaluation, BestCheckpointHook(evaluation, checkpointer, metric)


def test_best_is_the_highest_not_the_latest(tmp_path: Path) -> None:
    HookRun(_hooks(tmp_path, [1, 7, math.nan, 7, 6])).train(5)
    best = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert (best["iteration"], best["best"]) == (1, {"mIoU": 7.0})


def test_best_loss_is_the_lowest(tmp_path: Path) -> None:
    HookRun(_hooks(tmp_path, [3, 0.5, 2, math.nan], LOSS)).train(4)
    best = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert (best["iteration"], best["best"]) == (1, {"val/loss": 0.5})


@pytest.mark.parametrize("metric", [MIOU, LOSS])
def test_no_number_is_never_the_best(
    tmp_path: Path, metric: WatchedMetric, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="schnet"):
        HookRun(_hooks(tmp_path, [math.nan], metric)).train(1)
    assert not (tmp_path / "model_best.pth").exists()
    assert "there is no best yet" in caplog.text


def test_log_says_which_way_is_better(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="schnet.engine.best"):
        HookRun(_hooks(tmp_path, [0.25, 0.75], LOSS)).train(2)
    first, second = [r.getMessage() for r in caplog.records if r.name == "schnet.engine.best"]
    assert first == "val/loss 0.25 (lower is better); the best so far"
    assert second == "val/loss 0.75 (lower is better); the best stays 0.25 of iteration 0"


def test_resumed_run_keeps_the_best_value(tmp_path: Path) -> None:
    _, first = hooks = _hooks(tmp_path, [9])
    HookRun(hooks).train(1)
    written = (tmp_path / "model_best.pth").stat().st_mtime_ns
    _, second = hooks = _hooks(tmp_path, [3, 4])
    second.load_state_dict(first.state_dict())
    HookRun(hooks, start=1).train(3)
    assert (second.value, second.iteration) == (9.0, 0)
    assert (tmp_path / "model_best.pth").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    "state",
    [
        {"metric": "pACC", "lower_is_better": False, "value": 90.0, "iteration": 0},
        {"metric": "mIoU", "lower_is_better": True, "value": 90.0, "iteration": 0},
        {"metric": "mIoU", "value": 90.0, "iteration": 0},  # before there were directions
    ],
)
def test_best_of_another_metric_or_direction_is_not_compared(
    tmp_path: Path, state: dict[str, object]
) -> None:
    _, best = hooks = _hooks(tmp_path, [3])
    best.load_state_dict(state)
    HookRun(hooks, start=1).train(2)
    assert best.value == 3.0


def test_evaluation_made_up_for_before_the_first_step_counts_for_its_own_iteration(
    tmp_path: Path,
) -> None:
    evaluation, best = hooks = _hooks(tmp_path, [5, 4])
    evaluation.before_train = evaluation.evaluate  # type: ignore[method-assign]
    HookRun(hooks, start=8).train(9)
    assert (best.value, best.iteration) == (5.0, 7)


def test_results_of_the_checkpoint_are_not_judged_again(tmp_path: Path) -> None:
    evaluation, best = hooks = _hooks(tmp_path, [4])
    (evaluation.results,) = of_metric(9)  # as EvaluationHook restores them
    HookRun(hooks, start=8).train(8)
    assert best.iteration == -1 and not list(tmp_path.iterdir())


def test_evaluated_weights_are_kept(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)

    @contextlib.contextmanager
    def averaged() -> Iterator[None]:
        before = model.weight.detach().clone()
        model.weight.data.fill_(42.0)
        yield
        model.weight.data.copy_(before)

    evaluation = ScriptedEvaluation(of_metric(1))
    checkpointer = ParsingCheckpointer(model, str(tmp_path))
    HookRun([evaluation, BestCheckpointHook(evaluation, checkpointer, MIOU, averaged)]).train(1)
    saved = torch.load(tmp_path / "model_best.pth", weights_only=True)["model"]
    assert saved["weight"].item() == 42.0 != model.weight.item()
