"""Early stopping: when a run ends, on every process, and what a resumed run makes of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from evaluated_run import HookRun, ScriptedEvaluation, of_metric
from pixel_parser import pixel_parser_registered
from spawned import TWO, prepare_spawning
from tiny_lip import OPTS, make_lip

from schnet.config import load_config
from schnet.data.catalog import register_datasets
from schnet.engine.early_stopping import EarlyStoppingHook
from schnet.engine.launch import launch
from schnet.engine.trainer import ParsingTrainer
from schnet.evaluation.watched_metric import WatchedMetric

MIOU = WatchedMetric("mIoU")


def _run(
    values: list[float],
    patience: int = 2,
    min_delta: float = 0.0,
    state: dict[str, object] | None = None,
    metric: WatchedMetric = MIOU,
    start: int = 0,
) -> tuple[HookRun, EarlyStoppingHook]:
    evaluation = ScriptedEvaluation(of_metric(*values))
    hook = EarlyStoppingHook(evaluation, metric, patience, min_delta)
    if state is not None:
        hook.load_state_dict(state)
    return HookRun([evaluation, hook], start=start).train(start + len(values)), hook


@pytest.mark.parametrize(
    ("values", "done"),
    [
        ([1, 2, 2, 1.5, 9], 4),
        ([1, 2, 3, 4], 4),
        ([5, 4, 6, 5, 5.5, 9], 5),
        ([math.nan, math.nan, math.nan, 1, math.nan, 0, 9], 6),
    ],
)
def test_ends_after_so_many_evaluations_in_a_row_without_a_new_best(
    values: list[float], done: int
) -> None:
    run, _ = _run(values)
    assert len(run.done) == done
    assert (run.stop_reason is not None) == (done < len(values))


def test_reason_names_metric_direction_and_key() -> None:
    run, _ = _run([1, 1, 1])
    assert run.stop_reason is not None
    assert run.stop_reason.startswith("2 evaluations in a row brought no better mIoU (higher is")
    assert "TEST.EARLY_STOPPING.PATIENCE" in run.stop_reason


def test_gain_must_be_as_large_as_the_least_difference() -> None:
    run = _run([1, 1.4, 1.8, 2.2, 9], min_delta=1.0)[0]
    assert len(run.done) == 3
    assert "no better mIoU by at least 1 (" in str(run.stop_reason)
    # Against the last best, not the last value: two steps of 0.4 are a gain of 0.8.
    assert len(_run([1, 1.4, 1.8, 2.2, 2.3], patience=3, min_delta=0.5)[0].done) == 5
    assert len(_run([1, 1.5, 2.0, 2.5], patience=1, min_delta=0.5)[0].done) == 4


def test_loss_is_better_low() -> None:
    lower = WatchedMetric("mIoU", lower_is_better=True)
    assert len(_run([3, 2, 1, 0.5], metric=lower)[0].done) == 4
    assert len(_run([3, 4, 5, 1], metric=lower)[0].done) == 3


def test_patience_of_zero_never_ends_a_run() -> None:
    assert len(_run([1] * 9, patience=0)[0].done) == 9


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_count_is_resumed_exactly(cut: int) -> None:
    values = [5, 4, 4, 4, 9]
    _, whole = _run(values, patience=3)
    _, first = _run(values[:cut], patience=3)
    second_run, second = _run(values[cut:], patience=3, state=first.state_dict(), start=cut)
    assert second_run.done == list(range(cut, 4))
    assert second.state_dict() == whole.state_dict()


def test_run_that_ended_early_takes_no_step_when_resumed_unless_patience_is_raised() -> None:
    _, ended = _run([5, 4, 4])
    for patience, done in ((2, 0), (1, 0), (3, 1), (4, 2), (0, 3)):
        run, _ = _run([1, 1, 1], patience=patience, state=ended.state_dict(), start=3)
        assert len(run.done) == done, patience


def test_count_of_another_metric_is_dropped() -> None:
    _, ended = _run([5, 4, 4])
    lower = WatchedMetric("mIoU", lower_is_better=True)
    run, hook = _run([9], state=ended.state_dict(), metric=lower, start=3)
    assert run.done == [3]
    assert (hook.value, hook.count) == (9, 0)


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., CfgNode]:
    """A function of overrides: a run whose every evaluation but the first is in vain."""
    make_lip(tmp_path / "data")
    register_datasets(str(tmp_path / "data"))

    def read(*opts: str) -> CfgNode:
        own = [*("MODEL.META_ARCHITECTURE", "PixelParser", "OUTPUT_DIR", str(tmp_path / "out"))]
        own += ["SOLVER.MAX_ITER", "12", "TEST.EVAL_PERIOD", "2", "SOLVER.CHECKPOINT_PERIOD", "4"]
        own += ["TEST.EARLY_STOPPING.MIN_DELTA", "1000.0", "TEST.EARLY_STOPPING.PATIENCE", "2"]
        return load_config([], [*OPTS, *own, *opts])

    return read


def _train(cfg: CfgNode, *, resume: bool = False) -> ParsingTrainer:
    torch.manual_seed(0)
    with pixel_parser_registered():
        trainer = ParsingTrainer(cfg)
        trainer.resume_or_load(resume)
        trainer.train()
    return trainer


def test_trainer_ends_with_a_final_checkpoint_and_resumes_by_the_patience(
    config: Callable[..., CfgNode], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = _train(config())
    assert trainer.iter == 6  # evaluations after the iterations 1, 3 and 5
    assert torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)["iteration"] == 5
    assert not (tmp_path / "out" / "model_0000007.pth").exists()
    caplog.clear()
    with caplog.at_level("INFO", logger="schnet"):
        resumed = _train(config(), resume=True)
    assert resumed.model.seen == [] and resumed.iter == 6
    assert "training ends before its last iteration: 2 evaluations in a row" in caplog.text
    longer = _train(config("TEST.EARLY_STOPPING.PATIENCE", "3"), resume=True)
    assert longer.iter == 8
    assert torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)["iteration"] == 7


def train_to_file(config: str, folder: str) -> None:
    """Body of a process: train, and tell how far it came."""
    file = Path(folder) / f"config{comm.get_rank()}.yaml"
    file.write_text(config, encoding="utf-8")
    register_datasets()
    trainer = _train(load_config([file]))
    found = {"iter": trainer.iter, "reason": trainer.stop_reason}
    (Path(folder) / f"rank{comm.get_rank()}.json").write_text(json.dumps(found))


def test_all_processes_end_at_the_same_step(
    config: Callable[..., CfgNode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_spawning(monkeypatch, tmp_path / "data")
    launch(train_to_file, TWO, (config().dump(), str(tmp_path)))
    found = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert [entry["iter"] for entry in found] == [6, 6]
    assert all("2 evaluations in a row" in entry["reason"] for entry in found)
