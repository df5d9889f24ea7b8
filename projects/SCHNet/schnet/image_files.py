"""Which image files a command line means, and under which names their results are written."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from schnet.data.file_names import files_below, is_litter
from schnet.errors import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

MAX_NAME_BYTES = 200
"""Of a result's base name: file systems take 255 with what follows it."""


def collect_images(
    inputs: Sequence[str], skip: Collection[Path] = (), listed: Sequence[str] = ()
) -> list[Path]:
    """Expand files, folders and glob patterns into image files.

    Args:
        inputs: a file is taken whatever its suffix, and also where it does not exist, so that
            reading it reports it, or cannot be looked at; a folder is searched at all depths,
            through links too, where one that cannot be read is taken itself, to be reported; and
            a pattern (`**` too) is expanded, both for files with an image's suffix that are not
            hidden, nor in a hidden folder.
        skip: resolved paths that folders and patterns do not yield, such as earlier results.
        listed: further files and folders, such as the lines of a list; a name with an asterisk
            or a bracket is that file's here, not a pattern.

    Returns:
        Paths in the order of the inputs, sorted within each, every file once.

    Raises:
        InputError: no input is given, or a folder or pattern yields no image.
    """
    if not inputs and not listed:
        raise InputError("no input is given: name image files, folders or glob patterns")
    found: dict[Path, Path] = {}
    for text in inputs:
        for path in _expand(text, skip):
            found.setdefault(real_path(path), path)
    for text in listed:
        for path in _expand(text, skip) if os.path.isdir(text) else [Path(text)]:
            found.setdefault(real_path(path), path)
    return list(found.values())


def real_path(path: Path) -> Path:
    """Resolve a path; one that the system refuses to look at comes back absolute and no more.

    `Path.resolve` raises for a link to itself and for a NUL, and one such photo of many must not
    stop the others.
    """
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return Path(os.path.abspath(path))


def paths_in_list(lines: Iterable[str]) -> list[str]:
    """The paths in a list with one a line; empty lines and a byte order mark are left out."""
    paths = (line.rstrip("\r\n") for line in lines)
    # Windows' editors begin a file with the mark; it is of no encoding's name, so that a list on
    # standard input has it too.
    plain = (path if number else path.removeprefix("\ufeff") for number, path in enumerate(paths))
    return [path for path in plain if path.strip()]


def _expand(text: str, skip: Collection[Path]) -> list[Path]:
    path, unreadable = Path(text), list[Path]()
    # Those of `os.path`, unlike those of `Path`, take what cannot be looked at for not there.
    if os.path.isdir(path):
        try:
            os.scandir(path).close()
        except PermissionError:
            return [path]
        kind, candidates = "folder", files_below(path, unreadable.append)
    elif not os.path.exists(path) and glob.has_magic(text):
        kind, candidates = "pattern", [Path(p) for p in glob.glob(text, recursive=True)]
    else:
        return [path]
    images = [
        p
        for p in sorted(candidates)
        if p.suffix.lower() in IMAGE_SUFFIXES
        and not is_litter(p.name)
        and _may_be_file(p)
        and real_path(p) not in skip
    ]
    # Reading a folder fails, and tells which one was passed over.
    images = sorted([*images, *unreadable])
    if not images:
        raise InputError(
            f"the {kind} {text} holds no image: give one with files that end in "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return images


def _may_be_file(path: Path) -> bool:
    """Whether a path is a file's, or of what may not be looked at, which reading reports."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except PermissionError:
        return True
    except OSError:
        return False


def output_names(
    images: Sequence[Path], suffixes: Sequence[str], reserved: Collection[str] = ()
) -> list[str]:
    """Choose a base name for each image's results so that no two files coincide.

    An image's results are its base name followed by each suffix. The base name is the file's stem;
    where that would make two results coincide, all images concerned keep their extension (`a.jpg`
    and `a.png` become `a.jpg` and `a.png`, hence `a.jpg.png`), then take on their folder's
    name (`x__a.jpg`), their grandfather's, and so on. Upper and lower case count as the same, as
    some file systems have it. The names depend on the set of images, not on their order. A name of
    more than `MAX_NAME_BYTES` ends in a digest instead.

    Args:
        images: different files.
        suffixes: what follows the base name, for example `.png` and `_overlay.png`.
        reserved: file names in the output folder that must not be taken.

    Returns:
        One base name an image, in order.
    """
    paths = [real_path(image) for image in images]
    levels = [0] * len(paths)
    taken = Counter({name.casefold(): 1 for name in reserved})
    while True:
        names = [_name_at(path, level) for path, level in zip(paths, levels, strict=True)]
        claims = [[(name + suffix).casefold() for suffix in suffixes] for name in names]
        counts = taken + Counter(claim for own in claims for claim in own)
        clashing = [i for i, own in enumerate(claims) if any(counts[claim] > 1 for claim in own)]
        if not clashing:
            return names
        for index in clashing:
            levels[index] += 1


def _name_at(path: Path, level: int) -> str:
    """Name a file by its stem (level 0), its name (1), or its name and folders (2 and up)."""
    parts = path.parts[1:]
    name = "__".join(parts[-level:]) if level else path.stem
    encoded = os.fsencode(name)
    if level <= len(parts) and len(encoded) <= MAX_NAME_BYTES:
        return name
    # Even whole paths can coincide once joined (`a__b/c` and `a/b__c`) or without their case.
    digest = hashlib.sha256(f"{level} ".encode() + os.fsencode(path)).hexdigest()[:8]
    room = MAX_NAME_BYTES - len(digest) - 1
    return f"{encoded[:room].decode(errors='ignore')}-{digest}"
