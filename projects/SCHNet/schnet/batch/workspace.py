"""An output folder while a process works in it: what is done there, and what is this process's."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from schnet.batch.journal import Entry, Journal, file_version, join_files, read_entries
from schnet.batch.layout import (
    SUFFIXES,
    own_folder,
    part_file,
    part_files,
    rank_lock,
    results_file,
    unfinished_folder,
)
from schnet.batch.names import Planned, plan_names
from schnet.batch.shard import Shard
from schnet.errors import InputError
from schnet.file_locks import is_held, try_lock, waiting_lock
from schnet.image_files import real_path


@dataclass(frozen=True)
class Job:
    """A photo to parse.

    Attributes:
        path: as the user gave it.
        key: its resolved path, which it goes by in the records.
        number: its place in the plan of names.
        name: the base name of its results.
        version: of its file, see `file_version`.
        earlier: files of ours, relative to the output folder, that its results replace.
    """

    path: Path
    key: str
    number: int
    name: str
    version: tuple[int, ...]
    earlier: tuple[str, ...] = ()


@dataclass(frozen=True)
class Workspace:
    """What a process has to do in an output folder.

    Attributes:
        folder: of the results.
        unfinished: where its files are until they are whole.
        journal: where it notes what is finished.
        jobs: its photos that are to be parsed.
        finished: how many of its photos are done already.
        left_out: how many of the images asked for are results in this folder, and no photos.
    """

    folder: Path
    unfinished: Path
    journal: Journal
    jobs: Sequence[Job]
    finished: int
    left_out: int


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes:
        images: different photos; results of earlier runs among them are left out.
        run: `RunIdentity.id`.
        kinds: the results each photo shall have.
        overwrite: parse also what is finished.
    """

    images: Sequence[Path]
    run: str
    kinds: tuple[str, ...]
    overwrite: bool = False


@contextlib.contextmanager
def working_in(
    folder: Path, shard: Shard, wanted: Wanted, admit: Callable[[], None]
) -> Iterator[Workspace]:
    """Work in an output folder in the block; no other process of the same rank may.

    Which photos are done, which names they have, and where the lines of finished ones go is
    settled under a lock that processes take one after the other. The last one out makes one
    `results.jsonl` of all their lines.

    Args:
        folder: of the results; made where it is missing.
        shard: this process.
        wanted: what is asked for.
        admit: checks the folder, and notes what the results are made with; called under the lock.

    Raises:
        InputError: another process works here, a file of the user's is in the way, or the
            records cannot be read; nothing of the user's has been touched.
    """
    own_folder(folder).mkdir(parents=True, exist_ok=True)
    plan_lock = own_folder(folder) / "plan.lock"
    unfinished = unfinished_folder(folder, shard.rank)
    lines = results_file(folder) if shard.world == 1 else part_file(folder, shard.rank)
    with contextlib.ExitStack() as stack:
        with waiting_lock(plan_lock):
            admit()
            held = try_lock(rank_lock(folder, shard.rank))
            if held is None:
                raise InputError(
                    f"another `schnet parse` ({shard}) works in {folder}: wait for its end, or "
                    "give another --output folder"
                )
            stack.enter_context(held)
            if not _join_if_alone(folder, shard):
                join_files([lines], lines)
            jobs, finished, left_out = _settle(folder, shard, wanted)
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
        journal = Journal(lines)
        try:
            yield Workspace(folder, unfinished, journal, jobs, finished, left_out)
        finally:
            journal.close()
            shutil.rmtree(unfinished, ignore_errors=True)
            with waiting_lock(plan_lock):
                _join_if_alone(folder, shard)
                held.close()


def _join_if_alone(folder: Path, shard: Shard) -> bool:
    """Where no other process works here, join all lines, and remove what killed ones left."""
    own = rank_lock(folder, shard.rank)
    others = [lock for lock in own_folder(folder).glob("rank-*.lock") if lock != own]
    if any(is_held(lock) for lock in others):
        return False
    join_files([results_file(folder), *part_files(folder)], results_file(folder))
    for left in own_folder(folder).glob("unfinished-*"):
        shutil.rmtree(left, ignore_errors=True)
    return True


def _settle(folder: Path, shard: Shard, wanted: Wanted) -> tuple[list[Job], int, int]:
    """This process's photos to parse, how many it has that are done, and how many are results."""
    # The photos were listed before: of a result that was listed, the line is there by now.
    entries = read_entries([results_file(folder), *part_files(folder)])
    home = real_path(folder)
    ours = {str(home / file) for entry in entries.values() for file in entry.files}
    # Also those that were named: in `schnet parse *.jpg --output .` the shell names the overlays.
    keys = ((str(real_path(image)), image) for image in wanted.images)
    images = {key: image for key, image in keys if key not in ours}
    if not images:
        raise InputError(f"the input holds nothing but results in {folder}: name photos")
    plan = plan_names(list(images.values()), folder)
    jobs, finished = [], 0
    for key, image in images.items():
        job = _job(key, image, plan, entries)
        if not shard.owns(job.number):
            continue
        if not wanted.overwrite and _is_done(job, entries.get(job.key), wanted, home):
            finished += 1
        else:
            jobs.append(job)
    _refuse_foreign(jobs, home, {Path(file).relative_to(home).parts[0] for file in ours})
    return jobs, finished, len(wanted.images) - len(images)


def _job(key: str, image: Path, plan: Mapping[str, Planned], entries: Mapping[str, Entry]) -> Job:
    earlier = entries[key].files if key in entries else ()
    return Job(image, key, plan[key].number, plan[key].name, file_version(image), earlier)


def _is_done(job: Job, entry: Entry | None, wanted: Wanted, home: Path) -> bool:
    """Whether a photo's results are there, whole, and of this model and this photo."""
    return (
        entry is not None
        and not entry.failed
        and entry.run == wanted.run
        and entry.version == job.version
        and set(wanted.kinds) <= set(entry.kinds)
        and all(_is_written(home / file) for file in entry.files)
    )


def _is_written(path: Path) -> bool:
    """Whether a result is there with something in it: a power failure may leave files empty."""
    version = file_version(path)
    return bool(version) and version[0] > 0


def _refuse_foreign(jobs: Sequence[Job], home: Path, ours: Collection[str]) -> None:
    """Refuse to begin where a file that is not ours has the name of a result."""
    there = {path.name for path in home.iterdir()}
    for job in jobs:
        for name in (job.name + suffix for suffix in SUFFIXES):
            if name in there and name not in ours:
                raise InputError(
                    f"{home / name} exists and was not written by this command: give another "
                    "--output folder, or move that file away"
                )
