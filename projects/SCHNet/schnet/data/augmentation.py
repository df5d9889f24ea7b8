"""Random scale, crop, padding, mirroring and colour jitter of an image and its label map.

A crop is drawn first, as a box in the stored image (`CropGeometry`), and only that box is resized.
All randomness comes from the generator that is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from schnet.data.reading import REDUCTIONS, UInt8Array

# ITU-R BT.601: luma of an RGB pixel, and the YIQ axes whose plane holds the hue.
_RGB_TO_YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
)
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)
_LUMA = _RGB_TO_YIQ[0]
# An image is only decoded at a reduced scale where dropping a part of a block at its far edges
# loses less than 1/32 of a side.
_MIN_BLOCKS = 32


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
    if image.shape[:2] == tuple(size):
        return image
    shrinks = size[0] < image.shape[0] or size[1] < image.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(image, (size[1], size[0]), interpolation=interpolation)
    return resized  # type: ignore[return-value]


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
            placed = np.empty((*self.canvas, *cut.shape[2:]), np.uint8)
            placed[:] = fill
            (top, left), (height, width) = self.offset, self.resized
            placed[top : top + height, left : left + width] = cut
        return placed[:, ::-1] if self.mirror else placed


class RandomCrop:
    """Draws `CropGeometry`s: fit, random scale, random crop or padding, random mirroring."""

    def __init__(
        self, size: tuple[int, int], scale_range: tuple[float, float], mirror_prob: float
    ) -> None:
        """Keep the distribution.

        Args:
            size: height and width of every crop.
            scale_range: lowest and highest factor on the scale that fits an image into `size`;
                drawn log-uniformly.
            mirror_prob: probability of mirroring, in [0, 1].
        """
        self.size = size
        self.scale_range = scale_range
        self.mirror_prob = mirror_prob

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> CropGeometry:
        """Draw a crop of an image.

        Args:
            size: the image's height and width as stored.
            rng: source of every random number; six are taken whatever the sizes.
        """
        draws = rng.random(6)
        low, high = np.log(self.scale_range)
        scale = fit_scale(size, self.size) * math.exp(low + (high - low) * draws[0])
        reduction = next(
            r for r in REDUCTIONS if r == 1 or (scale * r <= 1 and min(size) >= _MIN_BLOCKS * r)
        )
        rows = _draw_side(size[0], self.size[0], scale, reduction, draws[1], draws[2])
        columns = _draw_side(size[1], self.size[1], scale, reduction, draws[3], draws[4])
        return CropGeometry(
            box=(rows[0], columns[0], rows[1], columns[1]),
            resized=(rows[2], columns[2]),
            offset=(rows[3], columns[3]),
            canvas=self.size,
            mirror=bool(draws[5] < self.mirror_prob),
            reduction=reduction,
        )


def _draw_side(
    length: int, wanted: int, scale: float, reduction: int, where: float, pad: float
) -> tuple[int, int, int, int]:
    """Draw one side of a crop: start and length in the image, length and offset on the canvas."""
    blocks = length // reduction
    if length * scale < wanted:
        resized = min(wanted, max(1, round(blocks * reduction * scale)))
        return 0, blocks * reduction, resized, int(pad * (wanted - resized + 1))
    taken = min(blocks, max(1, round(wanted / scale / reduction)))
    start = int(where * (blocks - taken + 1))
    return start * reduction, taken * reduction, wanted, 0


class ColorJitter:
    """Random brightness, contrast, saturation and hue, as one linear map of the colours."""

    def __init__(
        self, *, brightness: float, contrast: float, saturation: float, hue: float
    ) -> None:
        """Keep the ranges.

        Args:
            brightness: largest relative change, in [0, 1]; so for contrast and saturation.
            contrast: of the difference to the image's mean luma.
            saturation: of the difference to each pixel's luma.
            hue: largest turn of the hue as a fraction of the colour circle, in [0, 0.5].
        """
        self.ranges = np.array([brightness, contrast, saturation, hue])

    def __call__(self, image: UInt8Array, rng: np.random.Generator) -> UInt8Array:
        """Jitter an image; uint8 (H, W, 3) RGB to the same; four numbers are drawn."""
        draws = rng.uniform(-1.0, 1.0, 4) * self.ranges
        if not self.ranges.any():
            return image
        brightness, contrast, saturation = 1.0 + draws[:3]
        matrix = _hue_matrix(draws[3]) @ _saturation_matrix(saturation) * brightness * contrast
        mean_luma = float(_LUMA @ cv2.mean(image)[:3]) * brightness
        offset = np.full((3, 1), (1.0 - contrast) * mean_luma)
        # cv2.transform rounds and saturates; one pass over the pixels for all four changes.
        return cv2.transform(image, np.hstack([matrix, offset]))  # type: ignore[return-value]


def _saturation_matrix(factor: float) -> NDArray[np.float64]:
    return factor * np.eye(3) + (1.0 - factor) * np.tile(_LUMA, (3, 1))


def _hue_matrix(turn: float) -> NDArray[np.float64]:
    cosine, sine = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    rotation = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return _YIQ_TO_RGB @ rotation @ _RGB_TO_YIQ


def mirror_table(pairs: Sequence[tuple[int, int]]) -> UInt8Array:
    """Give the label that each label becomes when its image is mirrored.

    Args:
        pairs: label values that change places.

    Returns:
        uint8 (256,), a lookup table.
    """
    table = np.arange(256, dtype=np.uint8)
    for left, right in pairs:
        table[left], table[right] = right, left
    return table
