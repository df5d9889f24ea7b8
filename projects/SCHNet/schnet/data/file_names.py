"""Names of a data set's files: which count, and which have one name but for the ending."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from schnet.errors import InputError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""Lower-case endings of photos."""
LABEL_ENDINGS = (".png",)
"""Lower-case endings of index PNGs."""

# macOS puts copies of its file attributes into zip files, with images' names and endings; ext4 has
# a folder at the root of a disk that root alone may look into.
_FOREIGN_FOLDERS = ("__MACOSX", "lost+found")


def is_litter(name: str) -> bool:
    """Tell whether a file or folder of this name is hidden, or a system's own."""
    return name.startswith(".") or name in _FOREIGN_FOLDERS


def walk_files(
    root: Path, unreadable: Callable[[Path], None] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Walk a folder and all below it, links included, litter left out; sorted.

    Args:
        root: the folder.
        unreadable: is told each folder whose names cannot be read; None refuses it.

    Yields:
        Each folder as a prefix below `root`, empty for itself or ending in `/`, with the names of
        the files in it.

    Raises:
        InputError: a folder cannot be read, and nobody is to be told.
    """
    seen = set()

    def pass_over(error: OSError) -> None:
        if unreadable is None:
            raise unreadable_folder(error) from None
        unreadable(Path(error.filename))

    # Data sets are often links to another disk; a link to a folder above must not go on for ever.
    for place, names, files in os.walk(root, onerror=pass_over, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted(name for name in names if not is_litter(name))
        relative = Path(place).relative_to(root).as_posix()
        prefix = "" if relative == "." else f"{relative}/"
        yield prefix, sorted(name for name in files if not is_litter(name))


def files_below(root: Path, unreadable: Callable[[Path], None] | None = None) -> list[Path]:
    """All that `walk_files` finds, as sorted paths; see there."""
    walk = walk_files(root, unreadable)
    return sorted(root / prefix / name for prefix, names in walk for name in names)


def unreadable_folder(error: OSError) -> InputError:
    """Word that a folder cannot be searched; the error names it."""
    return InputError(
        f"the folder {os.fsdecode(error.filename)} cannot be read ({error.strerror}): allow it, or "
        "move it out of the folder that it is in"
    )


def key_by_stem(
    names: Iterable[str], endings: Sequence[str], folder: str | os.PathLike[str]
) -> dict[str, str]:
    """Map file names by themselves without their ending, sorted.

    Args:
        names: of files, perhaps with folders before them.
        endings: lower-case endings of those that count, in upper case too.
        folder: where the files are, for the message.

    Raises:
        InputError: two names differ in their ending only; both are named.
    """
    found: dict[str, str] = {}
    for name in sorted(names):
        stem, ending = os.path.splitext(name)
        if ending.lower() not in endings:
            continue
        if stem in found:
            raise InputError(
                f"{os.fspath(folder)} holds {found[stem]} and {name}, which have one name but for "
                "the ending, so that what belongs to them cannot be told apart: rename or remove "
                "one"
            )
        found[stem] = name
    return found
