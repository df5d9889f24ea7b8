"""What a run does once after each of its evaluations."""

from __future__ import annotations

from abc import abstractmethod

from detectron2.engine import HookBase

from schnet.engine.hooks import EvaluationHook


class AfterEvaluationHook(HookBase):
    """Acts once on each evaluation of this process; registered after the evaluation's hook.

    An evaluation follows a step. One that was interrupted is made up for before the first step of
    the run that resumes, and acted on there.
    """

    def __init__(self, evaluation: EvaluationHook) -> None:
        """Take the hook that runs before this one and holds the results."""
        self._evaluation = evaluation
        self._acted = evaluation.count

    @abstractmethod
    def after_evaluation(self, iteration: int) -> None:
        """Act on the evaluation's results.

        Args:
            iteration: the one after which the evaluation took place.
        """

    def before_train(self) -> None:
        """Act on an evaluation that was made up for."""
        self._act(self.trainer.start_iter - 1)

    def after_step(self) -> None:
        """Act on the evaluation of this iteration, where there was one."""
        self._act(self.trainer.iter)

    def _act(self, iteration: int) -> None:
        if self._evaluation.count != self._acted:
            self._acted = self._evaluation.count
            self.after_evaluation(int(iteration))
