"""Predictions beside their ground truth: photo, truth and prediction in one captioned picture."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from schnet.data.file_names import files_below
from schnet.data.label_maps import check_same_size, read_label
from schnet.data.labels import IGNORE_LABEL
from schnet.data.reading import EncodedImage, turned_upright
from schnet.drawing import at_least
from schnet.errors import InputError
from schnet.evaluation.counts import ParsingCounts
from schnet.evaluation.per_image import score_image
from schnet.parsing import Parsing
from schnet.visualization import (
    GAP,
    INK,
    MARGIN,
    PAPER,
    TEXT_SIZE,
    ByteArray,
    SheetRow,
    picture_strip,
)

LABEL_ENDING = ".png"
# Longer side of each of the three pictures, in pixels: small photos are enlarged to the first.
_SMALLEST, _LARGEST = 320, 640


@dataclass(frozen=True)
class Compared:
    """One photo's comparison.

    Attributes:
        picture: (height, width, 3) uint8 RGB.
        missing: the folder has no truth for the photo.
        problem: a sentence, where there is a truth that cannot be used.
    """

    picture: ByteArray
    missing: bool = False
    problem: str | None = None


def find_truths(folder: str | os.PathLike[str], skip: Collection[Path] = ()) -> dict[str, Path]:
    """Find the index PNGs of a folder, at all depths, by their names without the ending.

    Args:
        folder: where they are.
        skip: resolved paths that are none, such as earlier results.

    Raises:
        InputError: it is no folder, has no PNG, or has two of one name.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"--compare {root} is no folder: give the one with the truth's index PNGs")
    found: dict[str, Path] = {}
    for path in files_below(root):
        if path.suffix.lower() != LABEL_ENDING or path.resolve() in skip:
            continue
        if path.stem in found:
            raise InputError(
                f"--compare {root} holds {found[path.stem]} and {path}, so that the truth of "
                f"{path.stem} cannot be told: give a folder with one of them"
            )
        found[path.stem] = path
    if not found:
        raise InputError(f"--compare {root} holds no {LABEL_ENDING} file: give one with label maps")
    return found


def require_different_stems(photos: Sequence[Path], truths: dict[str, Path]) -> None:
    """Refuse two photos that would be compared with one truth.

    Raises:
        InputError: names both.
    """
    owners: dict[str, Path] = {}
    for photo in photos:
        if photo.stem in truths and photo.stem in owners:
            raise InputError(
                f"{owners[photo.stem]} and {photo} would both be compared with "
                f"{truths[photo.stem]}: give one of the photos"
            )
        owners[photo.stem] = photo


class Comparison:
    """Compares photos' parsings with the truth, and adds the scores up."""

    def __init__(self, truths: dict[str, Path], num_classes: int) -> None:
        """Take the files of label maps, by photos' names without their endings, and K."""
        self._truths = truths
        self._num_classes = num_classes
        self._counts = ParsingCounts(num_classes, boundary_tolerance=None)

    def add(self, path: Path, photo: EncodedImage, parsing: Parsing) -> Compared:
        """Compare one photo.

        A truth that is drawn on the photo as stored, before its EXIF rotation, is turned as the
        photo is; where both would fit, it is taken to be.

        Args:
            path: of the photo.
            photo: its header.
            parsing: of the upright photo, which it has kept.

        Returns:
            The picture. Its caption gives pixel accuracy and mIoU over the classes that are in
            the photo's truth or prediction, or says that there is no truth.
        """
        file = self._truths.get(path.stem)
        if file is None:
            caption = f"{path.name}: no truth"
            return Compared(_picture(parsing, None, caption), missing=True)
        try:
            truth = self._read_upright(file, photo, path)
        except InputError as error:
            caption = f"{path.name}: the truth cannot be used"
            return Compared(_picture(parsing, None, caption), problem=str(error))
        score = score_image(path.stem, path.name, self._counts.update(truth, parsing.labels))
        if math.isnan(score.pACC):
            words = "no pixel of the truth is labelled"
        else:
            words = f"pixel accuracy {score.pACC:.1f} %, mIoU {score.mIoU:.1f} %"
        return Compared(_picture(parsing, truth, f"{path.name}: {words}"))

    def summary(self) -> str:
        """Say the scores of all photos together, as an evaluation of them would."""
        metrics = self._counts.confusion.metrics()
        images = self._counts.labelled_images
        if math.isnan(metrics.pixel_accuracy):
            return "compared no photo with a truth"
        return (
            f"compared {images} photo{'' if images == 1 else 's'} with the truth, all pixels "
            f"together: pixel accuracy {100 * metrics.pixel_accuracy:.1f} %, "
            f"mIoU {100 * metrics.mean_iou:.1f} %"
        )

    def _read_upright(self, file: Path, photo: EncodedImage, path: Path) -> ByteArray:
        truth = read_label(file, self._num_classes, refuse_colors=True)
        if photo.matching(truth.shape).turned:
            return truth
        check_same_size((photo.height, photo.width), truth, path, file)
        return turned_upright(truth, photo.orientation)


def _picture(parsing: Parsing, truth: ByteArray | None, caption: str) -> ByteArray:
    assert parsing.image is not None
    row = SheetRow(
        at_least(parsing.image, _SMALLEST),
        None if truth is None else at_least(truth, _SMALLEST),
        at_least(parsing.labels, _SMALLEST),
    )
    strip = picture_strip(row, parsing.palette, _LARGEST, IGNORE_LABEL)
    font = ImageFont.load_default(size=TEXT_SIZE)
    line = TEXT_SIZE + GAP
    width = max(strip.shape[1], math.ceil(font.getlength(caption)))
    sheet = Image.new("RGB", (width + 2 * MARGIN, strip.shape[0] + 2 * (MARGIN + line)), PAPER)
    sheet.paste(Image.fromarray(strip), (MARGIN, MARGIN + line))
    draw = ImageDraw.Draw(sheet)
    cell = (strip.shape[1] - 2 * GAP) / 3
    for column, header in enumerate(("photo", "truth", "prediction")):
        middle = MARGIN + column * (cell + GAP) + cell / 2
        draw.text((middle, MARGIN + TEXT_SIZE // 2), header, INK, font, anchor="mm")
    bottom = MARGIN + line + strip.shape[0] + GAP + TEXT_SIZE // 2
    draw.text((MARGIN, bottom), caption, INK, font, anchor="lm")
    return np.asarray(sheet).copy()
