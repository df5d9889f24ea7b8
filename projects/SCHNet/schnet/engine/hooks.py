"""What happens beside the steps of a run: evaluation, the best and the periodic checkpoints.

The trainer registers them in this order: evaluate, then keep the best, then save. So a saved
checkpoint holds the results of its own iteration, and resuming repeats no evaluation.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from schnet.checkpoint import (
    INITIAL_CHECKPOINT,
    ParsingCheckpointer,
    checkpoint_name,
    latest_checkpoint,
    periodic_checkpoints,
)

logger = logging.getLogger(__name__)

Results = dict[str, Any]
"""Nested by data set (where there are several), task and metric; numbers in percent."""

BEST_CHECKPOINT = "model_best"
FINAL_CHECKPOINT = "model_final"


def is_due(iteration: int, period: int, max_iter: int) -> bool:
    """Whether something periodic happens after this iteration; it always does after the last.

    Args:
        iteration: from 0.
        period: in iterations; 0 means after the last only.
        max_iter: iterations of the run.
    """
    done = iteration + 1
    return done == max_iter or (period > 0 and done % period == 0)


class EvaluationHook(HookBase):
    """Evaluates periodically and after the last iteration, on all processes.

    Its state is the latest results, so that a run which is resumed after its end can return them.
    """

    def __init__(self, period: int, evaluate: Callable[[], Results]) -> None:
        """Start without results.

        Args:
            period: iterations between evaluations; 0 evaluates after the last only.
            evaluate: runs the evaluation; on other processes than the main one its result is
                empty.
        """
        self._period = period
        self._evaluate = evaluate
        self.results: Results = {}

    def after_step(self) -> None:
        """Evaluate where it is due, and put the finite numbers among the run's metrics."""
        if not is_due(self.trainer.iter, self._period, self.trainer.max_iter):
            return
        self.results = _plain(self._evaluate())
        flat = flatten_results_dict(self.results)
        # A class that occurs nowhere has no IoU, and NaN is no JSON.
        finite = {name: value for name, value in flat.items() if math.isfinite(value)}
        self.trainer.storage.put_scalars(**finite, smoothing_hint=False)
        comm.synchronize()

    def state_dict(self) -> dict[str, Any]:
        """The latest results."""
        return {"results": self.results} if self.results else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the latest results."""
        self.results = state["results"]


class BestCheckpointHook(HookBase):
    """Keeps the model of the highest metric as `model_best.pth`; on the main process.

    Its state is the best value and its iteration, so that a resumed run goes on comparing.
    """

    def __init__(
        self, evaluation: EvaluationHook, checkpointer: ParsingCheckpointer, metric: str
    ) -> None:
        """Start without a best value.

        Args:
            evaluation: the hook that runs before this one and holds the results.
            checkpointer: writes the file.
            metric: name of the metric, such as `mIoU`, of the first data set that is evaluated.
        """
        self._evaluation = evaluation
        self._checkpointer = checkpointer
        self._metric = metric
        self._seen: Results | None = None
        self.value = -math.inf
        self.iteration = -1

    def before_train(self) -> None:
        """Take note of results that belong to an earlier iteration."""
        self._seen = self._evaluation.results

    def after_step(self) -> None:
        """Write the model where the evaluation of this iteration is the best so far."""
        results = self._evaluation.results
        if results is self._seen:
            return
        self._seen = results
        value = find_metric(results, self._metric)
        if not value > self.value:  # also where it is not a number
            logger.info(
                "%s %.2f; best stays %.2f of iteration %d",
                self._metric,
                value,
                self.value,
                self.iteration,
            )
            return
        self.value, self.iteration = value, int(self.trainer.iter)
        self._checkpointer.save_weights(
            BEST_CHECKPOINT, iteration=self.iteration, best={self._metric: value}
        )

    def state_dict(self) -> dict[str, Any]:
        """The best value so far and its iteration."""
        return {"metric": self._metric, "value": self.value, "iteration": self.iteration}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the best value; one of another metric is not comparable and is dropped."""
        if state["metric"] == self._metric:
            self.value, self.iteration = state["value"], state["iteration"]


class CheckpointHook(HookBase):
    """Saves before the first step, periodically and at the end; on the main process."""

    def __init__(self, checkpointer: ParsingCheckpointer, period: int, keep: int) -> None:
        """Keep the settings.

        Args:
            checkpointer: writes the files.
            period: iterations between checkpoints.
            keep: periodic checkpoints that stay, newest first; the best and the final are
                besides.
        """
        self._checkpointer = checkpointer
        self._period = period
        self._keep = keep

    def before_train(self) -> None:
        """Save the start, so that resuming always finds a checkpoint."""
        if latest_checkpoint(self._checkpointer.save_dir) is None:
            self._checkpointer.save(INITIAL_CHECKPOINT, iteration=-1)

    def after_step(self) -> None:
        """Save where it is due and remove the periodic checkpoints beyond `keep`."""
        iteration = int(self.trainer.iter)
        if not is_due(iteration, self._period, self.trainer.max_iter):
            return
        is_last = iteration + 1 == self.trainer.max_iter
        name = FINAL_CHECKPOINT if is_last else checkpoint_name(iteration)
        self._checkpointer.save(name, iteration=iteration)
        for path in periodic_checkpoints(self._checkpointer.save_dir)[: -self._keep]:
            path.unlink()


def find_metric(results: Mapping[str, Any], metric: str) -> float:
    """The first value of this name in nested results; NaN where there is none."""
    for name, value in results.items():
        if name == metric:
            return float(value)
        if isinstance(value, Mapping):
            found = find_metric(value, metric)
            if not math.isnan(found):
                return found
    return math.nan


def _plain(results: Mapping[str, Any]) -> Results:
    """Nested dicts of floats, which a checkpoint can hold under `weights_only`."""
    return {
        name: _plain(value) if isinstance(value, Mapping) else float(value)
        for name, value in results.items()
    }
