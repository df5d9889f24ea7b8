"""Photometric distortion: random brightness, contrast, saturation and hue in one pass."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from schnet.data.reading import UInt8Array

# ITU-R BT.601: luma of an RGB pixel, and the YIQ axes whose plane holds the hue.
_RGB_TO_YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
)
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)
_LUMA = _RGB_TO_YIQ[0]


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

    def __call__(
        self, image: UInt8Array, rng: np.random.Generator, inside: UInt8Array | None = None
    ) -> UInt8Array:
        """Jitter an image; four numbers are drawn.

        Args:
            image: uint8 (H, W, 3), RGB.
            rng: source of the numbers.
            inside: uint8 (H, W), 0 where a pixel does not count for the mean luma; None where all
                count.

        Returns:
            uint8 (H, W, 3), RGB.
        """
        draws = rng.uniform(-1.0, 1.0, 4) * self.ranges
        if not self.ranges.any():
            return image
        brightness, contrast, saturation = 1.0 + draws[:3]
        matrix = _hue_matrix(draws[3]) @ _saturation_matrix(saturation) * brightness * contrast
        mean_luma = float(_LUMA @ cv2.mean(image, inside)[:3]) * brightness
        offset = np.full((3, 1), (1.0 - contrast) * mean_luma)
        # cv2.transform rounds and saturates; one pass over the pixels for all four changes.
        return cv2.transform(image, np.hstack([matrix, offset]))  # type: ignore[return-value]


def _saturation_matrix(factor: float) -> NDArray[np.float64]:
    return factor * np.eye(3) + (1.0 - factor) * np.tile(_LUMA, (3, 1))


def _hue_matrix(turn: float) -> NDArray[np.float64]:
    cosine, sine = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    rotation = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return _YIQ_TO_RGB @ rotation @ _RGB_TO_YIQ
