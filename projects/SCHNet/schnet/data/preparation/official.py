"""Where the official archives keep each split, found in a download however it was unpacked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence

from schnet.data.file_names import IMAGE_ENDINGS
from schnet.data.id_lists import decode_ids
from schnet.data.preparation.command import prepare, prepare_parser, read_options
from schnet.data.preparation.sources import (
    SourceFile,
    SourceFolder,
    SourceTree,
    open_source,
)
from schnet.data.preparation.splits import SplitFiles, files_by_id
from schnet.data.specs import DatasetSpec, SplitLayout
from schnet.errors import InputError


def prepare_official(
    spec: DatasetSpec, description: str, arguments: Sequence[str] | None = None
) -> str:
    """Prepare a data set whose archives have folders of their own for each split.

    Args:
        spec: the data set.
        description: shown by --help.
        arguments: the command line; None takes the process's own.

    Returns:
        The summary to print.

    Raises:
        InputError: the source is not this data set, the output lies in it, or too much is damaged.
    """
    namespace = prepare_parser(spec.name, description).parse_args(arguments)
    tree = open_source(namespace.source)
    splits = find_splits(spec, tree)
    notes = {**missing_splits(spec, splits), **outside_lists(splits)}
    return prepare(spec, tree, splits, read_options(namespace), notes=notes)


def find_splits(spec: DatasetSpec, tree: SourceTree) -> dict[str, SplitFiles]:
    """Find the splits of a data set whose archives have folders of their own for each.

    Args:
        spec: the data set.
        tree: the download; splits whose photos it does not hold are left out.

    Raises:
        InputError: there is no split at all, a split has photos but no label maps, or a folder is
            ambiguous.
    """
    splits = {}
    for split, layout in spec.layout.items():
        images = tree.find_folder(layout.image_dirs[-1:])
        if images is None:
            continue
        labels = None
        if layout.label_dirs:
            labels = require_folder(tree, layout.label_dirs[-1], f"{spec.name}'s {split} labels")
        splits[split] = SplitFiles(
            images,
            labels,
            find_ids(tree, layout),
            written_images=f"images/{split}",
            written_labels=f"labels/{split}",
        )
    if not splits:
        wanted = " or ".join(f"{layout.image_dirs[-1]}/" for layout in spec.layout.values())
        raise InputError(
            f"the source {tree} holds none of {spec.name}'s folders {wanted}: name the "
            "folder that the official archives unpack to, or the zip files"
        )
    return splits


def require_folder(tree: SourceTree, end: str, purpose: str) -> SourceFolder:
    """Find a folder by the end of its path.

    Raises:
        InputError: it is not there; names it and what it is for.
    """
    folder = tree.find_folder([end])
    if folder is None:
        raise InputError(
            f"the source {tree} has no folder {end}/ with {purpose}: unpack that archive too, or "
            "name its zip file as well"
        )
    return folder


def find_ids(tree: SourceTree, layout: SplitLayout) -> tuple[str, ...] | None:
    """Read a split's id list; None where the download has none."""
    file = tree.find_file(layout.id_lists[-1].rsplit("/", 1)[-1])
    return None if file is None else read_ids(file)


def read_ids(file: SourceFile) -> tuple[str, ...]:
    """Read an id list.

    Raises:
        InputError: it is damaged or names no image.
    """
    return decode_ids(file.read("id list"), file.path)


def split_by_name(names: Sequence[str], sizes: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Split images where the data set has no lists, by their names alone.

    The names are put in the order of their SHA-256, so that the split depends neither on a random
    number generator nor on the order of a directory.

    Args:
        names: image ids.
        sizes: number of images of each split; they are scaled down where there are fewer names.

    Returns:
        Each split's ids, sorted. All names are dealt out.
    """
    order = sorted(names, key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
    total = sum(sizes.values())
    splits, start, seen = {}, 0, 0
    for split, size in sizes.items():
        seen += size
        end = round(len(order) * seen / total)
        splits[split] = tuple(sorted(order[start:end]))
        start = end
    return splits


def missing_splits(spec: DatasetSpec, found: Mapping[str, SplitFiles]) -> dict[str, str]:
    """Word which splits a download does not hold, as notes for the report."""
    return {
        f"{split}: not in the source": f"no folder {layout.image_dirs[-1]}/"
        for split, layout in spec.layout.items()
        if split not in found
    }


def outside_lists(splits: Mapping[str, SplitFiles]) -> dict[str, str]:
    """Word how many photos no id list names, as notes for the report."""
    notes = {}
    for split, files in splits.items():
        if files.ids is not None:
            extra = set(files_by_id(files.images, IMAGE_ENDINGS)) - set(files.ids)
            if extra:
                notes[f"{split}: photos outside the id list"] = f"{len(extra)}, not used"
    return notes
