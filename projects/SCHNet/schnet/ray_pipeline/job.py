"""A job's folder: what was begun, which shards are there, and that it is done.

The photos are cut into shards by their numbers, and a shard is one Parquet file named by its own
number. It is written under another name and moved, so that a reader meets whole shards alone and a
shard that is written twice is there once. `_job.json` and `_inputs.jsonl` come before the first
shard, `_SUCCESS` after the last; readers of Parquet pass names over that begin with `_` or `.`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from schnet.data.files import atomic_path
from schnet.errors import InputError
from schnet.file_locks import try_lock
from schnet.ray_pipeline.photo_source import InputFile, Stretch

FORMAT = 1
JOB_FILE = "_job.json"
INPUTS_FILE = "_inputs.jsonl"
SUCCESS_FILE = "_SUCCESS"
LOCK_FILE = "_lock"
SHARD_PATTERN = "part-*.parquet"
# What `atomic_path` writes to; a killed process leaves it.
UNFINISHED_PATTERN = ".part-*.parquet"


@dataclass(frozen=True)
class Job:
    """What is to be done; two runs of one job agree in all of it.

    Attributes:
        model: digest of the weights and of what else the label maps depend on.
        classes: K names, in label order.
        palette: K colours (r, g, b) in 0..255.
        source: kind and options of the input, see `PhotoSource.describe`.
        photos: how many there are.
        rows_per_shard: photos of a shard; the last has what remains.
    """

    model: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    source: Mapping[str, str]
    photos: int
    rows_per_shard: int

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.photos // self.rows_per_shard)

    def stretch(self, shard: int) -> Stretch:
        """Numbers of a shard's photos."""
        first = shard * self.rows_per_shard
        return first, min(first + self.rows_per_shard, self.photos)

    def rows(self, shard: int) -> int:
        """How many photos a shard has."""
        start, stop = self.stretch(shard)
        return stop - start

    def missing(self, done: Iterable[int]) -> list[Stretch]:
        """Stretches of the photos whose shards are not there yet, in order."""
        there = set(done)
        return [self.stretch(shard) for shard in range(self.shards) if shard not in there]


def shard_path(folder: Path, shard: int) -> Path:
    """Where a shard is, once it is whole."""
    return folder / f"part-{shard:06d}.parquet"


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder; the lock of a killed process is gone with it.

    Raises:
        InputError: another process holds it, or the file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = try_lock(folder / LOCK_FILE)
    if file is None:
        raise InputError(
            f"another job is writing to {folder}: wait until it ends, or give another --output"
        )
    with file:
        yield


def require_apart(source: Path, folder: Path) -> None:
    """Refuse to write among what is read: the shards would be input when the job goes on.

    Args:
        source: folder or file of the input.
        folder: of the job; it need not be there.

    Raises:
        InputError: the job's folder is the input, or lies below it.
    """
    inside, around = folder.resolve(), source.resolve()
    if inside == around or around in inside.parents:
        raise InputError(
            f"--output {folder} is --input {source} or lies in it, so that its files would be "
            "input themselves: give a folder elsewhere as --output"
        )


def begin_or_resume(
    folder: Path, job: Job, files: Sequence[InputFile], resume: bool = False
) -> bool:
    """Write down what is to be done, or make sure that the folder's job is this one.

    A job without a shard is begun anew, whatever it was: there is nothing of it to lose.

    Args:
        folder: of the job, held by `only_writer`.
        job: what is to be done now.
        files: the input's, as they are now.
        resume: go on where a job was begun.

    Returns:
        Whether a job was begun before.

    Raises:
        InputError: the folder holds other files, a job and `resume` is false, or another job.
    """
    begun = (folder / JOB_FILE).is_file()
    if begun and any(folder.glob(SHARD_PATTERN)):
        if not resume:
            raise InputError(
                f"{folder} holds a job that was begun before: give --resume to go on with it, or "
                "another --output"
            )
        _require_same(folder, _read_job(folder / JOB_FILE), job)
        _require_same_files(folder, files)
        return True
    # A job that was killed before its first shard has left no more than these.
    own = {LOCK_FILE, INPUTS_FILE, JOB_FILE}
    others = sorted(p.name for p in folder.iterdir() if p.name not in own and p.name[0] != ".")
    if others:
        raise InputError(
            f"{folder} holds {others[0]}, which no job of this command wrote: give an empty or new "
            "folder as --output"
        )
    with atomic_path(folder / INPUTS_FILE) as temporary:
        with open(temporary, "w", encoding="utf-8") as lines:
            lines.writelines(f"{json.dumps(asdict(file))}\n" for file in files)
    # Last: where it is, all is.
    write_json(folder / JOB_FILE, {"format": FORMAT, **asdict(job)})
    return False


def committed_shards(folder: Path, job: Job, fault: Callable[[Path, int], str]) -> set[int]:
    """Find the shards that need not be made again.

    Args:
        folder: of the job.
        job: whose shards they are.
        fault: what is wrong with a file of so many rows, empty for nothing; such a file, which
            only a failing disk leaves, is removed.

    Returns:
        Their numbers. What a killed process left half-written is removed.

    Raises:
        InputError: there is a file that the job has no shard for.
    """
    for left in folder.glob(UNFINISHED_PATTERN):
        left.unlink()
    done = set()
    numbers = {shard_path(folder, shard): shard for shard in range(job.shards)}
    for path in sorted(folder.glob(SHARD_PATTERN)):
        if path not in numbers:
            raise InputError(f"{path} is no shard of the job in its folder: move it away")
        if fault(path, job.rows(numbers[path])):
            path.unlink()
        else:
            done.add(numbers[path])
    return done


def write_success(folder: Path, job: Job, errors: Mapping[int, int]) -> None:
    """Say that all is there: every shard with its rows and errors.

    Args:
        folder: of the job.
        job: what was done.
        errors: of each committed shard, how many of its photos could not be read.

    Raises:
        RuntimeError: a shard is missing, which is a defect.
    """
    if set(errors) != set(range(job.shards)):
        missing = sorted(set(range(job.shards)) - set(errors))
        raise RuntimeError(f"the job in {folder} ended without the shards {missing}")
    shards = [
        {"file": shard_path(folder, shard).name, "rows": job.rows(shard), "errors": errors[shard]}
        for shard in range(job.shards)
    ]
    content = {"rows": job.photos, "errors": sum(errors.values()), "shards": shards}
    write_json(folder / SUCCESS_FILE, {"format": FORMAT, "model": job.model, **content})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(f"{json.dumps(content, indent=1)}\n", encoding="utf-8")


def _read_job(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read ({' '.join(str(error).split())}): give another --output"
        ) from None
    if version != FORMAT:
        raise InputError(
            f"{path} is of format {version}, and this version writes format {FORMAT}: finish the "
            "job with the version that began it, or give another --output"
        )
    return content


def _require_same(folder: Path, earlier: Mapping[str, Any], job: Job) -> None:
    """Compare what was begun with what is asked for; the first difference is told."""
    rows, before = job.rows_per_shard, earlier["rows_per_shard"]
    if earlier["model"] != job.model:
        raise InputError(
            f"the job in {folder} was begun with another model (digest {earlier['model'][:12]}, "
            f"now {job.model[:12]}): give the weights and options that it began with, or another "
            "--output"
        )
    if rows != before:
        raise InputError(
            f"the job in {folder} was begun with {before} rows a shard, not {rows}: give "
            f"--rows-per-shard {before}, or another --output"
        )
    if earlier["source"] != dict(job.source):
        raise InputError(
            f"the job in {folder} was begun with the input {_told(earlier['source'])}, not "
            f"{_told(job.source)}: give that, or another --output"
        )


def _require_same_files(folder: Path, files: Sequence[InputFile]) -> None:
    with open(folder / INPUTS_FILE, encoding="utf-8") as lines:
        before = (InputFile(**json.loads(line)) for line in lines)
        for old, new in zip_longest(before, files):
            if old == new:
                continue
            if old is not None and new is not None and old.name == new.name:
                change = f"{new.name} has been changed"
            elif new is None or (old is not None and old.name < new.name):
                change = f"{old.name} is gone"
            else:
                change = f"{new.name} is new"
            raise InputError(
                f"the input is another than when the job in {folder} was begun ({change}): put it "
                "back, or give another --output"
            )


def _told(source: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in source.items())
