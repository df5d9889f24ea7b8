"""Steadier parsings of a video: a frame's probabilities averaged with those of the frames before.

A model that sees one frame at a time decides anew on each, and where two labels are about as
likely, the parts flicker. An exponential average holds still what is still, at the price that what
moves is followed late: a frame's own share is 1 - FACTOR.
"""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
import torch

from schnet.errors import InputError
from schnet.evaluation.argmax import label_map
from schnet.parsing import ByteArray, Color, FloatArray, Parsing
from schnet.score_maps import HeldScores, resized

MAX_SIDE = 512
"""Longer side of the kept probabilities at most, in pixels: 4 x K x 512 x 512 bytes, 21 MB for 20
labels, whatever the video's size. They have a quarter of the side that the model sees, which is as
fine as it predicts."""

CUT_DIFFERENCE = 30.0
# Frames are compared at this height and width.
_THUMBNAIL = 32


class CoarseParser(Protocol):
    """What smoothing needs of a parser; `schnet.inference.Parser` is one."""

    classes: tuple[str, ...]
    palette: tuple[Color, ...]

    def coarse_probabilities(self, image: ByteArray, max_side: int) -> FloatArray:
        """Probabilities (K, h, w) of an image (H, W, 3)."""
        ...


class SmoothedParser:
    """Parses a video's frames, one after the other, with a memory of those before.

    Memory: one set of probabilities of `MAX_SIDE` at most, two while a frame is added, and bands
    of some tens of MB on the way to the frame's size.

    Attributes:
        cuts: scene cuts that were found so far.
    """

    def __init__(self, parser: CoarseParser, factor: float) -> None:
        """Take the parts.

        Args:
            parser: the model.
            factor: share of the frames before in the average, in [0, 1): 0 forgets them at once,
                0.5 has half forgotten a frame after one more, 0.9 after seven.

        Raises:
            InputError: the factor is out of its range.
        """
        if not 0 <= factor < 1:
            raise InputError(f"--smooth is {factor:g}: give a factor of at least 0 and below 1")
        self._parser = parser
        self._factor = factor
        self._mean: FloatArray | None = None
        self._before: ByteArray | None = None
        self.cuts = 0

    def __call__(self, frame: ByteArray) -> Parsing:
        """Parse the next frame.

        Args:
            frame: (H, W, 3) uint8 RGB.

        Returns:
            Its parsing: the likeliest label of the averaged probabilities, brought to (H, W).
        """
        seen = thumbnail(frame)
        if self._before is not None and is_cut(self._before, seen):
            self._mean = None
            self.cuts += 1
        self._before = seen
        own = self._parser.coarse_probabilities(frame, MAX_SIDE)
        if self._mean is None or self._mean.shape != own.shape:
            self._mean = own.copy()
        else:
            self._mean *= self._factor
            own *= 1 - self._factor
            self._mean += own
        scores = resized(HeldScores(torch.from_numpy(self._mean)), frame.shape[:2])
        labels = label_map(scores, "a frame")
        return Parsing(labels, self._parser.classes, self._parser.palette, frame)


def thumbnail(frame: ByteArray) -> ByteArray:
    """Shrink a frame to what scene cuts are found by, (32, 32, 3)."""
    size = (_THUMBNAIL, _THUMBNAIL)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def is_cut(before: ByteArray, after: ByteArray) -> bool:
    """Tell whether another scene begins between two frames.

    Args:
        before: a frame's `thumbnail`.
        after: the next frame's.

    Returns:
        Whether they differ by more than `CUT_DIFFERENCE` of 255 on average. A flash counts as a
        cut too, and a slow fade as none; both cost no more than one frame without the average, or
        an average that leaves the old scene as it fades.
    """
    return float(cv2.absdiff(before, after).mean()) > CUT_DIFFERENCE
