"""Small data sets for the tests of `schnet.data`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from PIL import Image

from schnet.config import load_config
from schnet.data.label_maps import write_label_png
from schnet.data.labels import LIP_CLASSES, LIP_PALETTE
from schnet.data.reading import UInt8Array

COLOR_STEP = 12
FLAT_LIP = {"image_dir": "train_images", "label_dir": "train_segmentations"}


def patchwork(
    size: tuple[int, int], *, seed: int = 0, num_classes: int = len(LIP_CLASSES)
) -> UInt8Array:
    """Random overlapping rectangles of all labels; uint8 (H, W)."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(size, np.uint8)
    for value in [*range(num_classes), *range(num_classes)]:
        top, left = rng.integers(0, size[0]), rng.integers(0, size[1])
        height, width = rng.integers(size[0] // 6, size[0] // 2 + 1, 2)
        labels[top : top + height, left : left + width] = value
    return labels


def color_of(labels: UInt8Array) -> UInt8Array:
    """An image whose colour is its label; uint8 (H, W, 3)."""
    return np.repeat((labels * COLOR_STEP)[:, :, None], 3, axis=2)


def save_image(path: Path, pixels: UInt8Array, **options: object) -> Path:
    """Write an image (quality 100 where it is a JPEG) and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".jpg", ".jpeg"):
        options = {"quality": 100, "subsampling": 0, **options}
    Image.fromarray(pixels).save(path, **options)
    return path


def make_pairs(
    folder: Path,
    ids: list[str],
    *,
    image_dir: str,
    label_dir: str,
    size: tuple[int, int] = (48, 32),
    num_classes: int = len(LIP_CLASSES),
) -> None:
    """Write an image and its label map for each id."""
    for seed, image_id in enumerate(ids):
        labels = patchwork(size, seed=seed, num_classes=num_classes)
        save_image(folder / image_dir / f"{image_id}.jpg", color_of(labels))
        write_label_png(folder / label_dir / f"{image_id}.png", labels, LIP_PALETTE)


def data_config(*opts: object) -> CfgNode:
    """A config for LIP with small crops, then the given overrides."""
    small = ["INPUT.SIZE", "[32, 32]", "DATALOADER.NUM_WORKERS", "0", "SOLVER.IMS_PER_BATCH", "2"]
    return load_config([], [*small, *(str(opt) for opt in opts)])
