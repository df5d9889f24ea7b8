"""Prepare Clothing Co-Parsing (CCP): from its official layout to index PNGs and split indexes.

    python datasets/prepare_ccp.py --source ../shared/data/ccp --output datasets/ccp

The source holds `photos/*.jpg`, `annotations/pixel-level/*.mat` (variable `groundtruth`, values
into the 59 names of `label_list.mat`). The 59 names are merged into the 16 groups of
`schnet.data.labels.CCP_GROUPS`. Written are `labels/*.png` (palette PNGs), `train.json` (the first
80 % of the sorted ids) and `val.json` (the rest). The source is never changed, and photos are not
copied: the indexes point to them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from schnet.data.file_names import IMAGE_ENDINGS
from schnet.data.labels import CCP_GROUPS
from schnet.data.preparation.command import PrepareOptions, prepare, prepare_parser, read_options
from schnet.data.preparation.mat_files import load_mat
from schnet.data.preparation.official import require_folder
from schnet.data.preparation.sources import SourceFile, SourceTree, open_source
from schnet.data.preparation.splits import SplitFiles, files_by_id
from schnet.data.reading import UInt8Array
from schnet.data.specs import SPECS
from schnet.errors import InputError, exit_on_input_error

SPEC = SPECS["ccp"]
OFFICIAL_PAIRS = 1004
TRAIN_PERCENT = 80
ANNOTATION_ENDINGS = (".mat",)
NAMES_FILE = "label_list.mat"


def read_label_names(file: SourceFile) -> tuple[str, ...]:
    """Read CCP's names in the order of their values, from `label_list.mat`.

    Raises:
        InputError: the file cannot be read or is no list of names.
    """
    cells = load_mat(file.read("list of names"), file.path, "label_list").ravel()
    names = tuple(str(np.squeeze(cell)) for cell in cells if isinstance(cell, np.ndarray))
    if not names or len(names) != len(cells):
        raise InputError(f"the file {file.path} holds no list of label names: fetch it again")
    return names


def group_table(names: Sequence[str]) -> UInt8Array:
    """Give the group of each of CCP's label values.

    Args:
        names: CCP's names in the order of their values.

    Returns:
        uint8 (len(names),), values 0..15.

    Raises:
        InputError: a name belongs to no group.
    """
    group_of = {
        member: SPEC.classes.index(group)
        for group, members in CCP_GROUPS.items()
        for member in members
    }
    unknown = [name for name in names if name not in group_of]
    if unknown:
        raise InputError(
            f"label_list.mat holds the name {unknown[0]!r}, which is in none of the "
            f"{len(CCP_GROUPS)} groups: add it to CCP_GROUPS in schnet/data/labels.py"
        )
    return np.array([group_of[name] for name in names], np.uint8)


def read_groups(data: bytes, path: str, table: UInt8Array) -> UInt8Array:
    """Read one annotation as groups.

    Args:
        data: a whole `.mat` file.
        path: where it comes from, for messages.
        table: group of each of CCP's label values.

    Returns:
        uint8 (H, W), values 0..15.

    Raises:
        InputError: the file is damaged or holds a value without a name.
    """
    values = load_mat(data, path, "groundtruth")
    if values.ndim != 2 or values.dtype.kind not in "iu" or not values.size:
        raise InputError(
            f"the file {path} holds no map of label values but {values.dtype} of shape "
            f"{values.shape}: fetch it again"
        )
    if values.min() < 0 or values.max() >= len(table):
        worst = values.min() if values.min() < 0 else values.max()
        raise InputError(
            f"the file {path} holds the value {worst}, but {NAMES_FILE} names 0.."
            f"{len(table) - 1}: fetch it again"
        )
    return table[values]


def find_splits(tree: SourceTree) -> tuple[dict[str, SplitFiles], dict[str, str]]:
    """Find the photos and annotations, and split them.

    Returns:
        The splits, and notes for the summary.

    Raises:
        InputError: a folder is missing or holds no annotation.
    """
    images = require_folder(tree, "photos", "CCP's photos")
    labels = require_folder(tree, "annotations/pixel-level", "CCP's pixel annotations")
    annotated = sorted(files_by_id(labels, ANNOTATION_ENDINGS))
    if not annotated:
        raise InputError(f"the folder {labels.path} holds no .mat file: unpack CCP again")
    # Split by all ids, so that a file left out moves no other from one split to the other.
    cut = len(annotated) * TRAIN_PERCENT // 100
    splits = {
        split: SplitFiles(images, labels, tuple(ids), ANNOTATION_ENDINGS)
        for split, ids in (("train", annotated[:cut]), ("val", annotated[cut:]))
    }
    photos = files_by_id(images, IMAGE_ENDINGS)
    notes = {
        "photos": f"{len(photos)}, {len(set(photos) - set(annotated))} without pixel labels",
        "pixel-labelled": f"{len(annotated)} (the whole data set has {OFFICIAL_PAIRS})",
    }
    return splits, notes


def prepare_ccp(source: Sequence[Path], options: PrepareOptions) -> str:
    """Prepare CCP.

    Args:
        source: folders and zip files of the download; never changed.
        options: of the command line.

    Returns:
        The summary to print.

    Raises:
        InputError: the source is not CCP, the output lies in it, or too much is damaged.
    """
    tree = open_source(source)
    splits, notes = find_splits(tree)
    names_file = tree.find_file(NAMES_FILE)
    if names_file is None:
        raise InputError(f"the source {tree} has no {NAMES_FILE}: fetch it again")
    names = read_label_names(names_file)
    convert = partial(read_groups, table=group_table(names))
    groups = [f"{group}={','.join(members)}" for group, members in CCP_GROUPS.items()]
    settings = [*names, *groups]
    return prepare(SPEC, tree, splits, options, convert=convert, settings=settings, notes=notes)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare CCP as the command line says and print the summary."""
    namespace = prepare_parser(SPEC.name, "Prepare CCP for SCHNet.").parse_args(arguments)
    sys.stdout.write(prepare_ccp(namespace.source, read_options(namespace)) + "\n")


if __name__ == "__main__":
    with exit_on_input_error():
        main()
