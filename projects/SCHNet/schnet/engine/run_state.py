"""How far a run has come, apart from its model, optimizer and hooks: saved, and taken up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from schnet.data.broken import BrokenImages
from schnet.engine.agreement import agree_any
from schnet.engine.metric_history import history_state, restore_history
from schnet.engine.rng import RngState, restore_rng


class RunState:
    """Position in the data, broken images, latest metrics, random numbers.

    Attributes:
        draws: images that all processes together have taken: the position in their order, whatever
            size the batches had.
        broken: the broken images met so far.
        rng: each process's random numbers as a checkpoint holds them; None for a run that starts.
    """

    def __init__(self, max_broken: int) -> None:
        """Be at the start of a run that goes on without `max_broken` broken images."""
        self.draws = 0
        self.broken = BrokenImages(max_broken)
        self.rng: Sequence[RngState] | None = None
        self._metrics: Mapping[str, Any] = {}

    def finish_step(self, images: int, stop: bool) -> bool:
        """Count a step, and agree with the other processes; every process must call it.

        Args:
            images: that all processes together took for the step.
            stop: whether this process has been asked to stop.

        Returns:
            Whether any process has been asked to stop.

        Raises:
            InputError: all processes together have met too many broken images.
        """
        self.draws += images
        stop_all, any_broken = agree_any(stop, self.broken.has_news)
        if any_broken:
            for found in comm.all_gather(self.broken.take_news()):
                self.broken.add(found)
            self.broken.take_news()
        return stop_all

    def state_dict(self, storage: EventStorage) -> dict[str, Any]:
        """Position, broken images and latest metrics, in plain types, without the random numbers.

        Args:
            storage: the run's metrics.
        """
        return {
            "draws": self.draws,
            "broken": self.broken.state_dict(),
            "metrics": history_state(storage),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave; the metrics wait for `restore`."""
        self.draws = int(state["draws"])
        self.broken.load_state_dict(state["broken"])
        self._metrics = state["metrics"]

    def restore(
        self, storage: EventStorage, seed: int, iteration: int, unwritten: int | None
    ) -> None:
        """Put back what belongs to the process: metrics and random numbers; last before a step.

        Args:
            storage: of the resumed run; its iteration stays.
            seed: the run's seed.
            iteration: the first one to run.
            unwritten: the iteration whose metrics no writer has written; None where all have been.
        """
        if self.rng is not None:
            restore_history(storage, self._metrics, unwritten)
            restore_rng(self.rng, seed, iteration)
