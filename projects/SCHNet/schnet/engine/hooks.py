"""What happens beside the steps of a run: evaluation and the periodic checkpoints.

The trainer registers them in this order: evaluate, then keep the best, then save. So a saved
checkpoint holds the results of its own iteration, and resuming repeats no evaluation.
"""

from __future__ import annotations

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

Results = dict[str, Any]
"""Nested by data set (where there are several), task and metric; numbers in percent."""

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

    Attributes:
        results: of the latest evaluation; empty on other processes than the main one.
        count: evaluations of this process, by which later hooks know that there was one.
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
        self.count = 0

    def after_step(self) -> None:
        """Evaluate where it is due, and put the finite numbers among the run's metrics."""
        if not is_due(self.trainer.iter, self._period, self.trainer.max_iter):
            return
        self.results = _plain(self._evaluate())
        self.count += 1
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
        ends_early = self.trainer.stop_reason is not None
        if not ends_early and not is_due(iteration, self._period, self.trainer.max_iter):
            return
        is_last = ends_early or iteration + 1 == self.trainer.max_iter
        name = FINAL_CHECKPOINT if is_last else checkpoint_name(iteration)
        self._checkpointer.save(name, iteration=iteration)
        for path in periodic_checkpoints(self._checkpointer.save_dir)[: -self._keep]:
            path.unlink()


def _plain(results: Mapping[str, Any]) -> Results:
    """Nested dicts of floats, which a checkpoint can hold under `weights_only`."""
    return {
        name: _plain(value) if isinstance(value, Mapping) else float(value)
        for name, value in results.items()
    }
