"""A folder of photos as the input of a job; the standard library is enough."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from schnet.data.file_names import is_litter, unreadable_folder
from schnet.data.reading import unreadable
from schnet.errors import InputError
from schnet.image_files import IMAGE_SUFFIXES
from schnet.ray_pipeline.photo_source import InputFile, PhotoBytes, ReadUnit, Stretch, is_text

PHOTOS_PER_UNIT = 32

# Of the file itself, not of the storage: trying again would not help.
_FILE_ERRORS = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)


class FolderInput:
    """Photos of a folder at all depths; a photo's id is its path below the folder."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """List the folder.

        Args:
            root: a folder that all workers see under the same path. Hidden files and folders, and
                links to folders, are passed over.

        Raises:
            InputError: it holds no photo, a folder that cannot be read, or a name that is no
                Unicode.
        """
        self.root = Path(root).resolve()
        self.files: tuple[InputFile, ...] = tuple(sorted(_listed(self.root), key=_name))
        if not self.files:
            raise InputError(
                f"the folder {root} holds no image: give one with files that end in "
                f"{', '.join(sorted(IMAGE_SUFFIXES))}, or with Parquet files"
            )

    @property
    def photos(self) -> int:
        """How many photos there are."""
        return len(self.files)

    def describe(self) -> dict[str, str]:
        """See `PhotoSource.describe`."""
        return {"kind": "folder"}

    def units(self, wanted: Sequence[Stretch]) -> Iterator[ReadUnit]:
        """See `PhotoSource.units`."""
        for start, stop in wanted:
            for first in range(start, stop, PHOTOS_PER_UNIT):
                last = min(first + PHOTOS_PER_UNIT, stop)
                names = tuple(file.name for file in self.files[first:last])
                yield ReadUnit(first, str(self.root), names)


def read_folder_unit(unit: ReadUnit) -> Iterator[PhotoBytes]:
    """Read the photos of a unit.

    Yields:
        Each photo; one that is gone or may not be read has an error.

    Raises:
        OSError: the storage fails, which says nothing about the photo.
    """
    for number, name in enumerate(unit.names, unit.first):
        path = os.path.join(unit.root, name)
        try:
            with open(path, "rb") as file:
                yield PhotoBytes(number, name, file.read())
        except OSError as error:
            if error.errno not in _FILE_ERRORS:
                raise
            yield PhotoBytes(number, name, None, unreadable("image", name, error.strerror))


def holds_photo(folder: Path) -> bool:
    """Whether a folder holds a photo, at any depth."""
    return next(_listed(folder), None) is not None


def _listed(root: Path) -> Iterator[InputFile]:
    """Photos below a folder; `os.scandir` rather than `Path`, for millions of files."""
    waiting = [(str(root), "")]
    while waiting:
        folder, prefix = waiting.pop()
        with _entries(folder) as entries:
            for entry in entries:
                if is_litter(entry.name):
                    continue
                name = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, f"{name}/"))
                elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and entry.is_file():
                    if not is_text(name):
                        raise InputError(f"the file name {name!r} is no Unicode: rename the file")
                    stat = entry.stat()
                    yield InputFile(name, stat.st_size, stat.st_mtime_ns)


def _entries(folder: str) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    try:
        return os.scandir(folder)
    except PermissionError as error:
        raise unreadable_folder(error) from None


def _name(file: InputFile) -> str:
    return file.name
