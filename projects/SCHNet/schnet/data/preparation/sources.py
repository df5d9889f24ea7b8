"""Where a download lies: a folder as it was unpacked, or the zip files themselves; read only."""

from __future__ import annotations

import functools
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from schnet.data.file_names import is_litter, walk_files
from schnet.data.reading import read_bytes
from schnet.errors import InputError

# What a damaged zip file raises, opened or read; NotImplementedError is an unknown compression,
# RuntimeError a password.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)


@dataclass(frozen=True)
class SourceFile:
    """One file of a download.

    Attributes:
        root: absolute path of the folder or zip file that holds it.
        name: its path in there, with forward slashes.
        archived: `root` is a zip file.
        size: bytes, uncompressed.
        stamp: changes with the content: modification time in nanoseconds in a folder, CRC-32 in a
            zip file.
    """

    root: str
    name: str
    archived: bool
    size: int
    stamp: int

    @property
    def path(self) -> str:
        """Where it is, for people; in a folder also for programs."""
        return f"{self.root}/{self.name}"

    def read(self, kind: str) -> bytes:
        """Read it whole.

        Args:
            kind: what it is, for messages: `image`, `label map`.

        Raises:
            InputError: it is gone or damaged.
        """
        if not self.archived:
            return read_bytes(self.path, kind)
        try:
            return _open_zip(self.root, os.getpid()).read(self.name)
        except (*_ZIP_ERRORS, KeyError) as error:
            raise InputError(
                f"the {kind} {self.name} cannot be read from the zip file {self.root} ({error}): "
                "download that file again"
            ) from None


@dataclass(frozen=True)
class SourceFolder:
    """The files that lie directly in one folder of a download.

    Attributes:
        root: absolute path of the folder or zip file that holds it.
        name: its path in there; empty for the root itself.
        archived: `root` is a zip file.
        files: by file name.
    """

    root: str
    name: str
    archived: bool
    files: dict[str, SourceFile] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Where it is, for people; where not `archived` also for programs."""
        return f"{self.root}/{self.name}" if self.name else self.root


class SourceTree:
    """All folders of a download, found by the end of their path, however deep they are nested."""

    def __init__(self, roots: Sequence[Path], folders: Sequence[SourceFolder]) -> None:
        """Keep the folders.

        Args:
            roots: resolved paths that the download was given as.
            folders: what they hold; of equal ends the unpacked ones are preferred.
        """
        self.roots = tuple(roots)
        self._folders = tuple(folders)

    @property
    def folders(self) -> tuple[SourceFolder, ...]:
        """All folders, those of the first root first."""
        return self._folders

    def __str__(self) -> str:
        """Name the download, for messages."""
        return ", ".join(str(root) for root in self.roots)

    def find_folder(self, ends: Sequence[str]) -> SourceFolder | None:
        """Find the one folder whose path ends so.

        Args:
            ends: one or more folder names with forward slashes, as alternatives in order of
                preference; `train_images` is found in `a/b/train_images`, not in `x_train_images`.

        Returns:
            The folder, or None where there is none.

        Raises:
            InputError: several folders end so; two are named.
        """
        for end in ends:
            for archived in (False, True):
                found = [
                    folder
                    for folder in self._folders
                    if folder.archived == archived
                    and folder.files
                    and folder.path.endswith(f"/{end}")
                ]
                if len(found) > 1:
                    raise InputError(
                        f"both {found[0].path} and {found[1].path} may be the folder {end}: give "
                        "--source the one that is meant"
                    )
                if found:
                    return found[0]
        return None

    def find_file(self, name: str) -> SourceFile | None:
        """Find a file by its name alone, at any depth; an unpacked one before an archived one.

        Raises:
            InputError: several such files differ; two are named.
        """
        for archived in (False, True):
            found = [
                folder.files[name]
                for folder in self._folders
                if folder.archived == archived and name in folder.files
            ]
            for other in found[1:]:
                if other.read("list") != found[0].read("list"):
                    raise InputError(
                        f"{found[0].path} and {other.path} differ: give --source the one that is "
                        "meant"
                    )
            if found:
                return found[0]
        return None

    def contains(self, path: Path) -> bool:
        """Tell whether a resolved path is one of the roots or lies in one."""
        return any(path == root or root in path.parents for root in self.roots)


def open_source(paths: Sequence[Path]) -> SourceTree:
    """List the files of a download; none is opened but zip files.

    Args:
        paths: folders and zip files. Zip files that lie directly in a folder belong to it.

    Raises:
        InputError: a path does not exist, is neither folder nor zip file, or a zip file is
            damaged.
    """
    folders: list[SourceFolder] = []
    roots = []
    for path in paths:
        root = path.resolve()
        roots.append(root)
        if root.is_dir():
            folders += _list_folder(root)
            for inside in sorted(root.iterdir()):
                if inside.suffix.lower() == ".zip" and inside.is_file():
                    folders += _list_zip(inside)
        elif root.is_file():
            folders += _list_zip(root)
        else:
            raise InputError(f"--source {path} does not exist: give a folder or a zip file")
    return SourceTree(roots, folders)


def stat_file(root: Path, name: str) -> SourceFile | None:
    """Describe a file of a folder; None where it is not there.

    A link that leads nowhere is no file: it becomes a missing partner.

    Args:
        root: the folder.
        name: path below it, with forward slashes.
    """
    try:
        status = os.stat(root / name)
    except OSError:
        return None
    return SourceFile(str(root), name, False, status.st_size, status.st_mtime_ns)


def _list_folder(root: Path) -> Iterator[SourceFolder]:
    for prefix, names in walk_files(root):
        files = {name: stat_file(root, prefix + name) for name in names}
        found = {name: file for name, file in files.items() if file is not None}
        yield SourceFolder(str(root), prefix.rstrip("/"), False, found)


def _list_zip(path: Path) -> list[SourceFolder]:
    try:
        members = _open_zip(str(path), os.getpid()).infolist()
    except _ZIP_ERRORS as error:
        raise InputError(
            f"the file {path} cannot be read as a zip file ({error}): download it again, or "
            "unpack it and give --source the folder"
        ) from None
    folders: dict[str, SourceFolder] = {}
    for member in members:
        pure = PurePosixPath(member.filename)
        # A name that leads out of the folder that it is unpacked to is no data set's.
        if pure.is_absolute() or ".." in pure.parts:
            raise InputError(
                f"the zip file {path} holds the unsafe name {member.filename!r}: do not use it"
            )
        if member.is_dir() or any(is_litter(part) for part in pure.parts):
            continue
        parent = "" if pure.parent == PurePosixPath(".") else str(pure.parent)
        folder = folders.setdefault(parent, SourceFolder(str(path), parent, True))
        folder.files[pure.name] = SourceFile(
            str(path), member.filename, True, member.file_size, member.CRC
        )
    return list(folders.values())


@functools.lru_cache(maxsize=8)
def _open_zip(path: str, process: int) -> zipfile.ZipFile:
    """Open a zip file once a process; reading its directory for every member would take hours.

    Args:
        path: the zip file.
        process: id of the process that reads. A forked one must not take over its parent's open
            file: they would share its position, and move it under each other's reading.
    """
    return zipfile.ZipFile(path)
