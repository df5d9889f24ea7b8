"""Writes the data set in LIP's official layout, with the indexes of its splits.

The folder is marked as ours by a small file. An output of the same settings is completed (files
that are there and whole are kept), one of other settings is replaced; a folder without the mark
that holds anything is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from paper_dolls.labels import CLASSES
from paper_dolls.palette_png import read_label_png, write_label_png
from paper_dolls.scene import SPLITS, render_sample
from PIL import Image
from tqdm import tqdm

from schnet.data.index import DatasetIndex, IndexRecord, write_index
from schnet.errors import InputError

MARK = "paper_dolls.json"
MARK_FORMAT = "paper-dolls/1"
JPEG_QUALITY = 92
IMAGES = "TrainVal_images/TrainVal_images/{split}_images"
LABELS = "TrainVal_parsing_annotations/TrainVal_parsing_annotations/{split}_segmentations"
OWN_NAME = re.compile(r"\.?doll_(?:train|val)_(\d{5,})\.(?:jpg|png)(\.\d+\.tmp)?")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What decides about every picture (the numbers of pictures do not).

    Attributes:
        seed: of the whole data set, >= 0.
        height: usual height of the pictures, pixels.
        width: usual width of the pictures, pixels.
    """

    seed: int = 0
    height: int = 256
    width: int = 160


@dataclass(frozen=True)
class _Task:
    """One pair to write."""

    output: Path
    settings: Settings
    split: str
    number: int

    @property
    def name(self) -> str:
        return f"doll_{self.split}_{self.number:05d}"

    @property
    def image(self) -> Path:
        return self.output / IMAGES.format(split=self.split) / f"{self.name}.jpg"

    @property
    def label(self) -> Path:
        return self.output / LABELS.format(split=self.split) / f"{self.name}.png"


@dataclass(frozen=True)
class _Written:
    """Size and label counts of one pair."""

    name: str
    height: int
    width: int
    counts: tuple[int, ...]


def write_data_set(
    output: Path, settings: Settings, sizes: dict[str, int], processes: int, progress: bool = True
) -> dict[str, DatasetIndex]:
    """Write all pictures, label maps, id lists and indexes.

    Args:
        output: folder; new, empty, or an earlier output.
        settings: what the pictures depend on.
        sizes: number of pictures of each split, at least 1.
        processes: how many processes render; 1 renders in this one.
        progress: whether to show a progress bar.

    Returns:
        The index of each split.

    Raises:
        InputError: the folder holds something else, or cannot be written.
    """
    try:
        _claim(output, settings, sizes)
        tasks = [_Task(output, settings, split, n) for split in SPLITS for n in range(sizes[split])]
        written: dict[str, list[_Written]] = {split: [] for split in SPLITS}
        bar = tqdm(
            total=len(tasks), desc="paper dolls", unit="doll", mininterval=1.0, disable=not progress
        )
        with bar:
            for task, result in zip(tasks, _results(tasks, processes), strict=True):
                written[task.split].append(result)
                bar.update()
        return {split: _write_lists(output, split, written[split]) for split in SPLITS}
    except OSError as error:
        raise InputError(
            f"the paper dolls cannot be written to {output} ({error}): give another --output or "
            "make room and start again, what is written is kept"
        ) from None


def _claim(output: Path, settings: Settings, sizes: dict[str, int]) -> None:
    """Make the folder ours; remove what an output of other settings or larger size left."""
    mark = {"format": MARK_FORMAT, "generator": _fingerprint(), **asdict(settings)}
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file: give a folder")
    same = False
    if output.is_dir() and any(output.iterdir()):
        same = _read_mark(output) == mark
    for split in SPLITS:
        folders = [output / pattern.format(split=split) for pattern in (IMAGES, LABELS)]
        stale = [path for folder in folders for path in _stale(folder, sizes[split] if same else 0)]
        if stale or not same:
            # first, so that no list names a file that an interrupted run has already removed
            (output / f"{split}.json").unlink(missing_ok=True)
            (output / f"{split}_id.txt").unlink(missing_ok=True)
        for path in stale:
            path.unlink()
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
    _write_atomically(output / MARK, json.dumps(mark, indent=1).encode() + b"\n")


def _stale(folder: Path, size: int) -> list[Path]:
    """Return our files in the folder that a split of this size does not have."""
    if not folder.is_dir():
        return []
    matches = [(path, OWN_NAME.fullmatch(path.name)) for path in sorted(folder.iterdir())]
    return [path for path, match in matches if match and (match[2] or int(match[1]) >= size)]


def _read_mark(output: Path) -> dict[str, object]:
    """Return the mark of an earlier output.

    Raises:
        InputError: there is none, or it is not ours.
    """
    try:
        mark = json.loads((output / MARK).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        mark = None
    if not isinstance(mark, dict) or mark.get("format") != MARK_FORMAT:
        raise InputError(
            f"--output {output} is not empty and holds no {MARK} of an earlier run: give a new or "
            "empty folder, nothing in it was changed"
        )
    return mark


def _fingerprint() -> str:
    """Return a digest of the generator's source and of the drawing library's version."""
    digest = hashlib.sha256(f"{cv2.__version__} {np.__version__}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _results(tasks: list[_Task], processes: int) -> Iterator[_Written]:
    """Yield the results in the order of the tasks."""
    if processes <= 1:
        yield from map(_write_pair, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(
        min(processes, len(tasks)), initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        yield from pool.imap(_write_pair, tasks, chunksize=4)


def _write_pair(task: _Task) -> _Written:
    """Write one picture and its label map unless both are there and whole."""
    settings = task.settings
    labels = _existing_labels(task)
    if labels is None:
        sample = render_sample(
            settings.seed, task.split, task.number, settings.height, settings.width
        )
        labels = sample.labels
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        _, encoded = cv2.imencode(".jpg", sample.picture[..., ::-1], options)
        _write_atomically(task.image, encoded.tobytes())
        _write_atomically(task.label, write_label_png(labels))
    counts = np.bincount(labels.ravel(), minlength=len(CLASSES))
    return _Written(task.name, labels.shape[0], labels.shape[1], tuple(int(n) for n in counts))


def _existing_labels(task: _Task) -> NDArray[np.uint8] | None:
    """Return the labels of a pair that an earlier run wrote, or None where it is not whole."""
    try:
        labels = read_label_png(task.label)
        with Image.open(task.image) as picture:
            picture.load()
            size = picture.size
    except (OSError, ValueError, SyntaxError):
        return None
    return labels if size == labels.shape[::-1] else None


def _write_lists(output: Path, split: str, written: list[_Written]) -> DatasetIndex:
    """Write the id list and the index of a split."""
    _write_atomically(output / f"{split}_id.txt", "".join(f"{w.name}\n" for w in written).encode())
    counts = np.sum([w.counts for w in written], axis=0)
    index = DatasetIndex(
        classes=CLASSES,
        image_root=IMAGES.format(split=split),
        label_root=LABELS.format(split=split),
        pixel_counts=tuple(int(count) for count in counts),
        records=tuple(
            IndexRecord(f"{w.name}.jpg", f"{w.name}.png", w.height, w.width) for w in written
        ),
    )
    write_index(output / f"{split}.json", index)
    return index


def _write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
