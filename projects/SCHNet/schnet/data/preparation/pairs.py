"""One image and its label map: read, compared, counted, and put where the index will say it is."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schnet.data.files import atomic_path
from schnet.data.index import IndexRecord
from schnet.data.label_maps import check_label_range, check_same_size, decode_label, write_label_png
from schnet.data.labels import IGNORE_LABEL
from schnet.data.preparation.sources import SourceFile
from schnet.data.reading import UInt8Array, open_image, parse_image
from schnet.errors import InputError

LabelConverter = Callable[[bytes, str], "UInt8Array | None"]
"""Turns a label file's bytes and its path (for messages) into labels uint8 (H, W).

None says that the image shows none of the parts and does not belong to the data set.
"""


class PairStatus(enum.Enum):
    """What became of one image and its labels."""

    CHECKED = "pairs checked"
    UNCHANGED = "pairs unchanged since the last run"
    DROPPED = "images without a part"
    MISSING = "missing partners"
    UNREADABLE = "unreadable files"
    MISMATCH = "size mismatches"
    VALUES = "impossible labels"


GOOD = (PairStatus.CHECKED, PairStatus.UNCHANGED)


@dataclass(frozen=True)
class OutputFile:
    """A file that was written for a pair: its name below the output folder, size and time."""

    name: str
    size: int
    stamp: int

    def is_intact(self, target: Path) -> bool:
        """Tell whether it lies there as it was written."""
        try:
            status = os.stat(target / self.name)
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.stamp)


@dataclass(frozen=True)
class PairTask:
    """One image and its label map, to be checked.

    Attributes:
        image_id: name of the image, without its ending.
        image: the photo; None where it is missing.
        label: the label map; None where it is missing, or where the split has none.
        unlabelled: the split has no label maps.
        place: where a missing partner was looked for.
        earlier: files that earlier runs wrote for it; as they are, they may be replaced.
    """

    image_id: str
    image: SourceFile | None
    label: SourceFile | None
    unlabelled: bool = False
    place: str = ""
    earlier: tuple[OutputFile, ...] = ()


@dataclass(frozen=True)
class PairResult:
    """One pair after it was checked.

    Attributes:
        status: what became of it.
        has_image: there is a photo.
        has_label: there is a label file.
        record: its line of the index; None where it is left out.
        pixel_counts: labelled pixels of each class, empty where there are no labels.
        ignored: pixels with the ignore label.
        mode: Pillow's mode of the photo, such as RGB; empty where it was not read.
        turned: the photo fits its labels only after its EXIF rotation.
        problem: one sentence that names the file, where it is left out for a fault.
        outputs: files that were written for it.
    """

    status: PairStatus
    has_image: bool = True
    has_label: bool = True
    record: IndexRecord | None = None
    pixel_counts: tuple[int, ...] = ()
    ignored: int = 0
    mode: str = ""
    turned: bool = False
    problem: str = ""
    outputs: tuple[OutputFile, ...] = ()


@dataclass(frozen=True)
class PairRules:
    """What the pairs of one split must be, and where their files go.

    Attributes:
        num_classes: K; labels are 0..K-1.
        palette: colours of the label maps that are written.
        ignore_label: the one label allowed besides.
        convert: makes labels of a label file; None takes index PNGs as they are.
        refuse_colors: refuse colour images as label maps, unless their channels are equal.
        target: output folder; None writes nothing.
        image_folder: folder below `target` that photos are copied to; empty leaves them where
            they are.
        label_folder: folder below `target` that label maps are written to, likewise.
    """

    num_classes: int
    palette: Sequence[Sequence[int]] = ()
    ignore_label: int = IGNORE_LABEL
    convert: LabelConverter | None = None
    refuse_colors: bool = False
    target: Path | None = None
    image_folder: str = ""
    label_folder: str = ""


def check_pair(task: PairTask, rules: PairRules) -> PairResult:
    """Check one pair and write what of it belongs into the output folder.

    The photo is decoded whole, since a file can have a sound header and damaged data. It is
    compared with its labels as stored; where the two match only after the photo's EXIF rotation,
    it counts as turned, and readers turn it likewise.

    Args:
        task: the pair.
        rules: of its split.

    Raises:
        InputError: a file of other content than an earlier run wrote would be replaced.
    """
    result = _check(task, rules)
    return replace(result, has_image=task.image is not None, has_label=task.label is not None)


def count_labels(
    results: Sequence[PairResult], num_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Add up what the usable pairs show.

    Args:
        results: of any pairs.
        num_classes: K.

    Returns:
        Numbers of pixels and of images of each class and, last, of the ignore label; (K + 1,).
    """
    used = [r for r in results if r.status in GOOD and r.pixel_counts]
    counts = np.array([[*r.pixel_counts, r.ignored] for r in used], np.int64)
    counts = counts.reshape(-1, num_classes + 1)
    return counts.sum(0), (counts > 0).sum(0)


def _check(task: PairTask, rules: PairRules) -> PairResult:
    if task.image is None or (task.label is None and not task.unlabelled):
        return PairResult(PairStatus.MISSING, problem=_missing(task))
    try:
        data = task.image.read("image")
        image = parse_image(data, task.image.path)
        image.decode()
        label_data = b"" if task.label is None else task.label.read("label map")
        labels = _labels(task.label, label_data, rules)
    except InputError as error:
        return PairResult(PairStatus.UNREADABLE, problem=str(error))
    if task.label is None:
        record = _record(task, (image.height, image.width), rules)
        outputs = _write(task, record, data, b"", None, rules)
        return PairResult(PairStatus.CHECKED, record=record, mode=image.mode, outputs=outputs)
    if labels is None:
        return PairResult(PairStatus.DROPPED, mode=image.mode)
    fitting = image.matching((labels.shape[0], labels.shape[1]))
    size = (fitting.height, fitting.width)
    problem = _fault(task, labels, size, rules)
    if problem is not None:
        return PairResult(problem[0], mode=image.mode, problem=problem[1])
    counts = np.bincount(labels.ravel(), minlength=256)
    record = _record(task, size, rules)
    return PairResult(
        PairStatus.CHECKED,
        record=record,
        pixel_counts=tuple(int(count) for count in counts[: rules.num_classes]),
        ignored=int(counts[rules.ignore_label]),
        mode=image.mode,
        turned=fitting.turned,
        outputs=_write(task, record, data, label_data, labels, rules),
    )


def _missing(task: PairTask) -> str:
    if task.image is None:
        return (
            f"the image {task.image_id} is missing"
            + (f" for the label map {task.label.path}" if task.label else "")
            + f" (looked for in {task.place}): put it there or take the id out of the split"
        )
    return (
        f"the label map of {task.image.path} is missing (looked for in {task.place}): put it there "
        "or take the image out of the split"
    )


def _labels(file: SourceFile | None, data: bytes, rules: PairRules) -> UInt8Array | None:
    if file is None:
        return None
    if rules.convert is not None:
        return rules.convert(data, file.path)
    return decode_label(data, file.path, rules.refuse_colors)


def _fault(
    task: PairTask, labels: UInt8Array, size: tuple[int, int], rules: PairRules
) -> tuple[PairStatus, str] | None:
    """Say what keeps a readable pair out of the index, None where nothing does."""
    assert task.image is not None and task.label is not None
    try:
        check_same_size(size, labels, task.image.path, task.label.path)
    except InputError as error:
        return PairStatus.MISMATCH, str(error)
    try:
        check_label_range(labels, task.label.path, rules.num_classes, rules.ignore_label)
    except InputError as error:
        return PairStatus.VALUES, str(error)
    return None


def _record(task: PairTask, size: tuple[int, int], rules: PairRules) -> IndexRecord:
    assert task.image is not None
    label = "" if task.label is None else _base(task.label)
    if task.label is not None and rules.convert is not None:
        label = f"{task.image_id}.png"
    return IndexRecord(_base(task.image), label, *size)


def _base(file: SourceFile) -> str:
    return file.name.rsplit("/", 1)[-1]


def _write(
    task: PairTask,
    record: IndexRecord,
    data: bytes,
    label_data: bytes,
    labels: UInt8Array | None,
    rules: PairRules,
) -> tuple[OutputFile, ...]:
    """Copy the photo and write the label map, as far as they do not stay where they are."""
    if rules.target is None:
        return ()
    written = []
    if rules.image_folder:
        written.append(f"{rules.image_folder}/{record.image}")
        _write_bytes(written[-1], data, task, rules.target)
    if rules.label_folder and labels is not None:
        written.append(f"{rules.label_folder}/{record.label}")
        if rules.convert is not None:
            _write_labels(written[-1], labels, task, rules)
        else:
            _write_bytes(written[-1], label_data, task, rules.target)
    outputs = []
    for name in written:
        status = os.stat(rules.target / name)
        outputs.append(OutputFile(name, status.st_size, status.st_mtime_ns))
    return tuple(outputs)


def _write_bytes(name: str, data: bytes, task: PairTask, target: Path) -> None:
    path = target / name
    if not _is_free(name, task, target) and path.read_bytes() != data:
        raise _foreign_output(path)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _write_labels(name: str, labels: UInt8Array, task: PairTask, rules: PairRules) -> None:
    assert rules.target is not None
    path = rules.target / name
    if not _is_free(name, task, rules.target) and not _holds_labels(path, labels):
        raise _foreign_output(path)
    write_label_png(path, labels, rules.palette)


def _is_free(name: str, task: PairTask, target: Path) -> bool:
    """Tell whether nothing lies under an output's name but what an earlier run wrote there.

    A file that an earlier run wrote and that is damaged now is nobody's work either.
    """
    path = target / name
    mine = [one for one in task.earlier if one.name == name]
    intact = any(one.is_intact(target) for one in mine)
    return intact or not path.exists() or (bool(mine) and _is_damaged(path))


def _is_damaged(path: Path) -> bool:
    try:
        open_image(path).decode()
    except InputError:
        return True
    return False


def _holds_labels(path: Path, labels: UInt8Array) -> bool:
    try:
        return np.array_equal(decode_label(path.read_bytes(), path), labels)
    except InputError:
        return False


def _foreign_output(path: Path) -> InputError:
    return InputError(
        f"{path} is not what this script wrote there and would be replaced: move it away, or give "
        "another --output folder"
    )
