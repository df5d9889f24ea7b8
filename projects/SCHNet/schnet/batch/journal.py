"""`results.jsonl`: a line for each photo that is finished, and how several such files become one.

A process appends to a file of its own: lines that several machines append to one file of a network
file system may be lost. Who reads takes all files, and of two lines of one photo the later.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schnet.data.files import atomic_path, name_in_errors
from schnet.errors import InputError


@dataclass(frozen=True)
class Entry:
    """What is kept in memory of a line.

    Attributes:
        run: `schnet.batch.run_file.RunIdentity.id` of the model and options.
        version: of the photo's file, see `file_version`; empty where it could not be had.
        kinds: which results there are: `labels`, `overlay`, `masks`.
        files: the results, relative to the output folder; also those of an earlier version, where
            the photo could not be parsed since.
        failed: there is an error in place of results.
        finished: seconds since 1970.
    """

    run: str
    version: tuple[int, ...]
    kinds: tuple[str, ...]
    files: tuple[str, ...]
    failed: bool
    finished: float


def file_version(path: Path) -> tuple[int, ...]:
    """Size in bytes and time of change in nanoseconds; empty where the file cannot be looked at."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # of a NUL in the path Python says ValueError
        return ()
    return (status.st_size, status.st_mtime_ns)


def read_entries(files: Sequence[Path]) -> dict[str, Entry]:
    """Read what is finished.

    Args:
        files: of lines; those that do not exist are empty.

    Returns:
        The latest entry of each photo, by its path.

    Raises:
        InputError: a file has a line that this command did not write.
    """
    return {path: entry for path, (entry, _) in _latest(files).items()}


def join_files(files: Sequence[Path], target: Path) -> None:
    """Make one file of several, with one line a photo, the latest; remove the others.

    Killed at any moment, nothing is lost. Nobody may append to the files meanwhile.

    Args:
        files: of lines; `target` may be one of them.
        target: the file to write.

    Raises:
        InputError: a file has a line that this command did not write.
    """
    kept = _latest(files)
    others = [file for file in files if file != target and file.exists()]
    if not kept and not target.exists() and not others:
        return
    wanted = {place for _, place in kept.values()}
    if others or not _is_exactly(target, len(wanted)):
        with atomic_path(target) as temporary, open(temporary, "wb") as joined:
            for number, file in enumerate(files):
                for index, line in enumerate(_whole_lines(file)):
                    if (number, index) in wanted:
                        joined.write(line)
    for file in others:
        file.unlink()


class Journal:
    """Appends lines, each by one write, so that a kill leaves no half of one."""

    def __init__(self, path: Path) -> None:
        """Open the file to append to.

        Args:
            path: it must end with a whole line, as `join_files` leaves it.
        """
        self._path = path
        with name_in_errors(path):
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self._lock = threading.Lock()

    def append(self, content: Mapping[str, Any]) -> None:
        """Add a line; the time is added to its content."""
        line = json.dumps({**content, "finished": time.time()}).encode() + b"\n"
        with self._lock, name_in_errors(self._path):
            while line:  # more than once only where a disk is full
                line = line[os.write(self._file, line) :]

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _latest(files: Sequence[Path]) -> dict[str, tuple[Entry, tuple[int, int]]]:
    """The latest entry of each photo, and the numbers of its file and line."""
    found: dict[str, tuple[Entry, tuple[int, int]]] = {}
    for number, file in enumerate(files):
        for index, line in enumerate(_whole_lines(file)):
            path, entry = _entry_of(line, file, index)
            if path not in found or found[path][0].finished <= entry.finished:
                found[path] = entry, (number, index)
    return found


def _whole_lines(file: Path) -> Iterator[bytes]:
    """Lines of a file but the last where a power failure cut it off."""
    if not file.exists():
        return
    with open(file, "rb") as lines:
        yield from (line for line in lines if line.endswith(b"\n"))


def _is_exactly(file: Path, count: int) -> bool:
    if not file.exists():
        return False
    with open(file, "rb") as lines:
        found = list(line.endswith(b"\n") for line in lines)
    return all(found) and len(found) == count


def _entry_of(line: bytes, file: Path, index: int) -> tuple[str, Entry]:
    try:
        content = json.loads(line)
        outputs = content.get("outputs", {})
        masks = outputs.get("masks", {})
        own = [outputs[kind] for kind in ("labels", "overlay") if kind in outputs]
        return str(content["input"]), Entry(
            run=content["run"],
            version=tuple(content["version"]),
            kinds=tuple(outputs),
            files=(*own, *masks.values(), *content.get("earlier_outputs", ())),
            failed="error" in content,
            finished=float(content["finished"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"line {index + 1} of {file} is none that this command wrote: remove the line, or give "
            "another --output folder"
        ) from error
