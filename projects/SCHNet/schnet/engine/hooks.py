"""What happens beside the steps of a run: evaluation, the metrics' files, periodic checkpoints.

The trainer registers them in this order: evaluate, keep the best, write the metrics, save. An
evaluation may take long, so the run is saved before it too, as one whose evaluation is `pending`:
killed in it, the run resumes with the evaluation. A checkpoint that is complete holds the results
of its own iteration, whose metrics are in the files already, so that resuming repeats nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from schnet.checkpoint import (
    FINAL_CHECKPOINT,
    INITIAL_CHECKPOINT,
    ParsingCheckpointer,
    checkpoint_name,
    latest_checkpoint,
    periodic_checkpoints,
)
from schnet.engine.agreement import agree_any
from schnet.engine.rng import gather_rng_states

Results = dict[str, Any]
"""Nested by data set (where there are several), task and metric; numbers in percent."""


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

    Its state is the latest results, so that a run which is resumed after its end can return them,
    and whether the evaluation of the saved iteration is still to come.

    Attributes:
        results: the latest ones; empty before the first, and on other processes than the main one.
        pending: the evaluation of the current iteration is due and not done.
        count: evaluations of this process, by which later hooks know that there was one.
    """

    def __init__(
        self,
        period: int,
        evaluate: Callable[[], Results],
        save: Callable[[int], None] | None = None,
        interruptible: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Start without results.

        Args:
            period: iterations between evaluations; 0 evaluates after the last only.
            evaluate: runs the evaluation; on other processes than the main one its result is
                empty.
            save: saves the run after an iteration, before that is evaluated; on all processes.
            interruptible: opens a context that a signal may end, as all is saved.
        """
        self._period = period
        self._evaluate = evaluate
        self._save = save
        self._interruptible = interruptible
        self.results: Results = {}
        self.pending = False
        self.count = 0

    def after_step(self) -> None:
        """Evaluate where it is due, and put the finite numbers among the run's metrics."""
        iteration = int(self.trainer.iter)
        if not (self.pending or is_due(iteration, self._period, self.trainer.max_iter)):
            return
        self.pending = True
        if self._save is not None:
            self._save(iteration)
        with self._interruptible():
            self.results = _plain(self._evaluate())
            comm.synchronize()
        self.pending = False
        self.count += 1
        flat = flatten_results_dict(self.results)
        # A class that occurs nowhere has no IoU, and NaN is no JSON.
        finite = {name: value for name, value in flat.items() if math.isfinite(value)}
        self.trainer.storage.put_scalars(**finite, smoothing_hint=False)

    def state_dict(self) -> dict[str, Any]:
        """The latest results, and whether newer ones are to come."""
        return {"results": self.results, "pending": self.pending}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them; a pending evaluation is then run at the start of the training."""
        self.results, self.pending = state["results"], state.get("pending", False)


class CheckpointHook(HookBase):
    """Saves before the first step, periodically, around evaluations and at the end.

    It is there on all processes, as a checkpoint holds the random numbers' state of each; the main
    one writes.
    """

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
        self._saved: int | None = None
        self._evaluated: int | None = None

    def before_train(self) -> None:
        """Save the start, so that resuming always finds a checkpoint."""
        is_main = comm.is_main_process()
        is_first = is_main and latest_checkpoint(self._checkpointer.save_dir) is None
        # The others may look when the main process has just written it.
        if agree_any(is_first)[0]:
            self._save(INITIAL_CHECKPOINT, -1)

    def after_step(self) -> None:
        """Save where it is due, or again after an evaluation."""
        iteration = int(self.trainer.iter)
        is_due_now = is_due(iteration, self._period, self.trainer.max_iter)
        if is_due_now or iteration == self._evaluated or self.trainer.stop_reason is not None:
            self.save(iteration)

    def save_before_evaluation(self, iteration: int) -> None:
        """Save a run whose evaluation is pending; `after_step` saves it again with the results."""
        self.save(iteration)
        self._saved, self._evaluated = None, iteration

    def save(self, iteration: int) -> None:
        """Save the run after an iteration, and remove earlier periodic ones beyond `keep`.

        Every process must call it; it returns when the file is written. Where the iteration is
        saved already, nothing happens.

        Raises:
            InputError: the file cannot be written; on the main process.
        """
        if self._saved == iteration:
            return
        is_last = self.trainer.stop_reason is not None or iteration + 1 == self.trainer.max_iter
        self._save(FINAL_CHECKPOINT if is_last else checkpoint_name(iteration), iteration)
        if comm.is_main_process():
            # Later ones were passed over as damaged, or left behind by a run that was set back;
            # counted as the newest, they would cost the one just written.
            for path in periodic_checkpoints(self._checkpointer.save_dir, iteration)[: -self._keep]:
                path.unlink()
        # The others must not leave a run, nor let it be killed, before it is saved.
        comm.synchronize()
        self._saved = iteration

    def _save(self, name: str, iteration: int) -> None:
        self._checkpointer.save(name, iteration=iteration, rng=gather_rng_states())


def _plain(results: Mapping[str, Any]) -> Results:
    """Nested dicts of floats, which a checkpoint can hold under `weights_only`."""
    return {
        name: _plain(value) if isinstance(value, Mapping) else float(value)
        for name, value in results.items()
    }
