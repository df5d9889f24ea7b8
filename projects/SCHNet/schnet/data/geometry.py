"""What a drawn crop does to an image and to its label map: cut, resize, turn, pad, mirror.

Nothing here is random. Coordinates are continuous: pixel i covers [i, i + 1) of its axis and its
middle lies at i + 0.5, whatever the scale, so that an image, the same image decoded at a reduced
scale, and its label map are all sampled at the same places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from schnet.data.reading import UInt8Array

Matrix = NDArray[np.float64]
"""A map of points (x, y, 1), float64 (3, 3)."""

# Source pixels a step of the result from which bilinear sampling, which looks at two, skips some.
# On real photos, plain sampling is nearer to the truth below it, averaging first is above it.
_MAX_STEP = 2.0
# Larger images are not worth their memory in floats: 32 MiB.
_MAX_FLOATS = 2**23
# OpenCV's warps number the pixels of their source in 16 bits.
_MAX_WARPED_SIDE = 32766


def fit_scale(size: tuple[int, int], box: tuple[int, int]) -> float:
    """Give the factor that fits an image of a size into a box, aspect kept; (height, width)."""
    return min(box[0] / size[0], box[1] / size[1])


def resize_image(image: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Resize an image, antialiased where it shrinks.

    Args:
        image: uint8 (H, W, 3).
        size: new height and width, >= 1.

    Returns:
        uint8 (height, width, 3).
    """
    (height, width), (new_height, new_width) = image.shape[:2], size
    if (height, width) == (new_height, new_width):
        return image
    shrinks = new_height < height or new_width < width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    enlarges = new_height > height or new_width > width
    by_whole_factors = height % new_height == width % new_width == 0
    # OpenCV averages bytes in floats. Given floats, it gets the same bits in four fifths of the
    # time; but by whole factors, and where a side grows, it computes in integers.
    as_floats = not (enlarges or by_whole_factors or image.size > _MAX_FLOATS)
    source = image.astype(np.float32) if as_floats else image
    resized = cv2.resize(source, (new_width, new_height), interpolation=interpolation)
    return cv2.convertScaleAbs(resized) if as_floats else resized  # type: ignore[return-value]


def resize_label(label: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Resize a label map to the nearest label; (H, W) uint8 to (height, width) uint8."""
    if label.shape == tuple(size):
        return label
    # INTER_NEAREST takes the upper left neighbour, which shifts labels against their image.
    resized = cv2.resize(label, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    return resized  # type: ignore[return-value]


@dataclass(frozen=True)
class CropGeometry:
    """One drawn crop: a box of the stored image, resized, put on a canvas, perhaps mirrored.

    Attributes:
        box: (top, left, height, width) in stored pixels, inside the image; each a multiple of
            `reduction`.
        resized: height and width that the box is resized to.
        offset: (top, left) of the resized box on the canvas.
        canvas: height and width of the result.
        mirror: the canvas is mirrored left to right.
        reduction: factor that the image may be decoded at without losing detail of the result.
    """

    box: tuple[int, int, int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    canvas: tuple[int, int]
    mirror: bool
    reduction: int

    @property
    def inside(self) -> None:
        """All that is cut lies in the image: the padding comes with `place`."""
        return None

    @property
    def middle(self) -> tuple[float, float]:
        """The point (y, x) of the stored image that lies on the middle of the canvas."""
        y, x = (
            start + (canvas / 2 - offset) * length / resized
            for start, length, resized, offset, canvas in zip(
                self.box[:2], self.box[2:], self.resized, self.offset, self.canvas, strict=True
            )
        )
        return y, x

    def cut_image(self, image: UInt8Array, reduction: int = 1) -> UInt8Array:
        """Cut and resize the box.

        Args:
            image: uint8 (H, W, 3), the whole image as decoded at `reduction`.
            reduction: 1 or this geometry's `reduction`.

        Returns:
            uint8 (*resized, 3), still to be placed.
        """
        top, left, height, width = (value // reduction for value in self.box)
        return resize_image(image[top : top + height, left : left + width], self.resized)

    def cut_label(self, label: UInt8Array) -> UInt8Array:
        """Cut and resize the box of a label map; (H, W) uint8 to (*resized) uint8."""
        top, left, height, width = self.box
        return resize_label(label[top : top + height, left : left + width], self.resized)

    def place(self, cut: UInt8Array, fill: int | Sequence[int]) -> UInt8Array:
        """Put what was cut onto the canvas and mirror it.

        Args:
            cut: uint8 (*resized) or (*resized, 3).
            fill: value of the canvas around it; one value a channel.

        Returns:
            uint8 (*canvas) or (*canvas, 3).
        """
        placed = cut
        if self.resized != self.canvas:
            before, size = self.offset, self.resized
            below, right = (c - b - s for c, b, s in zip(self.canvas, before, size, strict=True))
            placed = cv2.copyMakeBorder(  # type: ignore[assignment]
                cut, before[0], below, before[1], right, cv2.BORDER_CONSTANT, value=fill
            )
        return _mirrored(placed) if self.mirror else placed


@dataclass(frozen=True)
class TurnedCrop:
    """A crop turned about the middle of its canvas: one warp of what the canvas sees.

    Attributes:
        middle: the point (y, x) of the stored image that lies on the middle of the canvas.
        step: stored pixels a pixel of the result.
        angle: degrees that the picture turns counter-clockwise, before any mirroring.
        size: height and width of the image as stored; beyond it lies padding.
        canvas: height and width of the result.
        mirror: the turned canvas is mirrored left to right.
        reduction: factor that the image may be decoded at without losing detail of the result.
    """

    middle: tuple[float, float]
    step: float
    angle: float
    size: tuple[int, int]
    canvas: tuple[int, int]
    mirror: bool
    reduction: int

    @cached_property
    def to_image(self) -> Matrix:
        """Map of points (x, y, 1) of the result, before mirroring, to points of the image."""
        height, width = self.canvas
        # y points down: this turns points clockwise, so that what they show turns the other way.
        cosine, sine = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        turn = _matrix([cosine, -sine, 0], [sine, cosine, 0])
        about = _scale(self.step, self.step) @ turn @ _shift(-width / 2, -height / 2)
        return _shift(self.middle[1], self.middle[0]) @ about

    @cached_property
    def inside(self) -> UInt8Array | None:
        """Where the result shows the image: uint8 (*canvas), 255 there and 0 in the padding.

        None where all of it does. A pixel counts as its middle does, like its label.
        """
        seen = self.to_image[:2] @ _corners(self.canvas)
        height, width = self.size
        if (seen >= 0).all() and (seen[0] <= width).all() and (seen[1] <= height).all():
            return None
        rows, columns, to_part = self._seen(self.size, 1)
        part = np.full((rows.stop - rows.start, columns.stop - columns.start), 255, np.uint8)
        return _sample_labels(part, to_part, self.canvas, cv2.BORDER_CONSTANT)

    def cut_image(self, image: UInt8Array, reduction: int = 1) -> UInt8Array:
        """Sample the part that the canvas sees, bilinearly, antialiased where it shrinks.

        Args:
            image: uint8 (H, W, 3), the whole image as decoded at `reduction`.
            reduction: 1 or this geometry's `reduction`.

        Returns:
            uint8 (*canvas, 3), still to be placed; beyond the image its edge goes on.
        """
        rows, columns, to_part = self._seen(image.shape[:2], reduction)
        part = image[rows, columns]
        step = self.step / reduction
        if step > _MAX_STEP:
            height, width = part.shape[:2]
            part = resize_image(part, (round(height / step) or 1, round(width / step) or 1))
            to_part = _scale(part.shape[1] / width, part.shape[0] / height) @ to_part
        return _sample(part, to_part, self.canvas, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)

    def cut_label(self, label: UInt8Array) -> UInt8Array:
        """Sample the nearest labels; (H, W) uint8 to (*canvas) uint8, still to be placed."""
        rows, columns, to_part = self._seen(self.size, 1)
        return _sample_labels(label[rows, columns], to_part, self.canvas, cv2.BORDER_REPLICATE)

    def place(self, cut: UInt8Array, fill: int | Sequence[int]) -> UInt8Array:
        """Fill what lies beyond the image and mirror the canvas.

        Args:
            cut: uint8 (*canvas) or (*canvas, 3).
            fill: value of the padding; one value a channel.

        Returns:
            uint8 (*canvas) or (*canvas, 3).
        """
        placed = cut
        if self.inside is not None:
            placed = np.empty_like(cut)
            # Row by row: numpy is ten times as slow where it repeats a single pixel.
            row = np.tile(np.array(fill, np.uint8), self.canvas[1])
            placed.reshape(self.canvas[0], -1)[:] = row
            cv2.copyTo(cut, self.inside, placed)
        return _mirrored(placed) if self.mirror else placed

    def _seen(self, size: tuple[int, ...], reduction: int) -> tuple[slice, slice, Matrix]:
        """Find the part of an image that the canvas sees.

        Args:
            size: height and width of the image as decoded at `reduction`.
            reduction: of the decoding.

        Returns:
            Its rows and columns, and the map of points of the result to points of that part.
        """
        to_source = _scale(1 / reduction, 1 / reduction) @ self.to_image
        x, y = to_source[:2] @ _corners(self.canvas)
        # What is averaged or interpolated at the rim of the canvas lies a little beyond it.
        margin = 2 + math.ceil(self.step / reduction)
        rows, columns = (
            _clipped(ends.min() - margin, ends.max() + margin, side)
            for ends, side in zip((y, x), size, strict=True)
        )
        return rows, columns, _shift(-columns.start, -rows.start) @ to_source


Geometry = CropGeometry | TurnedCrop


def _clipped(low: float, high: float, length: int) -> slice:
    """Whole pixels from `low` to `high` that an axis has; one at its end where it has none."""
    start = min(max(math.floor(low), 0), length - 1)
    return slice(start, max(start + 1, min(math.ceil(high), length)))


def _mirrored(pixels: UInt8Array) -> UInt8Array:
    return cv2.flip(pixels, 1)  # type: ignore[return-value]


def _sample(
    source: UInt8Array, to_source: Matrix, size: tuple[int, int], interpolation: int, border: int
) -> UInt8Array:
    """Sample an image at the middles of a result's pixels; uint8 (*size, ...)."""
    # OpenCV's matrix maps pixel numbers, and number i stands for the middle at i + 0.5.
    numbered = _shift(-0.5, -0.5) @ to_source @ _shift(0.5, 0.5)
    sampled = cv2.warpAffine(
        source,
        numbered[:2],
        (size[1], size[0]),
        flags=interpolation | cv2.WARP_INVERSE_MAP,
        borderMode=border,
    )
    return sampled  # type: ignore[return-value]


def _sample_labels(
    label: UInt8Array, to_label: Matrix, size: tuple[int, int], border: int
) -> UInt8Array:
    """Sample the nearest labels at the middles of a result's pixels; (H, W) to (*size)."""
    if max(label.shape) > _MAX_WARPED_SIDE:
        height, width = label.shape
        limited = min(height, _MAX_WARPED_SIDE), min(width, _MAX_WARPED_SIDE)
        label = resize_label(label, limited)
        to_label = _scale(limited[1] / width, limited[0] / height) @ to_label
    return _sample(label, to_label, size, cv2.INTER_NEAREST, border)


def _corners(size: tuple[int, int]) -> Matrix:
    """Corners of a canvas as the columns (x, y, 1) of a (3, 4) array."""
    height, width = size
    return np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]], np.float64)


def _matrix(x: Sequence[float], y: Sequence[float]) -> Matrix:
    return np.array([x, y, [0, 0, 1]], np.float64)


def _shift(x: float, y: float) -> Matrix:
    return _matrix([1, 0, x], [0, 1, y])


def _scale(x: float, y: float) -> Matrix:
    return _matrix([x, 0, 0], [0, y, 0])
