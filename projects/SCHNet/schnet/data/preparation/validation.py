"""The pairs of a data set as it is registered, for the checks that a preparation makes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from schnet.data.custom import CustomDataset, list_pairs
from schnet.data.index import DatasetIndex, read_index, require_labels, write_index
from schnet.data.preparation.official import find_ids, find_splits, require_folder
from schnet.data.preparation.output import index_file, refuse_foreign_index
from schnet.data.preparation.pairs import PairResult, PairTask, count_labels
from schnet.data.preparation.sources import SourceFile, open_source, stat_file
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
        InputError: there is no split, or an index is of other labels.
    """
    folder = root / spec.folder
    tasks = {}
    for split in spec.splits:
        path = index_file(folder, split)
        if path.exists():
            index = read_index(path)
            require_labels(index, path, spec.classes, spec.ignore_label)
            tasks[split] = _indexed_tasks(index)
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
                _stat(images, pair.image),
                _stat(labels, pair.label),
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
    pixels, _ = count_labels(results, len(data.class_list.names))
    index = DatasetIndex(
        classes=data.class_list.names,
        image_root=str(images.resolve()),
        label_root=str(labels.resolve()),
        pixel_counts=tuple(pixels[:-1].tolist()),
        records=tuple(records),
    )
    path = data.index_path(split)
    refuse_foreign_index(path)
    write_index(path, index)
    return path


def _stat(folder: Path, path: Path | None) -> SourceFile | None:
    return None if path is None else stat_file(folder, path.relative_to(folder).as_posix())


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
        image = stat_file(images, record.image)
        tasks.append(
            PairTask(
                os.path.splitext(record.image)[0],
                image,
                stat_file(labels, record.label) if record.label else None,
                unlabelled=not record.label,
                place=str(images if image is None else labels),
            )
        )
    return tasks
