"""Which image files a command line means, and under which names their results are written."""

from __future__ import annotations

import glob
import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from schnet.errors import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def collect_images(inputs: Sequence[str], skip: Collection[Path] = ()) -> list[Path]:
    """Expand files, folders and glob patterns into image files.

    Args:
        inputs: a file is taken whatever its suffix, and also where it does not exist, so that
            reading it reports it; a folder is searched at all depths and a pattern (`**` too)
            expanded, both for files with an image's suffix that are not hidden.
        skip: resolved paths that folders and patterns do not yield, such as earlier results.

    Returns:
        Paths in the order of the inputs, sorted within each, every file once.

    Raises:
        InputError: no input is given, or a folder or pattern yields no image.
    """
    if not inputs:
        raise InputError("no input is given: name image files, folders or glob patterns")
    found: dict[Path, Path] = {}
    for text in inputs:
        for path in _expand(text, skip):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _expand(text: str, skip: Collection[Path]) -> list[Path]:
    path = Path(text)
    if path.is_dir():
        kind, candidates = "folder", sorted(path.rglob("*"))
    elif not path.exists() and glob.has_magic(text):
        kind, candidates = "pattern", sorted(Path(p) for p in glob.glob(text, recursive=True))
    else:
        return [path]
    images = [
        p
        for p in candidates
        if p.suffix.lower() in IMAGE_SUFFIXES
        and not p.name.startswith(".")
        and p.is_file()
        and p.resolve() not in skip
    ]
    if not images:
        raise InputError(
            f"the {kind} {text} holds no image: give one with files that end in "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return images


def output_names(
    images: Sequence[Path], suffixes: Sequence[str], reserved: Collection[str] = ()
) -> list[str]:
    """Choose a base name for each image's results so that no two files coincide.

    An image's results are its base name followed by each suffix. The base name is the file's stem;
    where that would make two results coincide, all images concerned keep their extension (`a.jpg`
    and `a.png` become `a.jpg` and `a.png`, hence `a.jpg.png`), then take on their folder's
    name (`x__a.jpg`), their grandfather's, and so on. Upper and lower case count as the same, as
    some file systems have it. The names depend on the set of images, not on their order.

    Args:
        images: different files.
        suffixes: what follows the base name, for example `.png` and `_overlay.png`.
        reserved: file names in the output folder that must not be taken.

    Returns:
        One base name an image, in order.
    """
    paths = [image.resolve() for image in images]
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
    if level == 0:
        return path.stem
    parts = path.parts[1:]
    name = "__".join(parts[-level:])
    if level <= len(parts):
        return name
    # Even whole paths can coincide once joined (`a__b/c` and `a/b__c`) or without their case.
    digest = hashlib.sha256(f"{level} {path}".encode()).hexdigest()
    return f"{name}-{digest[:8]}"
