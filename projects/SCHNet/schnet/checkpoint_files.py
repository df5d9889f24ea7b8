"""A run's checkpoint files: their names and order, whole writing, and which are damaged."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from schnet.errors import InputError
from schnet.weight_files import read_torch_file

logger = logging.getLogger(__name__)

INITIAL_CHECKPOINT = "model_init"
FINAL_CHECKPOINT = "model_final"
LAST_FILE = "last_checkpoint"
"""Name of the file that names the checkpoint which a run resumes from."""

_PERIODIC = re.compile(r"model_(\d{7,})\.pth")
_TEMPORARY = ".{}.tmp"
_DOS_DIRECTORY = 0x10


class DamagedFileError(InputError):
    """A checkpoint's bytes are not those that were written."""


def checkpoint_name(iteration: int) -> str:
    """File name, without ending, of the checkpoint after an iteration; -1 is the initial one."""
    return INITIAL_CHECKPOINT if iteration < 0 else f"model_{iteration:07d}"


def find_checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """All weight files of a folder, sorted by name; none where there is no such folder."""
    return sorted(path for path in Path(folder).glob("*.pth") if path.is_file())


def periodic_checkpoints(
    folder: str | os.PathLike[str], last_iteration: float = math.inf
) -> list[Path]:
    """The initial and the periodic checkpoints of a run, oldest first, without best and final.

    Args:
        folder: the run's.
        last_iteration: those of later iterations are left out.
    """
    iterations = {}
    for path in find_checkpoints(folder):
        match = _PERIODIC.fullmatch(path.name)
        if match:
            iterations[path] = int(match.group(1))
        elif path.stem == INITIAL_CHECKPOINT:
            iterations[path] = -1
    found = [path for path in iterations if iterations[path] <= last_iteration]
    return sorted(found, key=lambda path: iterations[path])


def latest_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The newest checkpoint that a run resumes from, damaged or not, or None.

    The file `last_checkpoint` names it; where that is gone or names a file which is not there, it
    is the periodic checkpoint with the highest iteration.
    """
    named = _named_last(folder)
    if named is not None:
        return named
    periodic = periodic_checkpoints(folder)
    return periodic[-1] if periodic else None


def _named_last(folder: str | os.PathLike[str]) -> Path | None:
    """The checkpoint that `last_checkpoint` names, where it is there."""
    try:
        named = Path(folder) / (Path(folder) / LAST_FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return named if named.is_file() else None


def choose_checkpoint(folder: str | os.PathLike[str]) -> Path:
    """The newest checkpoint of a run that is not damaged; says in the log what it passed over.

    Files are read as a whole, as a flipped bit in a tensor is found by no other means. What is
    intact and of another model is chosen, so that loading it refuses it: an older file would be of
    that model too.

    Raises:
        InputError: there is no checkpoint, or none that is not damaged.
    """
    path, damaged = newest_whole(folder, "--resume")
    if path is not None:
        for fault in damaged.values():
            logger.warning("%s; the run continues from %s", fault, path)
        return path
    if not damaged:
        raise InputError(
            f"OUTPUT_DIR {folder} holds no checkpoint to resume from: start without --resume"
        )
    raise InputError(
        f"OUTPUT_DIR {folder} holds no checkpoint that is not damaged "
        f"({', '.join(path.name for path in damaged)}): restore one of them, or start in another "
        "OUTPUT_DIR"
    )


def newest_whole(
    folder: str | os.PathLike[str], key: str
) -> tuple[Path | None, dict[Path, DamagedFileError]]:
    """Find the newest checkpoint of a run that is not damaged.

    Args:
        folder: the run's.
        key: the config key or option that names it, for error messages.

    Returns:
        It, or None; and the newer ones, which are damaged, with what is wrong. Both are empty
        where the folder is no run's.

    Raises:
        InputError: one cannot be opened, or holds other than tensors and plain types.
    """
    damaged: dict[Path, DamagedFileError] = {}
    for path in _newest_first(folder):
        try:
            read_checkpoint(path, key)
        except DamagedFileError as error:
            damaged[path] = error
            continue
        return path, damaged
    return None, damaged


def _newest_first(folder: str | os.PathLike[str]) -> list[Path]:
    """What a run may resume from: what `last_checkpoint` names, then by iteration."""
    paths = periodic_checkpoints(folder)[::-1]
    final = Path(folder) / f"{FINAL_CHECKPOINT}.pth"
    if final.is_file():
        # A run that went on beyond its end has newer ones than the final one.
        iteration = _iteration_in(final)
        newer = [path for path in paths if _iteration_of_name(path) > iteration]
        paths = [*newer, final, *paths[len(newer) :]]
    named = _named_last(folder)
    return paths if named is None else [named, *(path for path in paths if path != named)]


def _iteration_of_name(path: Path) -> float:
    match = _PERIODIC.fullmatch(path.name)
    return int(match.group(1)) if match else -1


def _iteration_in(path: Path) -> float:
    """The iteration that a checkpoint holds; infinite where it cannot be told."""
    with contextlib.suppress(Exception):  # damage is reported when its turn comes
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return float(content["iteration"])
    return math.inf


def read_checkpoint(path: str | os.PathLike[str], key: str) -> Any:
    """Read a file of `torch.save`, on the CPU, after comparing all its bytes with its checksums.

    PyTorch compares none for tensors: it would load a flipped bit.

    Args:
        path: the file; the archive that `torch.save` has written since PyTorch 1.6.
        key: the config key or option that names it, for error messages.

    Raises:
        DamagedFileError: it is truncated, empty, or its bytes are not those that were written.
        InputError: it cannot be opened, or is intact and holds other than tensors and plain types.
    """
    fault = _find_damage(path, key)
    if fault:
        raise DamagedFileError(
            f"{key} names {path}, which is damaged ({fault}): restore it or take another checkpoint"
        )
    try:
        return read_torch_file(os.fspath(path), key)
    except InputError as error:
        # What an intact file holds was written so.
        if isinstance(error.__cause__, pickle.UnpicklingError):
            raise
        raise DamagedFileError(str(error)) from error


def _find_damage(path: str | os.PathLike[str], key: str) -> str:
    """What is wrong with an archive; "" where every checksum is right."""
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                return "it is empty"
    except OSError as error:
        raise InputError(
            f"{key} names {path}, which cannot be opened ({error.strerror}): correct the path or "
            "allow access to it"
        ) from error
    try:
        with zipfile.ZipFile(path) as archive:
            # PyTorch reads an entry that has become a folder as an empty one.
            if any(entry.external_attr & _DOS_DIRECTORY for entry in archive.infolist()):
                return "an entry has become a folder"
            name = archive.testzip()
    # Any type: what a damaged directory leads the reader to is arbitrary.
    except Exception as error:
        return (str(error) or type(error).__name__).splitlines()[0]
    return "" if name is None else f"the checksum of {name} is wrong"


@contextlib.contextmanager
def whole_file(
    target: Path, what: str, remedy: str = "free space or choose another folder"
) -> Iterator[Path]:
    """Give a temporary path to write to, and put it in the place of `target` when all is written.

    The bytes and the new name are on the disk when the block is left, so that a loss of power after
    that loses neither the new file nor, before that, the old one. What a killed process left
    unfinished in that folder is removed first: a folder has one writer.

    Args:
        target: the file; its folder is made where it is missing.
        what: what the file is, for the error message.
        remedy: what to do where it cannot be written, likewise.

    Yields:
        Path of the temporary file, in the same folder.

    Raises:
        InputError: it cannot be written; `target` is as it was, and the temporary file is gone.
    """
    temporary = target.with_name(_TEMPORARY.format(target.name))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for stale in target.parent.glob(_TEMPORARY.format("*")):
            stale.unlink(missing_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
        _flush(target.parent)
    except (OSError, RuntimeError) as error:
        reason = _system_reason(error)
        if reason is None:
            raise
        raise InputError(f"{what} {target} cannot be written ({reason}): {remedy}") from error
    finally:
        # Gone already where all went well.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _system_reason(error: BaseException) -> str | None:
    """What the system said; PyTorch's writer raises a RuntimeError of its own on top of it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError):
            return seen.strerror or str(seen)
        seen = seen.__cause__ or seen.__context__
    return None
