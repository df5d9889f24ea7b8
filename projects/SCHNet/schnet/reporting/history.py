"""A run's numbers over its iterations, read from `metrics.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from schnet.evaluation.watched_metric import is_named, lower_is_better

Point = tuple[int, float]
"""An iteration, from 0, and a value."""

METRICS_FILE = "metrics.json"
STEP_METRIC = "total_loss"
"""A record of training steps has it; an evaluation's alone has not."""


@dataclass(frozen=True)
class Best:
    """The best value of a metric.

    Attributes:
        name: the metric's name in `metrics.json`, such as `sem_seg/mIoU`.
        iteration: from 0.
        value: in the metric's own unit.
    """

    name: str
    iteration: int
    value: float


@dataclass(frozen=True)
class History:
    """What a run wrote while it trained.

    Attributes:
        records: one an iteration that something was written for, ascending.
        unreadable: lines that are no record, such as one that a kill cut off.
    """

    records: Sequence[Mapping[str, float]]
    unreadable: int = 0

    @property
    def last_iteration(self) -> int:
        """The newest iteration, from 0; -1 where nothing was written."""
        return int(self.records[-1]["iteration"]) if self.records else -1

    def series(self, name: str) -> list[Point]:
        """The finite values of one metric."""
        points = [(int(r["iteration"]), float(r[name])) for r in self.records if name in r]
        return [point for point in points if math.isfinite(point[1])]

    def names(self, metric: str) -> list[str]:
        """The full names that a metric goes by: one, or one a data set; see `is_named`."""
        known = dict.fromkeys(name for record in self.records for name in record)
        return [name for name in known if is_named(name, metric)]

    def best(self, metric: str, mode: str, datasets: Sequence[str] = ()) -> Best | None:
        """Find the best value of a metric.

        Args:
            metric: as TEST.BEST_METRIC has it, such as `mIoU` or `val/loss`.
            mode: `max` or `min`; `auto` is `min` for losses.
            datasets: of several that are evaluated, the first counts.

        Returns:
            The first of equal values; None where there is no value.
        """
        names = self.names(metric)
        own = [name for dataset in datasets for name in names if name.startswith(f"{dataset}/")]
        names = own or names
        if not names:
            return None
        sign = -1 if lower_is_better(metric, mode) else 1
        points = self.series(names[0])
        if not points:
            return None
        iteration, value = max(points, key=lambda point: sign * point[1])
        return Best(names[0], iteration, value)

    def seconds(self) -> float:
        """Time spent in steps: each record's seconds a step, for the steps since the one before."""
        total, before = 0.0, -1
        for iteration, time in self.series("time"):
            total += time * (iteration - before)
            before = iteration
        return total


def read_history(folder: Path) -> History:
    """Read a run's `metrics.json`; a run without one has an empty history.

    After a resume an iteration may occur again: the later line counts, and what the earlier
    process wrote beyond the point of resuming belongs to steps that were undone.
    """
    try:
        text = (folder / METRICS_FILE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return History(())
    lines = [line for line in text.splitlines() if line.strip()]
    parsed = [_parse(line) for line in lines]
    records = [record for record in parsed if record is not None]
    return History(tuple(_merged(records)), unreadable=len(parsed) - len(records))


def _parse(line: str) -> dict[str, float] | None:
    try:
        content = json.loads(line)
    except ValueError:
        return None
    if not isinstance(content, dict) or not isinstance(content.get("iteration"), int):
        return None
    return {
        str(name): value
        for name, value in content.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _merged(records: Iterable[dict[str, float]]) -> list[dict[str, float]]:
    """One record an iteration, ascending, without those that a resume undid.

    A writer may write an evaluation's line after a later step's, so that only steps that go back
    tell of a resume.
    """
    kept: dict[float, dict[str, float]] = {}
    newest_step = -1.0
    for record in records:
        iteration = record["iteration"]
        if STEP_METRIC in record:
            if iteration < newest_step:
                kept = {other: kept[other] for other in kept if other < iteration}
            newest_step = iteration
        kept[iteration] = {**kept.get(iteration, {}), **record}
    return [kept[iteration] for iteration in sorted(kept)]


def smoothed(points: Sequence[Point], window: int) -> list[Point]:
    """Take the mean over a window of values, centred; at the ends, over what there is of it.

    Args:
        points: ascending.
        window: number of values, odd.
    """
    half = window // 2
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    result = []
    for index, (iteration, _) in enumerate(points):
        low, high = max(0, index - half), min(len(points), index + half + 1)
        result.append((iteration, (sums[high] - sums[low]) / (high - low)))
    return result


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """Keep the lowest and the highest value of each run of points, so that no peak is lost.

    Args:
        points: ascending.
        most: points that may remain, >= 2.
    """
    if len(points) <= most:
        return list(points)
    bins = most // 2
    kept: set[int] = set()
    for number in range(bins):
        indices = range(number * len(points) // bins, (number + 1) * len(points) // bins)
        kept.add(min(indices, key=lambda i: points[i][1]))
        kept.add(max(indices, key=lambda i: points[i][1]))
    return [points[index] for index in sorted(kept)]
