"""The pairs of a data set as it is registered, for the checks that a preparation makes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from schnet.data.custom import CustomDataset, list_pairs
from schnet.data.index import DatasetIndex, read_index, write_index
from schnet.data.preparation.official import find_ids, find_splits, require_folder
from schnet.data.preparation.output import refuse_foreign_index
from schnet.data.preparation.pairs import PairResult, PairTask
from schnet.data.preparation.sources import SourceFile, open_source
from schnet.data.preparation.splits import SplitFiles, pair_files
from schnet.data.specs import SPLITS, DatasetSpec
from schnet.errors import InputError


def published_tasks(spec: DatasetSpec, root: Path) -> dict[str, list[PairTask]]:
    """List the pairs of a published data set's splits, as registering it would find them.

    Args:
        spec: the data set.
        root: folder of the data sets' folders.

    Returns:
        The tasks of each split that is there; those of its index where it has one.

    Raises:
        InputError: there is no split.
    """
    folder = root / spec.folder
    tasks = {}
    for split in spec.splits:
        path = folder / f"{split}.json"
        if path.exists():
            tasks[split] = _indexed_tasks(read_index(path))
    if tasks:
        return tasks
    if not folder.is_dir():
        raise InputError(f"the data set {spec.name} has no folder {folder}: {spec.remedy}")
    if spec.index_only:
        raise InputError(f"the data set {spec.name} has no index in {folder}: {spec.remedy}")
    return {split: pair_files(files) for split, files in _tree_splits(spec, folder).items()}


def custom_tasks(data: CustomDataset) -> dict[str, list[PairTask]]:
    """List the pairs of the splits of one's own data set.

    Raises:
        InputError: a folder is missing, or names are ambiguous.
    """
    tasks = {}
    for split in SPLITS:
        images, labels = data.folders(split)
        tasks[split] = [
            PairTask(
                pair.image_id,
                None if pair.image is None else _file(images, pair.image),
                None if pair.label is None else _file(labels, pair.label),
                place=str(images if pair.image is None else labels),
            )
            for pair in list_pairs(data, split)
        ]
    return {split: found for split, found in tasks.items() if found}


def write_custom_index(
    data: CustomDataset, split: str, tasks: Sequence[PairTask], results: Sequence[PairResult]
) -> Path:
    """Record a split of one's own data set: sizes, and the frequencies for class weights.

    Args:
        data: the data set.
        split: the split.
        tasks: its pairs.
        results: of their checks, all of them usable.

    Returns:
        The index file.

    Raises:
        InputError: a file of that name is there and no index.
    """
    images, labels = data.folders(split)
    records = []
    for task, result in zip(tasks, results, strict=True):
        assert task.image is not None and task.label is not None and result.record is not None
        record = replace(result.record, image=task.image.name, label=task.label.name)
        records.append(record)
    counts = np.array([result.pixel_counts for result in results], np.int64).sum(0)
    index = DatasetIndex(
        classes=data.class_list.names,
        image_root=str(images.resolve()),
        label_root=str(labels.resolve()),
        pixel_counts=tuple(int(count) for count in counts),
        records=tuple(records),
    )
    path = data.index_path(split)
    refuse_foreign_index(path)
    write_index(path, index)
    return path


def _tree_splits(spec: DatasetSpec, folder: Path) -> dict[str, SplitFiles]:
    """Find the splits of a tree without an index; those that share folders need id lists."""
    tree = open_source([folder])
    if not any(layout.shared for layout in spec.layout.values()):
        return find_splits(spec, tree)
    splits = {}
    for split, layout in spec.layout.items():
        images = require_folder(tree, layout.image_dirs[-1], f"{spec.name}'s photos")
        labels = require_folder(tree, layout.label_dirs[-1], f"{spec.name}'s label maps")
        ids = find_ids(tree, layout)
        if ids is not None:
            splits[split] = SplitFiles(images, labels, ids)
    if not splits:
        raise InputError(
            f"the data set {spec.name} in {folder} has neither an index nor an id list: "
            f"{spec.remedy}"
        )
    return splits


def _indexed_tasks(index: DatasetIndex) -> list[PairTask]:
    images, labels = Path(index.image_root), Path(index.label_root)
    tasks = []
    for record in index.records:
        image = _file(images, images / record.image)
        tasks.append(
            PairTask(
                os.path.splitext(record.image)[0],
                image,
                _file(labels, labels / record.label) if record.label else None,
                unlabelled=not record.label,
                place=str(images if image is None else labels),
            )
        )
    return tasks


def _file(folder: Path, path: Path) -> SourceFile | None:
    """Describe a file below a folder; None where it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    name = path.relative_to(folder).as_posix()
    return SourceFile(str(folder), name, False, status.st_size, status.st_mtime_ns)
