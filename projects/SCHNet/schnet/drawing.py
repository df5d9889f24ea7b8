"""What the demo draws: Detectron2's overlay, and legends beside a photo or in a video's corner."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.data.catalog import Metadata
from detectron2.utils.visualizer import Visualizer

from schnet.parsing import Parsing, background_numbers
from schnet.visualization import MARGIN, PAPER, ByteArray, legend

OVERLAY_ALPHA = 0.55
OVERLAY_SIDE = 640
"""Smallest longer side of a photo's overlay, in pixels."""

# Longer side of a picture, in pixels, up to which a legend keeps its own size.
_LEGEND_SIDE = 1000
# A video's legend takes no more of a frame's height and width than these shares.
_FRAME_HEIGHT, _FRAME_WIDTH = 0.9, 0.4
_PANEL_ALPHA = 0.85


def draw_overlay(image: ByteArray, parsing: Parsing) -> ByteArray:
    """Draw the parts over their photo with Detectron2's visualizer; background stays as it is.

    Args:
        image: (H, W, 3) uint8 RGB.
        parsing: its labels are (H, W).

    Returns:
        (H, W, 3) uint8 RGB; enlarged, the aspect kept, where the longer side is below
        `OVERLAY_SIDE`.
    """
    metadata = Metadata(
        stuff_classes=list(parsing.classes), stuff_colors=[list(c) for c in parsing.palette]
    )
    labels = at_least(parsing.drawn_labels(), OVERLAY_SIDE)
    visualizer = Visualizer(at_least(image, OVERLAY_SIDE), metadata)
    drawn = visualizer.draw_sem_seg(labels, alpha=OVERLAY_ALPHA)
    return drawn.get_image()


def at_least(picture: ByteArray, side: int) -> ByteArray:
    """Enlarge a photo (3-D, smoothly) or labels (2-D, by nearest) whose longer side is shorter.

    Args:
        picture: (H, W, 3) or (H, W) uint8.
        side: pixels.
    """
    return _scaled(picture, max(1.0, side / max(picture.shape[:2])))


def parts_in(parsing: Parsing, min_share: float = 0.0) -> list[int]:
    """Labels of the parts that occur, the background left out, in label order.

    Args:
        parsing: of a photo or a frame.
        min_share: of the pixels, in [0, 1], below which a part does not count.
    """
    background = background_numbers(parsing.classes)
    least = max(1.0, min_share * parsing.labels.size)
    areas = enumerate(parsing.areas().values())
    return [label for label, area in areas if area >= least and label not in background]


def with_legend(picture: ByteArray, parsing: Parsing) -> ByteArray:
    """Put the names and colours of the parts that occur to the right of a picture.

    Args:
        picture: (H, W, 3) uint8 RGB.
        parsing: whose parts are named.

    Returns:
        (H or more, more than W, 3) uint8 RGB; the picture itself where no part occurs.
    """
    parts = parts_in(parsing)
    if not parts:
        return picture
    key = _legend_of(parts, parsing.classes, parsing.palette)
    key = _scaled(key, max(1.0, max(picture.shape[:2]) / _LEGEND_SIDE))
    height, width = picture.shape[:2]
    sheet = np.empty(
        (max(height, key.shape[0] + 2 * MARGIN), width + key.shape[1] + 2 * MARGIN, 3), np.uint8
    )
    sheet[:] = PAPER
    sheet[:height, :width] = picture
    sheet[MARGIN : MARGIN + key.shape[0], width + MARGIN : width + MARGIN + key.shape[1]] = key
    return sheet


class FrameLegend:
    """A legend in the upper left corner of a video's frames.

    A part that has been seen keeps its line to the end, so that the lines do not jump about.
    """

    MIN_SHARE = 0.001
    """Share of a frame's pixels from which a part is named."""

    def __init__(self) -> None:
        """Begin with no line."""
        self._seen: list[int] = []
        self._key: ByteArray | None = None

    def draw(self, frame: ByteArray, parsing: Parsing) -> ByteArray:
        """Draw the legend over a frame.

        Args:
            frame: (H, W, 3) uint8 RGB.
            parsing: its parts.

        Returns:
            (H, W, 3) uint8 RGB, a new array.
        """
        new = [label for label in parts_in(parsing, self.MIN_SHARE) if label not in self._seen]
        height, width = frame.shape[:2]
        if new or self._key is None:
            self._seen += new
            if not self._seen:
                return frame.copy()
            key = _legend_of(self._seen, parsing.classes, parsing.palette)
            room = (_FRAME_HEIGHT * height / key.shape[0], _FRAME_WIDTH * width / key.shape[1])
            self._key = _scaled(key, min(max(1.0, max(height, width) / _LEGEND_SIDE), *room))
        key = self._key
        margin = min(MARGIN, height // 20, width // 20)
        drawn = frame.copy()
        # The panel is as wide as the key and half a margin around it.
        border = margin // 2
        bottom, right = margin + key.shape[0], margin + key.shape[1]
        panel = drawn[margin - border : bottom + border, margin - border : right + border]
        paper = np.full_like(panel, PAPER[0])
        paper[border : border + key.shape[0], border : border + key.shape[1]] = key
        panel[:] = cv2.addWeighted(paper, _PANEL_ALPHA, panel, 1 - _PANEL_ALPHA, 0)
        return drawn


def _legend_of(
    parts: Sequence[int], classes: Sequence[str], palette: Sequence[Sequence[int]]
) -> ByteArray:
    return legend([classes[label] for label in parts], [palette[label] for label in parts])


def _scaled(picture: ByteArray, scale: float) -> ByteArray:
    if scale == 1:
        return picture
    height, width = (max(1, round(length * scale)) for length in picture.shape[:2])
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    method = cv2.INTER_NEAREST_EXACT if picture.ndim == 2 else smooth
    return np.asarray(cv2.resize(picture, (width, height), interpolation=method), np.uint8)
