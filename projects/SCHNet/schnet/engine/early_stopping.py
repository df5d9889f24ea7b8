"""Ending a run that gets no better."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from detectron2.utils import comm

from schnet.engine.after_evaluation import AfterEvaluationHook
from schnet.engine.agreement import agree_any
from schnet.engine.best import is_of, metric_identity
from schnet.engine.hooks import EvaluationHook
from schnet.evaluation.watched_metric import WatchedMetric

logger = logging.getLogger(__name__)


class EarlyStoppingHook(AfterEvaluationHook):
    """Ends the run after so many evaluations in a row that brought no new best value.

    Registered on all processes: the main one, which has the results, decides for all. It calls
    `trainer.stop_early(reason)`, after which the loop takes no further step.

    Its state is the value to surpass and the evaluations since, so that a resumed run goes on
    counting. A run that ended early and is resumed ends again before its first step, unless its
    patience was raised or set to 0. Evaluations before the first value that is a number do not
    count.
    """

    def __init__(
        self, evaluation: EvaluationHook, metric: WatchedMetric, patience: int, min_delta: float
    ) -> None:
        """Start without a value.

        Args:
            evaluation: the hook that runs before this one and holds the results.
            metric: what is compared.
            patience: evaluations in a row without a new best value that end the run; 0 never
                ends it.
            min_delta: by how much a new best value must surpass the last one, in the metric's own
                unit; >= 0, and any gain will do where it is 0.
        """
        super().__init__(evaluation)
        self._metric = metric
        self._patience = patience
        self._min_delta = min_delta
        # The best checkpoint takes any gain, and may be newer than what these messages name.
        self._told_delta = f" by at least {min_delta:g}" if min_delta else ""
        self.value = metric.worst
        self.count = 0

    def should_stop(self) -> bool:
        """Whether as many evaluations as the patience have brought nothing; on the main process."""
        return 0 < self._patience <= self.count

    def before_train(self) -> None:
        """End a run at once that had ended early before it was resumed."""
        super().before_train()
        self._stop_all()

    def after_evaluation(self, iteration: int) -> None:
        """Count the evaluation; end the run where the patience is at its end."""
        if comm.is_main_process():
            self._count(self._metric.value(self._evaluation.results))
        self._stop_all()

    def _count(self, value: float) -> None:
        gain = self._metric.gain(value, self.value)
        if gain > 0 and gain >= self._min_delta:
            self.value, self.count = value, 0
        elif math.isfinite(self.value):
            self.count += 1
            if self._patience:
                logger.info(
                    "%d of %d evaluations in a row without a better %s than %.6g%s (%s)",
                    self.count,
                    self._patience,
                    self._metric.name,
                    self.value,
                    self._told_delta,
                    self._metric.direction,
                )

    def _stop_all(self) -> None:
        if self._patience == 0:
            return
        # The other processes have no results, and no count but the checkpoint's.
        (stops,) = agree_any(comm.is_main_process() and self.should_stop())
        if stops and self.trainer.stop_reason is None:
            self.trainer.stop_early(
                f"{self._patience} evaluations in a row brought no better {self._metric.name}"
                f"{self._told_delta} ({self._metric.direction}); raise "
                "TEST.EARLY_STOPPING.PATIENCE to go on"
            )

    def state_dict(self) -> dict[str, Any]:
        """The value to surpass and the evaluations since, and what it is a value of."""
        return {**metric_identity(self._metric), "value": self.value, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the count; one of another metric is dropped."""
        if is_of(state, self._metric):
            self.value, self.count = state["value"], state["count"]
