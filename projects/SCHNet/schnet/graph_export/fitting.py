"""From a photo to a graph's input, and from its logits to the photo's labels: NumPy and OpenCV.

It is what `schnet.data.mapper.TestMapper`, SCHNet and the wrappers of `schnet.evaluation` do with
tensors of torch, one plane of scores at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from schnet.data.geometry import resize_image, resize_label
from schnet.data.view_sizes import fitted_size, offset
from schnet.errors import InputError
from schnet.graph_export.metadata import GraphMetadata, Size

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

WARP_LABELS = "warp_labels"


@dataclass(frozen=True)
class Fitted:
    """A photo as a graph sees it.

    Attributes:
        image: the input, (1, 3, H, W) fp32, RGB, 0..255.
        offset: (top, left) of the fitted photo in it.
        size: height and width of the fitted photo.
        photo: height and width of the photo itself.
    """

    image: FloatArray
    offset: tuple[int, int]
    size: Size
    photo: Size

    @property
    def padded(self) -> Size:
        """Height and width of the input."""
        return self.image.shape[2], self.image.shape[3]


def fit_photo(photo: ByteArray, metadata: GraphMetadata) -> Fitted:
    """Fit a photo into the test box, and pad it to a size that the graph takes.

    Args:
        photo: (H, W, 3), uint8, RGB.
        metadata: the graph's.
    """
    own = (photo.shape[0], photo.shape[1])
    size = fitted_size(own, metadata.box)
    resized = resize_image(photo, size)
    top = left = 0
    if metadata.protocol == WARP_LABELS:  # as schnet.evaluation.letterbox.Letterbox
        (box_height, box_width), (height, width) = metadata.box, size
        top, left = offset(size, metadata.box)
        color = np.array([round(value) for value in metadata.pixel_mean], np.uint8)
        boxed = np.empty((box_height, box_width, 3), np.uint8)
        boxed[:] = color
        boxed[top : top + height, left : left + width] = resized
        resized = boxed
    seen = (resized.shape[0], resized.shape[1])
    target = metadata.size or tuple(-(-s // metadata.multiple) * metadata.multiple for s in seen)
    image = np.empty((1, 3, *target), np.float32)
    image[:] = np.array(metadata.pixel_mean, np.float32)[None, :, None, None]
    image[0, :, : seen[0], : seen[1]] = resized.transpose(2, 0, 1)
    return Fitted(image, (top, left), size, own)


def labels_of(logits: FloatArray, fitted: Fitted, metadata: GraphMetadata) -> ByteArray:
    """Labels of a photo, by the graph's protocol.

    Args:
        logits: (K, h, w), fp32, of the photo's input.
        fitted: that input.
        metadata: the graph's.

    Returns:
        (H, W), uint8, at the photo's size.

    Raises:
        InputError: a logit is not a number.
    """
    if metadata.protocol == WARP_LABELS:
        return resize_label(_argmax(_planes(logits, fitted)), fitted.photo)
    return _argmax(_resized(plane, fitted.photo) for plane in _planes(logits, fitted))


def probabilities_of(logits: FloatArray, fitted: Fitted) -> FloatArray:
    """Probability of each label at each pixel of the photo, (K, H, W), fp32.

    Args:
        logits: (K, h, w), fp32, of the photo's input.
        fitted: that input.
    """
    scores = np.empty((len(logits), *fitted.photo), np.float32)
    for number, plane in enumerate(_planes(logits, fitted)):
        scores[number] = _resized(plane, fitted.photo)
    scores -= scores.max(axis=0)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=0)
    return scores


def _planes(logits: FloatArray, fitted: Fitted) -> Iterator[FloatArray]:
    """The logits of each label at the fitted photo's size."""
    (top, left), (height, width) = fitted.offset, fitted.size
    for plane in logits:
        yield _resized(plane, fitted.padded)[top : top + height, left : left + width]


def _resized(plane: FloatArray, size: Size) -> FloatArray:
    if plane.shape == size:
        return plane
    resized = cv2.resize(plane, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return resized  # type: ignore[return-value]


def _argmax(planes: Iterator[FloatArray]) -> ByteArray:
    """The number of the highest plane at each pixel, the first of several."""
    best = np.array(next(planes))
    labels = np.zeros(best.shape, np.uint8)
    higher = np.empty(best.shape, np.bool_)
    for number, plane in enumerate(planes, start=1):
        np.greater(plane, best, out=higher)
        np.maximum(best, plane, out=best)
        np.copyto(labels, np.uint8(number), where=higher)
    if np.isnan(best).any():
        raise InputError(
            "the exported model's prediction is not a number (NaN): export the weights of an "
            "earlier checkpoint"
        )
    return labels
