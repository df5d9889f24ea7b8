"""The Parquet that a job writes: one row a photo."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schnet.data.files import atomic_path
from schnet.ray_pipeline.job import Job, shard_path
from schnet.versions import version_of

METADATA_KEY = b"schnet"
"""Where the schema's metadata have classes, palette and the model's digest, as JSON."""

Row = Mapping[str, Any]


def output_schema(job: Job) -> pa.Schema:
    """Columns of the shards.

    `id`; `height` and `width` of the upright photo, in pixels; `labels`, an index PNG of that size
    in the palette; `areas`, a struct with the pixels of each class; `error`, a sentence. A row has
    either an error or all the others.
    """
    areas = pa.struct([(name, pa.int64()) for name in job.classes])
    known = {"classes": job.classes, "palette": job.palette, "model": job.model}
    metadata = json.dumps({**known, "schnet_version": version_of("schnet")}).encode()
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("labels", pa.binary()),
            ("areas", areas),
            ("error", pa.string()),
        ],
        metadata={METADATA_KEY: metadata},
    )


def write_shard(folder: Path, job: Job, shard: int, rows: Sequence[Row]) -> None:
    """Commit a shard: write it under another name, make sure that it is on disk, and move it.

    Args:
        folder: of the job.
        job: whose shard it is.
        shard: its number.
        rows: `id`, `height`, `width`, `data` (the PNG), `areas` (K numbers) and `error` of each
            photo, in order; None where there is none.

    Raises:
        ValueError: the rows are not as many as the shard's photos.
    """
    if len(rows) != job.rows(shard):
        raise ValueError(f"shard {shard} has {len(rows)} rows of {job.rows(shard)}")
    schema = output_schema(job)
    table = pa.Table.from_pylist([_output_row(job.classes, row) for row in rows], schema=schema)
    with atomic_path(shard_path(folder, shard)) as temporary:
        # PNGs do not get smaller.
        pq.write_table(table, temporary, compression={"id": "zstd", "error": "zstd"})
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())


def shard_fault(path: Path, rows: int) -> str:
    """What is wrong with a shard's file; empty where it is whole and has so many rows."""
    try:
        with pq.ParquetFile(path) as file:
            found = file.metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        return str(error)
    return "" if found == rows else f"it has {found} rows, not {rows}"


def count_errors(path: Path) -> int:
    """How many photos of a shard could not be read."""
    errors = pq.read_table(path, columns=["error"]).column(0)
    return len(errors) - errors.null_count


def _output_row(classes: Sequence[str], row: Row) -> dict[str, Any]:
    areas = row["areas"]
    kept = {name: row[name] for name in ("id", "height", "width", "error")}
    named = None if areas is None else dict(zip(classes, areas, strict=True))
    return {**kept, "labels": row["data"], "areas": named}
