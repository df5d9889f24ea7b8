"""The best checkpoint of a run: which evaluation it comes from, and keeping it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from schnet.checkpoint import ParsingCheckpointer
from schnet.engine.after_evaluation import AfterEvaluationHook
from schnet.engine.hooks import EvaluationHook
from schnet.evaluation.watched_metric import WatchedMetric

logger = logging.getLogger(__name__)

BEST_CHECKPOINT = "model_best"


class BestCheckpointHook(AfterEvaluationHook):
    """Keeps the model of the best value of a metric as `model_best.pth`; on the main process.

    Its state is the best value and its iteration, so that a resumed run goes on comparing. A value
    that is not a number is never the best.
    """

    def __init__(
        self,
        evaluation: EvaluationHook,
        checkpointer: ParsingCheckpointer,
        metric: WatchedMetric,
        weights: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Start without a best value.

        Args:
            evaluation: the hook that runs before this one and holds the results.
            checkpointer: writes the file.
            metric: what is compared.
            weights: puts the weights that are evaluated into the model while it is open: their
                average where the run keeps one.
        """
        super().__init__(evaluation)
        self._checkpointer = checkpointer
        self._metric = metric
        self._weights = weights
        self.value = metric.worst
        self.iteration = -1

    def after_evaluation(self, iteration: int) -> None:
        """Write the model where this evaluation is the best so far."""
        name, direction = self._metric.name, self._metric.direction
        value = self._metric.value(self._evaluation.results)
        if not self._metric.gain(value, self.value) > 0:  # also where it is not a number
            best = "there is no best yet"
            if self.iteration >= 0:
                best = f"the best stays {self.value:.6g} of iteration {self.iteration}"
            logger.info("%s %.6g (%s); %s", name, value, direction, best)
            return
        logger.info("%s %.6g (%s); the best so far", name, value, direction)
        self.value, self.iteration = value, iteration
        with self._weights():
            self._checkpointer.save_weights(
                BEST_CHECKPOINT, iteration=iteration, best={name: value}
            )

    def state_dict(self) -> dict[str, Any]:
        """The best value so far and its iteration, and what it is a value of."""
        return {**metric_identity(self._metric), "value": self.value, "iteration": self.iteration}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the best value; one of another metric is not comparable and is dropped."""
        if is_of(state, self._metric):
            self.value, self.iteration = state["value"], state["iteration"]


def metric_identity(metric: WatchedMetric) -> dict[str, Any]:
    """Name a metric in a hook's state."""
    return {"metric": metric.name, "lower_is_better": metric.lower_is_better}


def is_of(state: Mapping[str, Any], metric: WatchedMetric) -> bool:
    """Whether a hook's state is about a metric."""
    identity = metric_identity(metric)
    return {name: state.get(name) for name in identity} == identity
