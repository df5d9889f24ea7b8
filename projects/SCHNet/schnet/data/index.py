"""The index of one split: which image goes with which label map, their sizes, the label counts.

An index is a JSON file written by the scripts in `datasets/` and read when a data set is loaded,
so that no directory is walked and no image is opened to register 30 000 pairs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from schnet.data.files import atomic_path
from schnet.errors import InputError

INDEX_FORMAT = "schnet-index/1"

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class IndexRecord:
    """One image and its label map.

    Attributes:
        image: path of the image below the index's `image_root`, with forward slashes.
        label: path of the index PNG below `label_root`; empty where the image has no labels.
        height: height of both in pixels, as stored.
        width: width of both in pixels, as stored.
    """

    image: str
    label: str
    height: int
    width: int


@dataclass(frozen=True)
class DatasetIndex:
    """All records of one split.

    Attributes:
        classes: class names; their position is their label value.
        image_root: folder of the images, absolute or relative to the index file's folder.
        label_root: folder of the label maps, likewise.
        pixel_counts: number of labelled pixels of each class over the split, in class order;
            pixels with the ignore label are not counted.
        records: the pairs, in the split's order.
        ignore_label: label value that no class has and no metric counts.
    """

    classes: tuple[str, ...]
    image_root: str
    label_root: str
    pixel_counts: tuple[int, ...]
    records: tuple[IndexRecord, ...]
    ignore_label: int = 255


def write_index(path: PathLike, index: DatasetIndex) -> None:
    """Write an index as JSON, atomically: a reader sees the old file or the whole new one."""
    content: dict[str, Any] = {"format": INDEX_FORMAT, **asdict(index)}
    content["records"] = [[r.image, r.label, r.height, r.width] for r in index.records]
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def read_index(path: PathLike) -> DatasetIndex:
    """Read an index that `write_index` wrote; its roots come back as absolute paths.

    Raises:
        InputError: the file is missing, is not JSON, or is not an index of this format.
    """
    source = Path(path)
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"there is no index file {source}: run the data set's script in datasets/ first, or do "
            "without what needs it (MODEL.LOSS.CLASS_WEIGHTS none)"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"the index file {source} cannot be read ({error}): write it again with the data "
            "set's script in datasets/"
        ) from None
    if not isinstance(content, dict) or content.get("format") != INDEX_FORMAT:
        raise InputError(
            f"{source} is not an index of format {INDEX_FORMAT!r}: write it again with the data "
            "set's script in datasets/"
        )
    try:
        return _parse(content, source.resolve().parent)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the index file {source} is incomplete ({error!r}): write it again with the data "
            "set's script in datasets/"
        ) from None


def require_labels(
    index: DatasetIndex, path: PathLike, classes: Sequence[str], ignore_label: int
) -> None:
    """Refuse an index of other labels than its data set has.

    Args:
        index: as it was read.
        path: where from, for the message.
        classes: of the data set.
        ignore_label: of the data set.

    Raises:
        InputError: names the file and both label lists.
    """
    if list(index.classes) != list(classes) or index.ignore_label != ignore_label:
        raise InputError(
            f"the index file {os.fspath(path)} has {len(index.classes)} classes "
            f"({', '.join(index.classes)}; ignored: {index.ignore_label}) but its data set has "
            f"{len(classes)} ({', '.join(classes)}; ignored: {ignore_label}): move that file away "
            "and write it again with the data set's script in datasets/"
        )


def _parse(content: dict[str, Any], folder: Path) -> DatasetIndex:
    index = DatasetIndex(
        classes=tuple(content["classes"]),
        # An absolute root stays what it is: joining keeps the right-hand side then.
        image_root=str(folder / content["image_root"]),
        label_root=str(folder / content["label_root"]),
        pixel_counts=tuple(content["pixel_counts"]),
        records=tuple(IndexRecord(*record) for record in content["records"]),
        ignore_label=content["ignore_label"],
    )
    if len(index.pixel_counts) != len(index.classes):
        raise ValueError("pixel_counts must have one number a class")
    return index
