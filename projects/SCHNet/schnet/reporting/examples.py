"""The images that a run parses best and worst, and their pictures for the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from detectron2.data import MetadataCatalog
from PIL import Image

from schnet.data.catalog import load_registered
from schnet.data.label_maps import check_same_size
from schnet.data.mapper import open_as_labelled, read_truth
from schnet.errors import InputError
from schnet.evaluation.confusion import ConfusionMatrix
from schnet.evaluation.per_image import ImageScore, score_image
from schnet.visualization import ByteArray, colorize

Predict = Callable[[Mapping[str, Any]], ByteArray]
"""From a data set's dict to labels (H, W) uint8 at the size of the image's label map."""

SIDES = (420, 300, 200, 120, 72)
"""Longest sides of the pictures in pixels; the largest that fit the page's budget are taken."""
JPEG_QUALITY = 82


@dataclass(frozen=True)
class Example:
    """One image with what the model makes of it.

    Attributes:
        score: the image's entry in `per_image.csv`.
        photo: (h, w, 3) RGB; like the others no larger than a page needs it.
        truth: (h, w) labels.
        prediction: (h, w) labels.
        miou: of this very prediction, in percent.
    """

    score: ImageScore
    photo: ByteArray
    truth: ByteArray
    prediction: ByteArray
    miou: float


@dataclass(frozen=True)
class Pictures:
    """An example as the page shows it: three pictures as data URIs, and their size in pixels."""

    photo: str
    truth: str
    prediction: str
    width: int
    height: int

    @property
    def num_bytes(self) -> int:
        """Length of the URIs."""
        return len(self.photo) + len(self.truth) + len(self.prediction)


def best_and_worst(
    scores: Sequence[ImageScore], count: int
) -> tuple[list[ImageScore], list[ImageScore]]:
    """Choose the images of the highest and of the lowest mIoU; no image is in both.

    Args:
        scores: of all images.
        count: how many of each; where there are too few images, the best get the odd one.

    Returns:
        The best, highest first; the worst, lowest first. Equal values are ordered by name.
    """
    ordered = sorted(scores, key=lambda score: (-score.mIoU, score.image_id))
    best = ordered[: min(count, (len(ordered) + 1) // 2)]
    rest = ordered[len(best) :]
    return best, rest[::-1][:count]


def load_examples(
    dataset: str, scores: Sequence[ImageScore], predict: Predict
) -> Iterator[Example]:
    """Read and predict images, one after the other.

    Args:
        dataset: registered name.
        scores: of the images that are wanted.
        predict: the model.

    Raises:
        InputError: the data set is not there, has not one of the images any more, or a file of
            it cannot be used.
    """
    entries = {entry["image_id"]: entry for entry in load_registered([dataset])}
    metadata = MetadataCatalog.get(dataset)
    for score in scores:
        entry = entries.get(score.image_id)
        truth = None if entry is None else read_truth(entry, metadata)
        if entry is None or truth is None:
            raise InputError(
                f"the data set {dataset} has no labelled image {score.image_id!r}, which the "
                "evaluation has: evaluate again with train_net.py --eval-only"
            )
        photo = open_as_labelled(entry).decode()
        prediction = predict(entry)
        check_same_size(prediction.shape, truth, entry["file_name"], entry["sem_seg_file_name"])
        matrix = ConfusionMatrix(len(metadata.stuff_classes), metadata.ignore_label)
        matrix.update(truth, prediction)
        shown = score_image(score.image_id, score.file_name, matrix.counts)
        small = [_shrink(picture, SIDES[0]) for picture in (photo, truth, prediction)]
        yield Example(score, small[0], small[1], small[2], shown.mIoU)


def encode_within(
    examples: Sequence[Example],
    palette: Sequence[Sequence[int]],
    ignore_label: int,
    budget: int,
) -> list[Pictures]:
    """Draw and encode pictures, as large as a number of bytes allows.

    Args:
        examples: what is to be shown.
        palette: K colours (r, g, b) in 0..255.
        ignore_label: drawn hatched.
        budget: bytes for all of them.

    Returns:
        One an example, in order; fewer where even the smallest ones exceed the budget.
    """
    encoded: list[Pictures] = []
    for side in SIDES:
        encoded = [_encode(example, palette, ignore_label, side) for example in examples]
        if sum(pictures.num_bytes for pictures in encoded) <= budget:
            return encoded
    while encoded and sum(pictures.num_bytes for pictures in encoded) > budget:
        encoded.pop()
    return encoded


def _encode(
    example: Example, palette: Sequence[Sequence[int]], ignore_label: int, side: int
) -> Pictures:
    photo, truth, prediction = (
        _shrink(picture, side) for picture in (example.photo, example.truth, example.prediction)
    )
    height, width = truth.shape
    return Pictures(
        _uri(photo, "JPEG", quality=JPEG_QUALITY),
        _uri(colorize(truth, palette, ignore_label), "PNG"),
        _uri(colorize(prediction, palette, ignore_label), "PNG"),
        width,
        height,
    )


def _shrink(picture: ByteArray, side: int) -> ByteArray:
    """Make a photo (3-D) or labels (2-D) no longer than `side`; labels never mix."""
    height, width = picture.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if picture.ndim == 3 else cv2.INTER_NEAREST_EXACT
    return np.asarray(cv2.resize(picture, size, interpolation=method), np.uint8)


def _uri(image: ByteArray, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=kind, **options)
    code = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{code}"
