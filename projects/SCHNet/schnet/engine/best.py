"""The best checkpoint of a run: which evaluation it comes from, and keeping it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from detectron2.engine import HookBase

from schnet.checkpoint import ParsingCheckpointer
from schnet.engine.hooks import EvaluationHook, Results

logger = logging.getLogger(__name__)

BEST_CHECKPOINT = "model_best"


class BestCheckpointHook(HookBase):
    """Keeps the model of the highest metric as `model_best.pth`; on the main process.

    Its state is the best value and its iteration, so that a resumed run goes on comparing.
    """

    def __init__(
        self,
        evaluation: EvaluationHook,
        checkpointer: ParsingCheckpointer,
        metric: str,
        weights: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Start without a best value.

        Args:
            evaluation: the hook that runs before this one and holds the results.
            checkpointer: writes the file.
            metric: name of the metric, such as `mIoU`, of the first data set that is evaluated.
            weights: puts the weights that are evaluated into the model while it is open: their
                average where the run keeps one.
        """
        self._evaluation = evaluation
        self._checkpointer = checkpointer
        self._metric = metric
        self._weights = weights
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
        with self._weights():
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
