"""Where a run's numbers go while it trains: terminal, log, files, and services."""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import (
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
)

from schnet.engine.after_evaluation import AfterEvaluationHook
from schnet.engine.csv_writer import CsvWriter
from schnet.engine.hooks import EvaluationHook, is_due
from schnet.engine.run_writer import SMOOTHING_WINDOW, RunWriter
from schnet.engine.weights_and_biases import build_wandb_writer
from schnet.reporting.history import METRICS_FILE

logger = logging.getLogger(__name__)

WRITE_PERIOD = 20
TABLE_FILE = "metrics.csv"
# Steps whose median time tells the time that is left.
_ETA_WINDOW = 1000
_MEGABYTE = 2**20


class ProgressPrinter(EventWriter):
    """Logs one line of progress: time left, losses, seconds a step, images a second, rate.

    It also puts `eta_seconds` and `images_per_second` among the run's scalars. Both come from the
    steps of this process, as soon as some were timed; evaluations and checkpoints are not in them.
    """

    def __init__(self, max_iter: int, images_per_step: int) -> None:
        """Take the run's length.

        Args:
            max_iter: iterations of the run.
            images_per_step: of all processes together.
        """
        self._max_iter = max_iter
        self._images_per_step = images_per_step
        self._last_iteration = -1

    def write(self) -> None:
        """Log the line of the latest step, where it was not logged yet."""
        storage = get_event_storage()
        _, iteration = storage.latest().get("total_loss", (0.0, -1))
        if iteration <= self._last_iteration:
            return
        self._last_iteration = iteration
        histories = storage.histories()
        parts = [f"iter: {iteration}"]
        # A task's losses, such as `val/loss`, belong to evaluations.
        parts += [
            f"{name}: {history.median(SMOOTHING_WINDOW):.4g}"
            for name, history in histories.items()
            if "loss" in name and "/" not in name
        ]
        if "time" in histories:
            parts = [f"eta: {self._time_left(storage, iteration)}", *parts]
            seconds = histories["time"].avg(SMOOTHING_WINDOW)
            rate = self._images_per_step / seconds
            self._put(storage, iteration, "images_per_second", rate)
            parts += [f"time: {seconds:.4f}", f"images/s: {rate:.4g}"]
        if "data_time" in histories:
            parts.append(f"data_time: {histories['data_time'].avg(SMOOTHING_WINDOW):.4f}")
        if "lr" in histories:
            parts.append(f"lr: {histories['lr'].latest():.5g}")
        if torch.cuda.is_available():
            parts.append(f"max_mem: {torch.cuda.max_memory_allocated() / _MEGABYTE:.0f}M")
        logger.info("%s", "  ".join(parts))

    def _time_left(self, storage: Any, iteration: int) -> datetime.timedelta:
        steps = self._max_iter - iteration - 1
        seconds = storage.history("time").median(_ETA_WINDOW) * steps
        self._put(storage, iteration, "eta_seconds", seconds)
        return datetime.timedelta(seconds=int(seconds))

    def _put(self, storage: Any, iteration: int, name: str, value: float) -> None:
        # When a run ends, the storage is one iteration on already.
        if storage.iter == iteration:
            storage.put_scalar(name, value, smoothing_hint=False)


class WriterHook(AfterEvaluationHook):
    """Has the writers write periodically, at the end, and after each evaluation.

    Scalars have one latest value: without the last, an evaluation would be lost to the next one
    where they come more often than the writing. On the main process.
    """

    def __init__(
        self, evaluation: EvaluationHook, writers: Sequence[EventWriter], period: int
    ) -> None:
        """Take the writers.

        Args:
            evaluation: the hook that runs before this one.
            writers: in the order in which they write.
            period: iterations between two lines.
        """
        super().__init__(evaluation)
        self._writers = writers
        self._period = period
        self._written: int | None = None

    def before_train(self) -> None:
        """Tell the writers where the run begins."""
        for writer in self._writers:
            if isinstance(writer, RunWriter):
                start = self.trainer.start_iter
                writer.start(start - int(self._evaluation.pending), resumes=start > 0)
        super().before_train()

    def after_evaluation(self, iteration: int) -> None:
        """Write the evaluation's values, and the step's beside them."""
        self._write()

    def after_step(self) -> None:
        """Write where it is due."""
        super().after_step()
        if is_due(self.trainer.iter, self._period, self.trainer.max_iter):
            self._write()

    def after_train(self) -> None:
        """Write what is left, and close."""
        self._write()
        for writer in self._writers:
            writer.close()

    def _write(self) -> None:
        iteration = int(self.trainer.storage.iter)
        if iteration == self._written:
            return
        self._written = iteration
        for writer in self._writers:
            writer.write()


def build_writers(cfg: CfgNode, max_iter: int) -> list[EventWriter]:
    """Make the writers of a run, for its main process.

    Terminal and log, `metrics.json`, `metrics.csv`, Weights & Biases where WANDB.ENABLED, and
    TensorBoard; in this order, since the first adds scalars and the last takes the images away.

    Args:
        cfg: the run's config; OUTPUT_DIR is made where it is missing.
        max_iter: iterations of the run, for the time that is left.

    Raises:
        InputError: OUTPUT_DIR has a `metrics.csv` that no run wrote, or Weights & Biases is wanted
            and not to be had.
    """
    folder = cfg.OUTPUT_DIR
    os.makedirs(folder, exist_ok=True)
    return [
        ProgressPrinter(max_iter, cfg.SOLVER.IMS_PER_BATCH),
        CsvWriter(os.path.join(folder, TABLE_FILE)),
        JSONWriter(os.path.join(folder, METRICS_FILE)),
        *([build_wandb_writer(cfg)] if cfg.WANDB.ENABLED else []),
        TensorboardXWriter(folder),
    ]
