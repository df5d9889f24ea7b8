"""Label maps as palette PNGs, the format of LIP's annotations."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from paper_dolls.labels import PALETTE
from PIL import Image


def write_label_png(labels: NDArray[np.uint8]) -> bytes:
    """Return a label map as a PNG of mode P with LIP's palette.

    Args:
        labels: label indices, shape (H, W).
    """
    picture = Image.frombytes("P", labels.shape[::-1], np.ascontiguousarray(labels).tobytes())
    picture.putpalette([value for colour in PALETTE for value in colour])
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=False)
    return stream.getvalue()


def read_label_png(path: Path) -> NDArray[np.uint8]:
    """Return the indices of a palette PNG, shape (H, W).

    Raises:
        OSError: the file is missing or damaged.
        ValueError: it is not a palette PNG.
    """
    with Image.open(path) as picture:
        if picture.mode != "P":
            raise ValueError(f"{path} has mode {picture.mode}")
        return np.asarray(picture, dtype=np.uint8)
