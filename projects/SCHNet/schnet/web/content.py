"""What the web page shows of a parsing, and the files that it offers; no web framework here."""

from __future__ import annotations

import base64
import html
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from schnet.data.reading import decode_upright, parse_image, read_bytes
from schnet.errors import InputError
from schnet.parsing import Parsing, background_numbers
from schnet.photo_parser import PhotoParser
from schnet.visualization import ByteArray, save_png

DISPLAY_SIDE = 1280
"""Longer side of the photo on the page at most, in pixels; the files have the photo's own size."""

JPEG_QUALITY = 88


class PhotoPage:
    """What the page does with a photo."""

    def __init__(self, parser: PhotoParser, folder: Path) -> None:
        """Take the model, and the folder in which results are kept until the server ends."""
        self._parser = parser
        self._folder = folder

    def parse(self, path: str) -> tuple[dict[str, Any], str, str | None, str | None]:
        """Parse an uploaded photo.

        Args:
            path: where the server keeps it.

        Returns:
            The viewer's content, see `page_content`; a sentence, where there is no result; and the
            paths of the label map and of the overlay. What there is not is empty or None.
        """
        name = Path(path).name
        try:
            parsing = self._parser(read_upload(path))
        except InputError as error:
            return {}, str(error), None, None
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        labels, overlay = write_downloads(parsing, folder, name)
        return page_content(parsing, name), "", str(labels), str(overlay)


def read_upload(path: str | os.PathLike[str]) -> ByteArray:
    """Read an uploaded photo, upright; errors name it as the user knows it.

    Args:
        path: where the server keeps it.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: it is no image, or damaged.
    """
    return decode_upright(parse_image(read_bytes(path, "image"), Path(path).name))


def page_content(parsing: Parsing, name: str) -> dict[str, Any]:
    """Put together what the page's script draws.

    Args:
        parsing: it has kept its photo.
        name: the photo's file name.

    Returns:
        `name`; `size`, the photo's width and height; `width`, `height` and `photo`, those of the
        photo as it is shown, and a JPEG as a data URL; `runs`: the shown label map row by row, as
        label, length, label, length, ...; `parts`, see `part_rows`.
    """
    assert parsing.image is not None
    height, width = parsing.labels.shape
    scale = min(1.0, DISPLAY_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    photo = cv2.resize(parsing.image, size, interpolation=cv2.INTER_AREA)
    labels = cv2.resize(parsing.labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return {
        "name": name,
        "size": [width, height],
        "width": size[0],
        "height": size[1],
        "photo": _data_url(np.asarray(photo, np.uint8)),
        "runs": label_runs(np.asarray(labels, np.uint8)),
        "parts": part_rows(parsing),
    }


def label_runs(labels: ByteArray) -> list[int]:
    """Write a label map as runs of equal labels, row by row.

    Args:
        labels: (H, W), at least one pixel.

    Returns:
        Label, length, label, length, ...; the lengths sum to H x W.
    """
    flat = labels.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(starts, append=flat.size)
    return np.stack([flat[starts], lengths], axis=1).ravel().tolist()


def part_rows(parsing: Parsing) -> list[dict[str, Any]]:
    """List the classes that occur, the largest first and the background last.

    Returns:
        A dict each: `label`; `name`; `color`, CSS, empty for the background, which is not drawn;
        `percent` of the photo's pixels, as text.
    """
    background = background_numbers(parsing.classes)
    areas = list(parsing.areas().values())
    there = [label for label, area in enumerate(areas) if area]
    there.sort(key=lambda label: (label in background, -areas[label]))
    return [
        {
            "label": label,
            "name": parsing.classes[label],
            "color": ""
            if label in background
            else "#{:02x}{:02x}{:02x}".format(*parsing.palette[label]),
            "percent": percent_words(areas[label] / parsing.labels.size),
        }
        for label in there
    ]


def percent_words(share: float) -> str:
    """Word a share in (0, 1] so that what is there is not said to be nothing."""
    return "< 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"


def write_downloads(parsing: Parsing, folder: Path, name: str) -> tuple[Path, Path]:
    """Write what can be downloaded, at the photo's size.

    Args:
        parsing: it has kept its photo.
        folder: a new one, for these two.
        name: the photo's file name.

    Returns:
        The label map (an index PNG in the palette; pixel value = label) and the overlay.
    """
    stem = Path(name).stem
    labels, overlay = folder / f"{stem}_parts.png", folder / f"{stem}_overlay.png"
    parsing.save_png(labels)
    save_png(overlay, parsing.overlay())
    return labels, overlay


def message(text: str) -> str:
    """A sentence as HTML; nothing in it is taken for a tag."""
    return f'<p role="alert" class="schnet-message">{html.escape(text)}</p>' if text else ""


def _data_url(image: ByteArray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
