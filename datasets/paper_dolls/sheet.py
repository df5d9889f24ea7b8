"""A sheet of samples with their label maps, to look at."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from paper_dolls.labels import PALETTE
from paper_dolls.scene import Sample, render_sample
from paper_dolls.writer import Settings
from PIL import Image

COLUMNS, ROWS = 6, 4
SHEET_WIDTH, GAP = 1400, 6
PAPER = 250


def write_sheet(path: Path, settings: Settings) -> None:
    """Write a PNG with the first 24 validation samples, each picture beside its label map.

    Args:
        path: the PNG; its folder is made if need be.
        settings: of the data set.
    """
    count = COLUMNS * ROWS
    samples = [
        render_sample(settings.seed, "val", n, settings.height, settings.width)
        for n in range(count)
    ]
    rows = [_row(samples[start : start + COLUMNS]) for start in range(0, count, COLUMNS)]
    sheet = Image.fromarray(np.concatenate(rows))
    few = sheet.quantize(256, kmeans=1)
    colours = sheet.quantize(palette=few, dither=Image.Dither.FLOYDSTEINBERG)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    colours.save(temporary, format="PNG", optimize=True)
    os.replace(temporary, path)


def _row(samples: list[Sample]) -> NDArray[np.uint8]:
    """Return the samples side by side at the same height, as wide as the sheet."""
    shapes = [sample.labels.shape for sample in samples]
    free = SHEET_WIDTH - GAP * (len(samples) + 1)
    height = int(free / sum(2 * columns / rows for rows, columns in shapes))
    row = np.full((height + GAP, SHEET_WIDTH, 3), PAPER, dtype=np.uint8)
    palette = np.asarray(PALETTE, dtype=np.uint8)
    left = GAP
    for sample, (rows, columns) in zip(samples, shapes, strict=True):
        size = columns * height // rows, height
        picture = cv2.resize(sample.picture, size, interpolation=cv2.INTER_AREA)
        colours = cv2.resize(palette[sample.labels], size, interpolation=cv2.INTER_NEAREST)
        row[:height, left : left + size[0]] = picture
        row[:height, left + size[0] : left + 2 * size[0]] = colours
        left += 2 * size[0] + GAP
    return row
