"""What the writers of a run's numbers have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from detectron2.utils.events import EventWriter

SMOOTHING_WINDOW = 20
"""Values whose median stands for a noisy scalar, as in Detectron2's own writers."""


class RunWriter(EventWriter):
    """A writer that is told where the run begins, and writes each value once."""

    def __init__(self) -> None:
        """Start with nothing written."""
        self._last_iteration = -1

    def start(self, iteration: int, resumes: bool) -> None:
        """Prepare for the values of this process.

        Args:
            iteration: the first whose values are to come; where its evaluation is made up for,
                the one before the first step.
            resumes: whether a run goes on; False for one that starts.
        """

    def new_scalars(self, storage: Any) -> Iterator[tuple[int, dict[str, float]]]:
        """Take the scalars that were put since the last call.

        Args:
            storage: Detectron2's event storage.

        Yields:
            An iteration and its values by name, in ascending order.
        """
        rows: dict[int, dict[str, float]] = {}
        for name, (value, iteration) in storage.latest_with_smoothing_hint(
            SMOOTHING_WINDOW
        ).items():
            if iteration > self._last_iteration:
                rows.setdefault(int(iteration), {})[name] = float(value)
        for iteration in sorted(rows):
            self._last_iteration = iteration
            yield iteration, rows[iteration]
