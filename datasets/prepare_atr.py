"""Prepare ATR (HumanParsing-Dataset): from its download to checked pairs and split indexes.

    python datasets/prepare_atr.py --source DOWNLOADS/humanparsing --output datasets/atr

The source holds `JPEGImages` and `SegmentationClassAug`, at any depth or in zip files. Its
splits come from `train_id.txt`, `val_id.txt` and perhaps `test_id.txt` where the source has them.
The download has none; then 16 000, 700 and 1006 of the 17 706 images (the usual numbers, scaled
where there are fewer images) are dealt out by the SHA-256 of their names: a split of ours, which no
published number was measured on. Every photo is decoded and every label map checked; the indexes
point to the files where they are, and files of zip archives are copied out. The source is never
changed, and a second run checks only what is new.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from schnet.data.file_names import IMAGE_ENDINGS, LABEL_ENDINGS
from schnet.data.preparation.command import PrepareOptions, prepare, prepare_parser, read_options
from schnet.data.preparation.official import find_ids, outside_lists, require_folder, split_by_name
from schnet.data.preparation.sources import SourceTree, open_source
from schnet.data.preparation.splits import SplitFiles, files_by_id
from schnet.data.specs import SPECS
from schnet.errors import InputError, exit_on_input_error

SPEC = SPECS["atr"]
OWN_SPLIT = "ours, by the SHA-256 of the names: no published number was measured on it"


def find_splits(tree: SourceTree) -> tuple[dict[str, SplitFiles], str]:
    """Find the photos, the label maps and the splits.

    Returns:
        The splits, and where they come from.

    Raises:
        InputError: a folder is missing, or only some of the id lists are there.
    """
    layout = SPEC.layout["train"]
    images = require_folder(tree, layout.image_dirs[-1], "ATR's photos")
    labels = require_folder(tree, layout.label_dirs[-1], "ATR's label maps")
    lists = {split: find_ids(tree, own) for split, own in SPEC.layout.items()}
    given = {split: ids for split, ids in lists.items() if ids is not None}
    if given and not {"train", "val"} <= set(given):
        raise InputError(
            f"the source {tree} has the id list of {', '.join(given)} but not those of train and "
            "val: put both train_id.txt and val_id.txt there, or neither for a split of ours"
        )
    if not given:
        names = sorted({*files_by_id(images, IMAGE_ENDINGS), *files_by_id(labels, LABEL_ENDINGS)})
        dealt = split_by_name(names, SPEC.official_counts)
        # A few images do not go round.
        given = {split: ids for split, ids in dealt.items() if ids}
    found = {split: SplitFiles(images, labels, ids) for split, ids in given.items()}
    return found, OWN_SPLIT if not any(lists.values()) else "the source's id lists"


def prepare_atr(source: Sequence[Path], options: PrepareOptions) -> str:
    """Prepare ATR.

    Args:
        source: folders and zip files of the download; never changed.
        options: of the command line.

    Returns:
        The summary to print.

    Raises:
        InputError: the source is not ATR, the output lies in it, or too much is damaged.
    """
    tree = open_source(source)
    splits, origin = find_splits(tree)
    notes = {"split": origin}
    if origin != OWN_SPLIT:
        notes |= outside_lists(splits)
    return prepare(SPEC, tree, splits, options, notes=notes)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare ATR as the command line says and print the summary."""
    namespace = prepare_parser(SPEC.name, "Prepare ATR for SCHNet.").parse_args(arguments)
    sys.stdout.write(prepare_atr(namespace.source, read_options(namespace)) + "\n")


if __name__ == "__main__":
    with exit_on_input_error():
        main()
