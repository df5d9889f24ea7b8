"""The scores of single images, which tell the best from the worst; and the table of them."""

from __future__ import annotations

import csv
import logging
import math
import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from detectron2.utils import comm

from schnet.data.files import atomic_path
from schnet.evaluation.confusion import Counts

logger = logging.getLogger(__name__)

PER_IMAGE_FILE = "per_image.csv"


class ImageScore(NamedTuple):
    """How well one image was parsed; its fields are the columns of `per_image.csv`.

    Attributes:
        image_id: the image's in its data set.
        file_name: path of the photo.
        mIoU: percent; mean over the classes that this image has in truth or prediction, so that
            the split's mIoU is not its mean. NaN where no pixel is labelled.
        pACC: percent of the labelled pixels that are right; NaN likewise.
    """

    image_id: str
    file_name: str
    mIoU: float
    pACC: float


def score_image(image_id: str, file_name: str, counts: Counts) -> ImageScore:
    """Score an image by its own confusion counts.

    Args:
        image_id: the image's in its data set.
        file_name: path of the photo.
        counts: (K, K) int64; rows are the truth, columns the prediction.
    """
    pixels = int(counts.sum())
    if pixels == 0:
        return ImageScore(image_id, file_name, math.nan, math.nan)
    hits = counts.diagonal()
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    present = union > 0
    mean_iou = float((hits[present] / union[present]).mean())
    return ImageScore(image_id, file_name, 100 * mean_iou, 100 * int(hits.sum()) / pixels)


def gather_scores(own: list[ImageScore]) -> list[ImageScore]:
    """Bring the scores of all processes together on the main one; every process must call it.

    Returns:
        On the main process all of them, by file name, the same for any number of processes; on
        the others nothing.
    """
    return sort_scores(chain.from_iterable(comm.gather(own)))


def sort_scores(scores: Iterable[ImageScore]) -> list[ImageScore]:
    """Order scores by file name, then by the image's own name."""
    return sorted(scores, key=lambda score: (score.file_name, score.image_id))


def write_scores(folder: str | os.PathLike[str], scores: Iterable[ImageScore]) -> None:
    """Write `per_image.csv`, atomically; a score that is not a number is an empty cell.

    An earlier evaluation's is replaced; see `schnet.evaluation.report.refuse_foreign_files`.
    """
    target = Path(folder) / PER_IMAGE_FILE
    with (
        atomic_path(target) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(ImageScore._fields)
        rows.writerows(
            (score.image_id, score.file_name, _cell(score.mIoU), _cell(score.pACC))
            for score in scores
        )
    logger.info("wrote %s", target)


def _cell(percent: float) -> str:
    return "" if math.isnan(percent) else f"{percent:.4f}"


def read_scores(path: str | os.PathLike[str]) -> list[ImageScore]:
    """Read what `write_scores` wrote; an empty cell is NaN.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no such table.
    """
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if tuple(rows.fieldnames or ()) != ImageScore._fields:
            raise ValueError(f"the columns are {rows.fieldnames}")
        return [
            ImageScore(
                row["image_id"], row["file_name"], _percent(row["mIoU"]), _percent(row["pACC"])
            )
            for row in rows
        ]


def _percent(cell: str) -> float:
    return float(cell) if cell else math.nan
