"""Pictures of label maps: colours, overlays, legends and contact sheets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from schnet.data.files import atomic_path

ByteArray = npt.NDArray[np.uint8]
Palette = Sequence[Sequence[int]]

# Unlabelled pixels are drawn as no class can be: white with grey diagonal lines.
HATCH_LIGHT = (255, 255, 255)
HATCH_DARK = (168, 168, 168)
HATCH_PERIOD = 8

PAPER = (250, 250, 250)
INK = (34, 34, 34)
RULE = (205, 205, 205)
TEXT_SIZE = 15
MARGIN = 16
GAP = 6
SWATCH = 18


@dataclass(frozen=True)
class SheetRow:
    """One line of a contact sheet.

    Attributes:
        photo: (H, W, 3) uint8 RGB.
        truth: (H, W) uint8 labels, or None where they are not known.
        prediction: (H, W) uint8 labels, or None where there is none.
    """

    photo: ByteArray
    truth: ByteArray | None
    prediction: ByteArray | None


def colorize(labels: ByteArray, palette: Palette, ignore_label: int = 255) -> ByteArray:
    """Draw a label map in its data set's colours.

    Args:
        labels: (H, W) in 0..K-1 or the ignore label, which is drawn hatched.
        palette: K colours (r, g, b) in 0..255.
        ignore_label: label of the pixels without one.

    Returns:
        (H, W, 3) RGB.

    Raises:
        ValueError: a label has no colour.
    """
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(palette)] = np.asarray(palette, dtype=np.uint8)
    unlabelled = labels == ignore_label
    out_of_range = (labels >= len(palette)) & ~unlabelled
    if out_of_range.any():
        raise ValueError(f"label {labels[out_of_range].max()} has none of {len(palette)} colours")
    colors = table[labels]
    colors[unlabelled] = _hatch(*labels.shape)[unlabelled]
    return colors


def overlay(
    image: ByteArray,
    labels: ByteArray,
    palette: Palette,
    alpha: float = 0.6,
    ignore_label: int = 255,
) -> ByteArray:
    """Lay a label map's colours over its photo; pixels without a label stay as they are.

    Args:
        image: (H, W, 3) RGB.
        labels: (H, W), as for `colorize`.
        palette: K colours (r, g, b) in 0..255.
        alpha: weight of the colours, in [0, 1].
        ignore_label: label of the pixels without one.

    Returns:
        (H, W, 3) RGB, a new array.

    Raises:
        ValueError: the sizes differ, or a label has no colour.
    """
    if image.shape[:2] != labels.shape:
        raise ValueError(f"the image is {image.shape[:2]} and its labels {labels.shape}")
    colors = colorize(labels, palette, ignore_label)
    mixed = cv2.addWeighted(colors, alpha, image, 1 - alpha, 0)
    return np.where((labels == ignore_label)[..., None], image, mixed)


def legend(
    class_names: Sequence[str], palette: Palette, title: str = "", show_ignored: bool = False
) -> ByteArray:
    """Draw one line a class, a swatch of its colour and its name.

    Args:
        class_names: K names.
        palette: K colours (r, g, b) in 0..255.
        title: a heading; none where empty.
        show_ignored: add a line for the hatch of pixels without a label.

    Returns:
        (height, width, 3) RGB, as large as the text needs.
    """
    hatch = Image.fromarray(_hatch(SWATCH, SWATCH))
    swatches = [Image.new("RGB", (SWATCH, SWATCH), tuple(color)) for color in palette]
    entries = list(zip(swatches, class_names, strict=True))
    if show_ignored:
        entries.append((hatch, "not labelled"))
    font = _font()
    line = SWATCH + GAP
    indent = SWATCH + 2 * GAP
    width = max([font.getlength(title)] + [indent + font.getlength(name) for _, name in entries])
    height = line * (len(entries) + bool(title))
    sheet = Image.new("RGB", (int(width) + 2, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = 0
    if title:
        draw.text((0, SWATCH // 2), title, INK, font, anchor="lm")
        top = line
    for number, (swatch, name) in enumerate(entries):
        y = top + number * line
        sheet.paste(swatch, (0, y))
        draw.rectangle((0, y, SWATCH - 1, y + SWATCH - 1), outline=RULE)
        draw.text((indent, y + SWATCH // 2), name, INK, font, anchor="lm")
    return np.asarray(sheet).copy()


def contact_sheet(
    rows: Sequence[SheetRow],
    class_names: Sequence[str],
    palette: Palette,
    cell_height: int = 240,
    ignore_label: int = 255,
) -> ByteArray:
    """Draw photo, truth and prediction of several images in rows, beside a legend.

    Every picture is fitted into one cell size, its aspect kept. A column of label maps is left out
    where no row has one; where only some have none, their cell says so. Without any prediction the
    truth is drawn over the photo too, to see whether the two are aligned.

    Args:
        rows: at least one, of any sizes.
        class_names: K names.
        palette: K colours (r, g, b) in 0..255.
        cell_height: pixels; the cells' width follows from the pictures' median aspect.
        ignore_label: label of the pixels without one.

    Returns:
        (height, width, 3) RGB.

    Raises:
        ValueError: there is no row, or a label has no colour.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one row")
    headers = ["photo"]
    if any(row.truth is not None for row in rows):
        headers.append("truth")
    if any(row.prediction is not None for row in rows):
        headers.append("prediction")
    elif headers[-1] == "truth":
        headers.append("truth over photo")
    ignored = any(row.truth is not None and (row.truth == ignore_label).any() for row in rows)
    key = legend(class_names, palette, title="legend", show_ignored=ignored)
    aspect = float(np.median([row.photo.shape[1] / row.photo.shape[0] for row in rows]))
    cell = (cell_height, round(cell_height * min(max(aspect, 0.4), 2.0)))

    top = MARGIN + SWATCH + GAP
    legend_left = MARGIN + len(headers) * (cell[1] + GAP) + MARGIN
    height = max(top + len(rows) * (cell[0] + GAP) - GAP, MARGIN + key.shape[0]) + MARGIN
    sheet = np.empty((height, legend_left + key.shape[1] + MARGIN, 3), dtype=np.uint8)
    sheet[:] = PAPER
    _paste(sheet, key, MARGIN, legend_left)
    for number, row in enumerate(rows):
        y = top + number * (cell[0] + GAP)
        for column, picture in enumerate(_row_cells(row, cell, palette, headers, ignore_label)):
            _paste(sheet, picture, y, MARGIN + column * (cell[1] + GAP))
    centers = [MARGIN + column * (cell[1] + GAP) + cell[1] // 2 for column in range(len(headers))]
    return _with_headers(sheet, headers, centers)


def picture_strip(
    row: SheetRow, palette: Palette, max_side: int, ignore_label: int = 255
) -> ByteArray:
    """Draw photo, truth and prediction of one image beside each other.

    Args:
        row: the image; a map that is missing is said to be.
        palette: K colours (r, g, b) in 0..255.
        max_side: pixels of the longer side of each picture at most; small photos stay as they are.
        ignore_label: label of the pixels without one.

    Returns:
        (height, width, 3) RGB, three pictures wide.

    Raises:
        ValueError: a label has no colour.
    """
    scale = min(1.0, max_side / max(row.photo.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in row.photo.shape[:2])
    cells = _row_cells(
        row, (height, width), palette, ("photo", "truth", "prediction"), ignore_label
    )
    strip = np.empty((height, 3 * width + 2 * GAP, 3), dtype=np.uint8)
    strip[:] = PAPER
    for column, picture in enumerate(cells):
        _paste(strip, picture, 0, column * (width + GAP))
    return strip


def evenly_spaced(total: int, wanted: int) -> list[int]:
    """Choose `wanted` different indices of 0..total-1, the ends included; all where too few."""
    return np.linspace(0, total - 1, min(total, wanted)).round().astype(int).tolist()


def save_png(path: str | os.PathLike[str], image: ByteArray) -> None:
    """Write an RGB image (H, W, 3) as PNG, atomically; folders are made where needed."""
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")


def _row_cells(
    row: SheetRow,
    cell: tuple[int, int],
    palette: Palette,
    headers: Sequence[str],
    ignore_label: int,
) -> list[ByteArray]:
    """Make the pictures of one row, each of size `cell` (height, width), one a header."""
    photo = _fit(row.photo, cell)

    def draw(labels: ByteArray | None, header: str) -> ByteArray:
        if labels is None:
            return _note(f"no {header.split()[0]}", cell)
        # Fitted before it is coloured: no mixed colours, and the same hatch in every cell.
        fitted = _fit(labels, cell)
        if header == "truth over photo":
            return _letterbox(overlay(photo, fitted, palette, ignore_label=ignore_label), cell)
        return _letterbox(colorize(fitted, palette, ignore_label), cell)

    maps = [row.prediction if header == "prediction" else row.truth for header in headers[1:]]
    drawn = [draw(labels, header) for labels, header in zip(maps, headers[1:], strict=True)]
    return [_letterbox(photo, cell), *drawn]


def _fit(picture: ByteArray, cell: tuple[int, int]) -> ByteArray:
    """Resize a photo (3-D) smoothly or labels (2-D) by nearest to touch the cell's sides."""
    height, width = picture.shape[:2]
    scale = min(cell[0] / height, cell[1] / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if picture.ndim == 2:
        method = cv2.INTER_NEAREST_EXACT
    else:
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, size, interpolation=method), dtype=np.uint8)


def _letterbox(picture: ByteArray, cell: tuple[int, int]) -> ByteArray:
    """Centre an RGB picture that is no larger than the cell on the paper's colour."""
    box = np.empty((*cell, 3), dtype=np.uint8)
    box[:] = PAPER
    _paste(box, picture, (cell[0] - picture.shape[0]) // 2, (cell[1] - picture.shape[1]) // 2)
    return box


def _note(text: str, cell: tuple[int, int]) -> ByteArray:
    box = Image.new("RGB", (cell[1], cell[0]), PAPER)
    ImageDraw.Draw(box).text((cell[1] // 2, cell[0] // 2), text, INK, _font(), anchor="mm")
    return np.asarray(box)


def _with_headers(sheet: ByteArray, headers: Sequence[str], centers: Sequence[int]) -> ByteArray:
    image = Image.fromarray(sheet)
    draw = ImageDraw.Draw(image)
    for text, center in zip(headers, centers, strict=True):
        draw.text((center, MARGIN + SWATCH // 2), text, INK, _font(), anchor="mm")
    return np.asarray(image).copy()


def _paste(sheet: ByteArray, picture: ByteArray, top: int, left: int) -> None:
    sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture


def _hatch(height: int, width: int) -> ByteArray:
    """Draw diagonal lines over (height, width)."""
    diagonal = (np.arange(height)[:, None] + np.arange(width)) % HATCH_PERIOD < HATCH_PERIOD // 4
    return np.array([HATCH_LIGHT, HATCH_DARK], dtype=np.uint8)[diagonal.astype(np.intp)]


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=TEXT_SIZE)
