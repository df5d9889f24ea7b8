"""A sheet of samples with their label maps, to look at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from paper_dolls.labels import PALETTE
from paper_dolls.scene import Sample, render_sample
from paper_dolls.writer import Settings
from PIL import Image

COLUMNS, ROWS = 8, 3
CELL_HEIGHT, GAP = 168, 6
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
    width = max(row.shape[1] for row in rows)
    sheet = np.concatenate([_centred(row, width) for row in rows])
    colours = Image.fromarray(sheet).quantize(256, dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    colours.save(temporary, format="PNG", optimize=True)
    os.replace(temporary, path)


def _row(samples: list[Sample]) -> NDArray[np.uint8]:
    """Return the samples side by side at the same height."""
    palette = np.asarray(PALETTE, dtype=np.uint8)
    gap = np.full((CELL_HEIGHT, GAP, 3), PAPER, dtype=np.uint8)
    cells: list[NDArray[Any]] = [gap]
    for sample in samples:
        rows, columns = sample.labels.shape
        size = max(columns * CELL_HEIGHT // rows, 1), CELL_HEIGHT
        cells.append(cv2.resize(sample.picture, size, interpolation=cv2.INTER_AREA))
        cells.append(cv2.resize(palette[sample.labels], size, interpolation=cv2.INTER_NEAREST))
        cells.append(gap)
    return np.concatenate(cells, axis=1)


def _centred(row: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Return the row in the middle of a strip of paper of the given width."""
    sheet = np.full((row.shape[0] + GAP, width, 3), PAPER, dtype=np.uint8)
    left = (width - row.shape[1]) // 2
    sheet[: row.shape[0], left : left + row.shape[1]] = row
    return sheet
