"""Prepare Clothing Co-Parsing (CCP): from its official layout to index PNGs and split indexes.

    python datasets/prepare_ccp.py --source ../shared/data/ccp --output datasets/ccp

The source holds `photos/*.jpg`, `annotations/pixel-level/*.mat` (variable `groundtruth`, values
into the 59 names of `label_list.mat`). The 59 names are merged into the 16 groups of
`schnet.data.labels.CCP_GROUPS`. Written are `labels/*.png` (palette PNGs), `train.json` (the first
80 % of the sorted ids) and `val.json` (the rest). The source is never changed, and photos are not
copied: the indexes point to them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from schnet.data.index import IndexRecord
from schnet.data.labels import CCP_GROUPS
from schnet.data.preparation import (
    PairResult,
    PairStatus,
    count_labels,
    index_results,
    problems,
    refuse_too_many_problems,
    run_parallel,
    summary_table,
)
from schnet.data.reading import UInt8Array, check_same_size, open_image, read_label, write_label_png
from schnet.data.specs import SPECS
from schnet.errors import InputError, exit_on_input_error

SPEC = SPECS["ccp"]
OFFICIAL_PAIRS = 1004
TRAIN_PERCENT = 80
LABEL_FOLDER = "labels"
ANNOTATIONS = Path("annotations", "pixel-level")
# The archive's own folder, as GitHub and git unpack it.
NESTED = ("", "clothing-co-parsing", "clothing-co-parsing-master")


@dataclass(frozen=True)
class Source:
    """The official layout, found.

    Attributes:
        root: resolved folder that holds `photos` and `annotations`.
        photos: photo file names by id.
        annotations: ids with pixel labels, sorted.
    """

    root: Path
    photos: dict[str, str]
    annotations: tuple[str, ...]


def find_source(folder: Path) -> Source:
    """Find the official layout in a folder, or in the archive's folder below it.

    Raises:
        InputError: the folder does not exist, lacks a part of the layout, or has no annotation.
    """
    for nested in NESTED:
        root = folder / nested
        if (root / ANNOTATIONS).is_dir() and (root / "photos").is_dir():
            break
    else:
        raise InputError(
            f"the folder {folder} does not hold CCP's photos/ and {ANNOTATIONS}/: give --source "
            "the folder that the official archive unpacks to"
        )
    photos = {path.stem: path.name for path in sorted((root / "photos").glob("*.jpg"))}
    annotations = tuple(sorted(path.stem for path in (root / ANNOTATIONS).glob("*.mat")))
    if not annotations:
        raise InputError(f"the folder {root / ANNOTATIONS} holds no .mat file: unpack CCP again")
    return Source(root.resolve(), photos, annotations)


def load_mat(path: Path, variable: str) -> NDArray[Any]:
    """Read one variable of a MATLAB file.

    Raises:
        InputError: the file is missing, damaged, or lacks the variable.
    """
    try:
        return scipy.io.loadmat(path)[variable]
    # On damaged files SciPy's parser fails with whatever it trips over (zlib, struct, TypeError).
    except Exception as error:
        raise InputError(
            f"the file {path} cannot be read as MATLAB data with a variable {variable!r} "
            f"({type(error).__name__}: {error}): fetch it again"
        ) from None


def read_label_names(path: Path) -> tuple[str, ...]:
    """Read CCP's names in the order of their values, from `label_list.mat`.

    Raises:
        InputError: the file cannot be read or is no list of names.
    """
    cells = load_mat(path, "label_list").ravel()
    names = tuple(str(np.squeeze(cell)) for cell in cells if isinstance(cell, np.ndarray))
    if not names or len(names) != len(cells):
        raise InputError(f"the file {path} holds no list of label names: fetch it again")
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


def read_groups(path: Path, table: UInt8Array) -> UInt8Array:
    """Read one annotation as groups; uint8 (H, W), values 0..15.

    Raises:
        InputError: the file is damaged or holds a value without a name.
    """
    values = load_mat(path, "groundtruth")
    if values.ndim != 2 or values.dtype.kind not in "iu" or not values.size:
        raise InputError(
            f"the file {path} holds no map of label values but {values.dtype} of shape "
            f"{values.shape}: fetch it again"
        )
    if values.min() < 0 or values.max() >= len(table):
        worst = values.min() if values.min() < 0 else values.max()
        raise InputError(
            f"the file {path} holds the value {worst}, but label_list.mat names 0.."
            f"{len(table) - 1}: fetch it again"
        )
    return table[values]


def convert(image_id: str, source: Source, label_root: Path, table: UInt8Array) -> PairResult:
    """Check one pair and write its label map, unless the same one is there already.

    Args:
        image_id: id of the annotation.
        source: the official layout.
        label_root: folder of the label maps.
        table: group of each label value.
    """
    photo, annotation = source.photos.get(image_id), source.root / ANNOTATIONS / f"{image_id}.mat"
    if photo is None:
        place = source.root / "photos"
        return PairResult(
            PairStatus.MISSING, problem=f"{annotation} has no photo {image_id}.jpg in {place}"
        )
    photo_path = source.root / "photos" / photo
    try:
        encoded = open_image(photo_path)
        # Decoded for the check alone: a photo can have a sound header and damaged data.
        encoded.decode()
        labels = read_groups(annotation, table)
    except InputError as error:
        return PairResult(PairStatus.UNREADABLE, problem=str(error))
    size = (encoded.height, encoded.width)
    try:
        check_same_size(size, labels, photo_path, annotation)
    except InputError as error:
        return PairResult(PairStatus.MISMATCH, mode=encoded.mode, problem=str(error))
    target = label_root / f"{image_id}.png"
    kept = _holds(target, labels)
    if not kept:
        write_label_png(target, labels, SPEC.palette)
    return PairResult(
        PairStatus.KEPT if kept else PairStatus.WRITTEN,
        IndexRecord(photo, target.name, *size),
        count_labels(labels, len(SPEC.classes)),
        encoded.mode,
    )


def _holds(path: Path, labels: UInt8Array) -> bool:
    """Tell whether an earlier run's file holds just these labels."""
    if not path.is_file():
        return False
    try:
        return np.array_equal(read_label(path, len(SPEC.classes)), labels)
    except InputError:
        return False


def prepare(source_folder: Path, output: Path, *, jobs: int, max_damaged: float) -> str:
    """Prepare CCP.

    Args:
        source_folder: folder of the official layout; never changed.
        output: folder to write to, outside the source.
        jobs: number of processes.
        max_damaged: largest share of pairs that may be left out, in [0, 1].

    Returns:
        The summary to print.

    Raises:
        InputError: the source is not CCP, the output lies in it, or too much is damaged.
    """
    source = find_source(source_folder)
    target = output.resolve()
    if target == source.root or source.root in target.parents:
        raise InputError(
            f"--output {output} lies in the source {source_folder}, which is never changed: give "
            "another folder"
        )
    if target.exists() and not target.is_dir():
        raise InputError(f"--output {output} is a file: give a folder")
    table = group_table(read_label_names(source.root / "label_list.mat"))
    work = partial(convert, source=source, label_root=target / LABEL_FOLDER, table=table)
    results = run_parallel(work, source.annotations, jobs=jobs, title="CCP")
    refuse_too_many_problems(results, max_damaged)
    # Split by all ids, so that a file left out moves no other from one split to the other.
    cut = len(results) * TRAIN_PERCENT // 100
    by_split = {"train": results[:cut], "val": results[cut:]}
    for split, share in by_split.items():
        index_results(
            SPEC,
            share,
            target / f"{split}.json",
            image_root=str(source.root / "photos"),
            label_root=LABEL_FOLDER,
        )
    return _report(source, target, results, by_split)


def _report(
    source: Source,
    target: Path,
    results: Sequence[PairResult],
    by_split: dict[str, Sequence[PairResult]],
) -> str:
    unlabelled = len(set(source.photos) - set(source.annotations))
    notes = {
        "photos": f"{len(source.photos)}, {unlabelled} of them without pixel labels",
        "pixel-labelled": f"{len(source.annotations)} (the whole data set has {OFFICIAL_PAIRS})",
        "written": f"{target / 'train.json'}, {target / 'val.json'}, {target / LABEL_FOLDER}/",
    }
    left_out = [f"left out: {problem}" for problem in problems(results)]
    return "\n".join([*left_out, summary_table(SPEC, by_split, notes)])


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Prepare Clothing Co-Parsing for SCHNet.")
    parser.add_argument("--source", type=Path, required=True, help="folder of the official layout")
    parser.add_argument(
        "--output", type=Path, default=Path("datasets/ccp"), help="folder to write to"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes to work with"
    )
    parser.add_argument(
        "--max-damaged",
        type=float,
        default=0.05,
        help="share of damaged pairs above which nothing is indexed (default: 0.05)",
    )
    namespace = parser.parse_args(arguments)
    if namespace.jobs < 1:
        parser.error(f"--jobs is {namespace.jobs}: it must be at least 1")
    if not 0 <= namespace.max_damaged <= 1:
        parser.error(f"--max-damaged is {namespace.max_damaged}: it must lie in [0, 1]")
    return namespace


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare CCP as the command line says and print the summary."""
    options = parse_arguments(arguments)
    summary = prepare(
        options.source, options.output, jobs=options.jobs, max_damaged=options.max_damaged
    )
    sys.stdout.write(summary + "\n")


if __name__ == "__main__":
    with exit_on_input_error():
        main()
