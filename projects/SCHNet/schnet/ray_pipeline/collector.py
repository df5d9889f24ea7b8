"""Gathers rows, in whatever order they come, until a shard is whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from schnet.ray_pipeline.job import Job

Row = Mapping[str, Any]


class ShardCollector:
    """Rows of the shards that are under way.

    Attributes:
        waiting: shards of which some rows are there.
    """

    def __init__(self, job: Job, done: Iterable[int] = ()) -> None:
        """Take the job, and the shards that are committed already."""
        self._job = job
        self._done = set(done)
        self.waiting: dict[int, dict[int, Row]] = {}

    def add(self, row: Row) -> tuple[int, list[Row]] | None:
        """Take a row; a photo that came before, from a task that was run again, counts once.

        Args:
            row: with the photo's `number`.

        Returns:
            The shard that is whole with it and its rows in order, to be committed; else None.
        """
        shard = row["number"] // self._job.rows_per_shard
        if shard in self._done:
            return None
        rows = self.waiting.setdefault(shard, {})
        rows.setdefault(row["number"], row)
        if len(rows) < self._job.rows(shard):
            return None
        self._done.add(shard)
        del self.waiting[shard]
        return shard, [rows[number] for number in sorted(rows)]
