"""The job on Ray: tasks read and decode, actors parse, tasks encode, the driver commits.

Ray runs tasks again that a dead worker left, so that its own writes may be there twice. Here only
this process writes: rows come to it once or more, a shard is committed once.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import ray
from ray import exceptions
from ray.data import ActorPoolStrategy, DataContext, Dataset
from tqdm import tqdm

from schnet.errors import InputError
from schnet.photo_parser import PhotoParser
from schnet.ray_pipeline.collector import Row, ShardCollector
from schnet.ray_pipeline.deaths import death_told, is_defect
from schnet.ray_pipeline.folder_input import FolderInput, holds_photo
from schnet.ray_pipeline.job import (
    SUCCESS_FILE,
    Job,
    begin_or_resume,
    committed_shards,
    only_writer,
    shard_path,
    write_success,
)
from schnet.ray_pipeline.parquet_input import ParquetInput, first_parquet
from schnet.ray_pipeline.photo_source import PhotoSource, ReadUnit
from schnet.ray_pipeline.room import Workers, alive_nodes, require_room
from schnet.ray_pipeline.stages import EncodeLabels, ParsePhotos, read_photos
from schnet.ray_pipeline.tables import count_errors, shard_fault, write_shard

TASK_RETRIES = 3
"""How often a batch is tried again whose actor died; a photo that kills each ends the job."""

ACTOR_RESTARTS = 32
"""How often Ray starts an actor again; one that dies of loading its model would never end else."""

LOCAL = "local"
"""The address by which Ray starts a cluster of its own."""

_BLOCKS = 4096
_DEATHS = (
    exceptions.NodeDiedError,
    exceptions.ObjectStoreFullError,
    exceptions.OutOfDiskError,
    exceptions.OutOfMemoryError,
    exceptions.RayActorError,
    exceptions.WorkerCrashedError,
)


@dataclass(frozen=True)
class Done:
    """What a job came to.

    Attributes:
        photos: all of the input.
        errors: how many of them could not be read.
        parsed_now: how many were not there before.
    """

    photos: int
    errors: int
    parsed_now: int


def open_input(path: Path, id_column: str = "id", image_column: str = "image") -> PhotoSource:
    """Find out what an input is: a folder of photos, or Parquet files of photos.

    Args:
        path: a folder or a Parquet file.
        id_column: see `ParquetInput`.
        image_column: see `ParquetInput`.

    Raises:
        InputError: it is neither, or both, or cannot be used.
    """
    if not path.exists():
        raise InputError(f"there is no {path}: give a folder of photos, or Parquet files of photos")
    table = first_parquet(path) if path.is_dir() else path
    if table is None:
        return FolderInput(path)
    if path.is_dir() and holds_photo(path):
        raise InputError(
            f"the folder {path} holds photos and Parquet files ({table.name}): give a folder of "
            "either"
        )
    return ParquetInput(path, id_column, image_column)


@contextlib.contextmanager
def cluster(
    address: str | None = None, temp_dir: Path | None = None, num_cpus: int | None = None
) -> Iterator[None]:
    """Join a cluster, or start one of this machine alone and end it afterwards.

    Args:
        address: `auto`, or where the cluster's head is; None takes RAY_ADDRESS, and starts one
            where that is not set.
        temp_dir: of the started one, for its logs and sockets; short, since a socket's path may
            have 107 characters.
        num_cpus: of the started one; None takes the machine's.

    Raises:
        InputError: there is no cluster at the address, or `temp_dir` cannot be used.
    """
    # Nobody is told of this run, unless the user says otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # An actor that asked for no GPU sees none, as Ray will have it in future.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Not None, by which Ray would join, or wait for, whatever cluster was started here last.
    address = address or os.environ.get("RAY_ADDRESS") or LOCAL
    own: dict[str, Any] = {}
    if address == LOCAL:
        own = {"num_cpus": num_cpus, "include_dashboard": False}
        own |= {"_temp_dir": os.path.abspath(temp_dir)} if temp_dir else {}
    try:
        ray.init(address, logging_level=logging.WARNING, log_to_driver=False, **own)
    except ConnectionError as error:
        raise InputError(
            f"there is no Ray cluster at {address} ({error}): start one with `ray start`, or leave "
            "--address and RAY_ADDRESS out"
        ) from None
    except OSError as error:
        if "_temp_dir" not in own:
            raise
        raise InputError(
            f"--temp-dir {temp_dir} cannot be used ({error}): give a folder with a short path that "
            "may be written to"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def run_job(
    source: PhotoSource,
    job: Job,
    folder: Path,
    load: Callable[[], PhotoParser],
    workers: Workers,
    *,
    resume: bool = False,
) -> Done:
    """Parse all photos of a source that are not there yet; Ray has been started.

    Args:
        source: the photos.
        job: what `source` and the model make of it.
        folder: where the shards go; seen by this process alone.
        load: loads the model, in an actor; Ray copies it there.
        workers: what the job runs on.
        resume: go on with the folder's job.

    Raises:
        InputError: the folder holds another job or other files, the model cannot be loaded or
            fails on a photo, the storage fails, workers die again and again or cannot be
            started, or the cluster is too small.
    """
    require_room(alive_nodes(ray.nodes()), workers)
    with only_writer(folder):
        begin_or_resume(folder, job, source.files, resume)
        done = committed_shards(folder, job, shard_fault)
        errors = {shard: count_errors(shard_path(folder, shard)) for shard in done}
        before = sum(job.rows(shard) for shard in done)
        units = list(source.units(job.missing(done)))
        if units:
            with (
                contextlib.closing(_parsed_rows(units, job, load, workers)) as rows,
                tqdm(total=job.photos, initial=before, desc="parsing", unit="photo") as bar,
            ):
                errors |= _commit(rows, ShardCollector(job, done), folder, job, bar)
        if units or not (folder / SUCCESS_FILE).is_file():
            write_success(folder, job, errors)
    return Done(job.photos, sum(errors.values()), job.photos - before)


def _commit(
    rows: Iterable[Row], collector: ShardCollector, folder: Path, job: Job, bar: tqdm[Any]
) -> dict[int, int]:
    """Write each shard as soon as it is whole; how many errors each has."""
    errors = {}
    for row in rows:
        known = collector.photos
        whole = collector.add(row)
        bar.update(collector.photos - known)
        if whole is not None:
            shard, photos = whole
            write_shard(folder, job, shard, photos)
            errors[shard] = sum(photo["error"] is not None for photo in photos)
    return errors


def _parsed_rows(
    units: Sequence[ReadUnit], job: Job, load: Callable[[], PhotoParser], workers: Workers
) -> Generator[Row, None, None]:
    """Rows as they are finished, in any order.

    Raises:
        InputError: see `run_job`.
    """
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    with DataContext.current(context):
        dataset = _dataset(units, job, load, workers)
        batches = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))
        try:
            # Closed before Ray is: what is under way would wait for it without end.
            with contextlib.closing(cast(Generator[pa.Table, None, None], batches)) as tables:
                for table in tables:
                    for row in table.to_pylist():
                        if row["fatal"] is not None:
                            raise InputError(row["fatal"])
                        yield row
        except _DEATHS as error:
            if is_defect(error):
                raise
            raise InputError(death_told(error)) from error


def _dataset(
    units: Sequence[ReadUnit], job: Job, load: Callable[[], PhotoParser], workers: Workers
) -> Dataset:
    on = {"num_gpus": workers.gpus} if workers.gpus else {"num_cpus": workers.cpus}
    dataset: Dataset = ray.data.from_items(
        [{"unit": unit.dumps()} for unit in units], override_num_blocks=min(len(units), _BLOCKS)
    )
    # One unit at a time: the tables that come of it are of bounded size.
    dataset = dataset.map_batches(read_photos, batch_size=1, batch_format="pyarrow")
    dataset = dataset.map_batches(
        ParsePhotos,
        fn_constructor_args=(load,),
        batch_size=workers.batch_size,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=workers.actors),
        max_restarts=ACTOR_RESTARTS,
        max_task_retries=TASK_RETRIES,
        **on,
    )
    return dataset.map_batches(
        EncodeLabels(job.palette).__call__, batch_size=workers.batch_size, batch_format="pyarrow"
    )
