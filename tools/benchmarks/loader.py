"""Images per second and core of TrainMapper and of Detectron2's DatasetMapper.

Both read the same photos and label maps and do the same resize, crop or padding, and flip, in
turns, in one process of one thread. What counts is the process's own CPU time, so that other
programs on the machine do not; the table shows the median of the rounds. Two more columns
show TrainMapper with colour jitter, and with jitter and rotation (60 % turned, sigma 30 degrees),
which Detectron2's side does not do.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import detectron2.data.transforms as T
import numpy as np
import PIL
import torch
from benchmarks.photos import JPEG_QUALITY, PhotoSet, enlarge_photos, load_photos
from detectron2.data import DatasetMapper, MetadataCatalog
from tabulate import tabulate
from tqdm import tqdm

from schnet.data.augmentation import RandomCrop, RandomRotation
from schnet.data.catalog import register_datasets
from schnet.data.color import ColorJitter
from schnet.data.files import atomic_path
from schnet.data.mapper import TrainMapper
from schnet.errors import InputError

Mapper = Callable[[dict[str, Any]], dict[str, Any]]

DEFAULT_DATASETS = ("ccp_train", "cihp_train")
DEFAULT_CROPS = ((256, 176), (384, 256), (512, 512), (672, 448))
# Default of INPUT.SCALE_RANGE; the photos take evenly spaced scales of it, logarithmically.
SCALES = tuple(0.75 * 2 ** (step / 7) for step in range(8))
ENLARGED = 3
MAX_ENLARGED = 12
PAD_COLOR = (124, 116, 104)
SIDES = ("detectron2", "schnet", "schnet_jitter", "schnet_jitter_rotation")


@dataclass(frozen=True)
class Row:
    """One line of the table; the rates are images per second of CPU time.

    Attributes:
        photos: title of the photo set.
        count: number of photos.
        stored: their median height and width in pixels.
        crop: height and width of the result.
        rates: by side, the median over the rounds.
    """

    photos: str
    count: int
    stored: tuple[int, int]
    crop: tuple[int, int]
    rates: dict[str, float]

    @property
    def ratio(self) -> float:
        """Images of TrainMapper's for one of Detectron2's."""
        return self.rates["schnet"] / self.rates["detectron2"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument(
        "--root", help="folder of the data sets (default: $DETECTRON2_DATASETS, else datasets)"
    )
    parser.add_argument(
        "--dataset",
        action="append",
        metavar="NAME",
        help=f"registered data set; repeat for more (default: {' and '.join(DEFAULT_DATASETS)})",
    )
    parser.add_argument(
        "--crop",
        action="append",
        type=_size,
        metavar="HEIGHTxWIDTH",
        help=f"repeat for more (default: {', '.join(map(_written, DEFAULT_CROPS))})",
    )
    parser.add_argument("--photos", type=int, default=40, help="photos a data set (default: 40)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds over them (default: 5)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the figures here")


def run(args: argparse.Namespace) -> str:
    """Measure all data sets and crops.

    Args:
        args: what `add_arguments` declares.

    Returns:
        A markdown table and notes.

    Raises:
        InputError: an option is impossible, a file cannot be read, or no data set is there.
    """
    for name in ("photos", "rounds"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} is {getattr(args, name)}: it must be at least 1")
    if args.json and args.json.is_dir():
        raise InputError(f"--json {args.json} is a folder: name a file in it")
    register_datasets(args.root)
    crops = args.crop or list(DEFAULT_CROPS)
    with tempfile.TemporaryDirectory() as folder, _one_thread():
        sets, missing = _photo_sets(args.dataset or DEFAULT_DATASETS, args.photos, Path(folder))
        todo = [(photos, crop) for photos in sets for crop in crops]
        rows = [
            measure(photos, crop, args.rounds)
            for photos, crop in tqdm(todo, desc="measuring", unit="row")
        ]
    if args.json:
        _write_json(args.json, args, rows, missing)
    return "\n".join([_table(rows), "", *_notes(args, missing)])


def measure(photos: PhotoSet, crop: tuple[int, int], rounds: int) -> Row:
    """Measure all sides on one photo set and crop.

    Args:
        photos: the photos.
        crop: height and width of the result.
        rounds: how often each photo is mapped by each side.
    """
    mappers = [
        build_mappers(photos.dataset, crop, scale, flip) for scale in SCALES for flip in (0.0, 1.0)
    ]
    # Also the warm-up: files come from memory afterwards.
    for number, entry in enumerate(photos.dicts):
        check_alike(*(mapper(entry) for mapper in mappers[number % len(mappers)].values()))
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    for turn in range(rounds):
        # A side at a time, as a loader runs: after another one's item, its caches would be cold.
        for side in SIDES[:: 1 if turn % 2 else -1]:
            start = time.process_time()
            for number, entry in enumerate(photos.dicts):
                # Seven and sixteen have no common factor: photos meet other scales and flips.
                mappers[(number + 7 * turn) % len(mappers)][side](entry)
            rates[side].append(len(photos.dicts) / (time.process_time() - start))
    medians = {side: float(np.median(values)) for side, values in rates.items()}
    return Row(photos.title, len(photos.dicts), photos.median_size, crop, medians)


def build_mappers(
    dataset: str, crop: tuple[int, int], scale: float, flip: float
) -> dict[str, Mapper]:
    """Build each side's mapper, which resizes, crops or pads, and flips alike.

    Args:
        dataset: name of the registered data set that the photos come from.
        crop: height and width of the result.
        scale: factor on the scale that fits a photo into the crop.
        flip: probability of flipping; 0 or 1 makes the sides do the same.

    Returns:
        By side: from a dataset dict to a dict with 'image' and 'sem_seg'.
    """
    metadata = MetadataCatalog.get(dataset)
    still = ColorJitter(brightness=0, contrast=0, saturation=0, hue=0)
    jitter = ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05)
    variants = {
        "schnet": (still, None),
        "schnet_jitter": (jitter, None),
        "schnet_jitter_rotation": (jitter, RandomRotation(0.6, 30.0)),
    }
    mappers: dict[str, Mapper] = {
        "detectron2": DatasetMapper(
            is_train=True,
            augmentations=[
                T.ResizeScale(scale, scale, *crop),
                T.FixedSizeCrop(crop),
                T.RandomFlip(flip),
            ],
            image_format="RGB",
        )
    }
    for side, (colors, rotation) in variants.items():
        mapper = TrainMapper(
            crop=RandomCrop(crop, (scale, scale), flip, rotation=rotation),
            jitter=colors,
            mirror_pairs=metadata.mirror_pairs,
            num_classes=len(metadata.stuff_classes),
            ignore_label=metadata.ignore_label,
            pad_color=PAD_COLOR,
        )
        mappers[side] = partial(mapper, rng=np.random.default_rng(0))
    return mappers


def check_alike(*items: dict[str, Any]) -> None:
    """Make sure that the sides made items of one kind.

    Raises:
        RuntimeError: an image or a label map has another shape; the comparison would be void.
    """
    shapes = {(item["image"].shape, item["sem_seg"].shape) for item in items}
    if len(shapes) > 1:
        raise RuntimeError(f"the mappers gave different shapes: {shapes}")


def _photo_sets(
    datasets: Sequence[str], count: int, folder: Path
) -> tuple[list[PhotoSet], list[str]]:
    """Load the photo sets, some of the first enlarged, and say which are not there."""
    sets, missing = [], []
    for name in datasets:
        try:
            sets.append(load_photos(name, count, folder))
        except InputError as error:
            missing.append(str(error))
    if not sets:
        raise InputError(f"nothing to measure: {'; '.join(missing)}")
    return [*sets, enlarge_photos(sets[0], ENLARGED, folder, MAX_ENLARGED)], missing


@contextmanager
def _one_thread() -> Iterator[None]:
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 512x384") from None
    if min(height, width) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} has a side below 1")
    return height, width


def _written(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _table(rows: Sequence[Row]) -> str:
    headers = ["Photos", "Stored", "Crop", "Detectron2", "SCHNet", "Ratio", "+ jitter"]
    lines = [
        [
            f"{row.photos} ({row.count})",
            _written(row.stored),
            _written(row.crop),
            *(f"{row.rates[side]:.0f}" for side in SIDES[:2]),
            f"{row.ratio:.2f}",
            *(f"{row.rates[side]:.0f}" for side in SIDES[2:]),
        ]
        for row in rows
    ]
    align = ("left", "left", "left", *("right",) * 5)
    return tabulate(
        lines,
        headers=[*headers, "+ jitter, rotation"],
        tablefmt="github",
        colalign=align,
        disable_numparse=True,
    )


def _notes(args: argparse.Namespace, missing: Sequence[str]) -> list[str]:
    versions = f"OpenCV {cv2.__version__}, Pillow {PIL.__version__}, torch {torch.__version__}"
    return [
        "Images per second and core (CPU time of one thread), median of "
        f"{args.rounds} rounds; sizes are height x width, stored ones the median.",
        "Detectron2: DatasetMapper with ResizeScale, FixedSizeCrop and RandomFlip; SCHNet: "
        "TrainMapper with the same scales and flips.",
        "Label maps are grey PNGs, the only ones whose indices Detectron2's mapper keeps. Enlarged "
        f"photos are the data set's own, made larger (bicubic, JPEG quality {JPEG_QUALITY}).",
        f"{platform.machine()}, {versions}.",
        *(f"Not measured: {reason}" for reason in missing),
    ]


def _write_json(
    path: Path, args: argparse.Namespace, rows: Sequence[Row], missing: Sequence[str]
) -> None:
    content = {
        "benchmark": "loader",
        "unit": "images per second of CPU time",
        "photos": args.photos,
        "rounds": args.rounds,
        "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
        "not_measured": list(missing),
        "versions": {
            "opencv": cv2.__version__,
            "pillow": PIL.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "cores": os.cpu_count(),
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
