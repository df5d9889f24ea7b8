"""Locks between processes on files; the system lets go of them when a process ends, or is killed.

On network file systems they hold between machines too, where these keep POSIX locks (NFS 4 does).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import portalocker

from schnet.errors import InputError


@contextlib.contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Hold a lock in the block; waits until it is free."""
    with open(path, "a", encoding="utf-8") as file:
        _lock(file, path, portalocker.LockFlags.EXCLUSIVE)
        yield


def try_lock(path: Path) -> IO[str] | None:
    """Take a lock; closing the file gives it back.

    Returns:
        The open file, or None where another process holds it.
    """
    file = open(path, "a", encoding="utf-8")  # noqa: SIM115  open for as long as the lock is held
    try:
        _lock(file, path, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.AlreadyLocked:
        file.close()
        return None
    except BaseException:
        file.close()
        raise
    return file


def is_held(path: Path) -> bool:
    """Whether some process holds a lock."""
    file = try_lock(path)
    if file is None:
        return True
    file.close()
    return False


def _lock(file: IO[str], path: Path, flags: portalocker.LockFlags) -> None:
    try:
        portalocker.lock(file, flags)
    except portalocker.AlreadyLocked:
        raise
    except portalocker.LockException as error:
        raise InputError(
            f"the file system of {path} has no locks ({error}): give an --output folder on another"
        ) from error
