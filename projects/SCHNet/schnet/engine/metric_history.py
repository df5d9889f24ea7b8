"""The latest metrics of a run in its checkpoints, so that smoothed curves go on where they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.utils.events import EventStorage

from schnet.engine.run_writer import SMOOTHING_WINDOW


def history_state(storage: EventStorage) -> dict[str, Any]:
    """The latest values of each metric.

    Returns:
        By metric: `values` and `iterations` (lists of one length, at most `SMOOTHING_WINDOW`,
        oldest first) and `smooth`, whether writers take a median of it.
    """
    smooth = storage.smoothing_hints()
    state: dict[str, Any] = {}
    for name, history in storage.histories().items():
        values, iterations = zip(*history.values()[-SMOOTHING_WINDOW:], strict=True)
        state[name] = {
            "values": [float(value) for value in values],
            "iterations": [int(iteration) for iteration in iterations],
            "smooth": bool(smooth[name]),
        }
    return state


def restore_history(
    storage: EventStorage, state: Mapping[str, Any], unwritten: int | None = None
) -> None:
    """Put the values back into a storage that has none; its iteration stays.

    Writers take them into their medians and do not write them again, but for those of `unwritten`.

    Args:
        storage: of the resumed run.
        state: as `history_state` gave it.
        unwritten: the iteration whose metrics were not written yet; None where all were.
    """
    iteration = storage.iter
    for name, metric in state.items():
        latest = metric["iterations"][-1]
        if not metric["smooth"] and latest != unwritten:
            continue
        for value, storage.iter in zip(metric["values"], metric["iterations"], strict=True):
            storage.put_scalar(name, value, smoothing_hint=metric["smooth"])
        if latest != unwritten:
            # Writers leave out what is not newer than what they wrote last: at the start, -1.
            storage.latest()[name] = (metric["values"][-1], -1)
    storage.iter = iteration
