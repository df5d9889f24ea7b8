"""A run of hooks around steps that do nothing, whose evaluations give one value after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage

Results = dict[str, Any]


class ScriptedEvaluation(HookBase):
    """Stands for `EvaluationHook`: evaluates periodically, with results that are given."""

    def __init__(self, results: Iterable[Results], period: int = 1) -> None:
        self._script = iter(results)
        self._period = period
        self.results: Results = {}
        self.pending = False
        self.count = 0

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % self._period == 0:
            self.evaluate()

    def evaluate(self) -> None:
        self.results = next(self._script)
        self.count += 1


def of_metric(*values: float, name: str = "mIoU") -> list[Results]:
    """Results of one metric, one a value."""
    return [{"sem_seg": {name: value}} for value in values]


class HookRun:
    """Calls hooks as the trainer does; it is the trainer that they see.

    Attributes:
        stop_reason: why a hook ended the run, or None.
        done: the iterations that were run.
    """

    def __init__(
        self,
        hooks: Sequence[HookBase],
        start: int = 0,
        max_iter: int = 100,
        step: Callable[[EventStorage, int], None] = lambda storage, iteration: None,
    ) -> None:
        self._hooks = hooks
        self._step = step
        self.start_iter = self.iter = start
        self.max_iter = max_iter
        self.stop_reason: str | None = None
        self.done: list[int] = []
        for hook in hooks:
            hook.trainer = self

    def stop_early(self, reason: str) -> None:
        self.stop_reason = reason

    def train(self, stop: int, fail_at: int = -1) -> HookRun:
        """Run up to an iteration, or to where a hook ends it, or to a failure."""
        with EventStorage(self.start_iter) as self.storage:
            for hook in self._hooks:
                hook.before_train()
            while self.iter < stop and self.stop_reason is None and self.iter != fail_at:
                self.storage.iter = self.iter
                self._step(self.storage, self.iter)
                for hook in self._hooks:
                    hook.after_step()
                self.done.append(self.iter)
                self.iter += 1
            self.storage.iter = self.iter
            for hook in self._hooks:
                hook.after_train()
        return self
