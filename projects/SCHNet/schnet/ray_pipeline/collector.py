"""Gathers rows, in whatever order they come, until a shard is whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from schnet.ray_pipeline.job import Job

Row = Mapping[str, Any]


class ShardCollector:
    """Rows of the shards that are under way.

    Attributes:
        waiting: rows by number, of shards of which some are there.
        photos: how many different ones came.
    """

    def __init__(self, job: Job, done: Iterable[int] = ()) -> None:
        """Take the job, and the shards that are committed already."""
        self._job = job
        self._done = set(done)
        self.waiting: dict[int, dict[int, Row]] = {}
        self.photos = 0

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
        if row["number"] in rows:
            return None
        rows[row["number"]] = row
        self.photos += 1
        if len(rows) < self._job.rows(shard):
            return None
        self._done.add(shard)
        del self.waiting[shard]
        return shard, [rows[number] for number in sorted(rows)]
