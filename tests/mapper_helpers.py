"""Pairs of an image whose colour is its label, and mappers for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from data_helpers import COLOR_STEP, color_of, save_image
from PIL import Image

from schnet.data.augmentation import RandomCrop, RandomRotation
from schnet.data.color import ColorJitter
from schnet.data.mapper import DatasetDict, TrainMapper
from schnet.data.reading import UInt8Array

PAD_COLOR = (124, 116, 104)


def make_dict(
    folder: Path, labels: UInt8Array, image: UInt8Array | None = None, ending: str = ".png"
) -> DatasetDict:
    image = color_of(labels) if image is None else image
    return {
        "file_name": str(save_image(folder / f"photo{ending}", image)),
        "sem_seg_file_name": str(save_image(folder / "labels.png", labels)),
        "image_id": "photo",
    }


def make_mapper(
    size: tuple[int, int],
    scale_range: tuple[float, float] = (1.0, 1.0),
    mirror_prob: float = 0.0,
    mirror_pairs: tuple[tuple[int, int], ...] = (),
    sigma: float = 0.0,
    letterbox: bool = False,
) -> TrainMapper:
    rotation = RandomRotation(1.0, sigma)
    return TrainMapper(
        crop=RandomCrop(size, scale_range, mirror_prob, letterbox=letterbox, rotation=rotation),
        jitter=ColorJitter(brightness=0, contrast=0, saturation=0, hue=0),
        mirror_pairs=mirror_pairs,
        num_classes=20,
        ignore_label=255,
        pad_color=PAD_COLOR,
    )


def as_label(image: torch.Tensor) -> np.ndarray:
    """The label that each pixel's colour says."""
    return np.rint(image[0].numpy() / COLOR_STEP).astype(int)


def exif_of_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif
