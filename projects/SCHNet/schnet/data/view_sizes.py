"""In which sizes a photo is shown to the model at test time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from schnet.data.geometry import fit_scale

if TYPE_CHECKING:  # what runs an exported model alone has no Detectron2
    from detectron2.config import CfgNode

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class ViewSizes:
    """How large a photo is seen, whole (fitted into a box) or to be cut into windows.

    Attributes:
        box: the test box: what a whole photo is fitted into, and the size of a window.
        in_windows: the photo keeps its own resolution, whatever the box's size; one that is
            smaller than a window is enlarged until it fills it in one direction, as a whole photo
            would be, so that what fits in one window is seen as without windows.
    """

    box: Size
    in_windows: bool = False

    def scaled_box(self, scale: float = 1.0) -> Size:
        """Give the box at a scale (> 0), each side at least 1."""
        return _scaled(self.box, scale)

    def view_size(self, photo: Size, scale: float = 1.0) -> Size:
        """Give the size that a photo is resized to.

        Args:
            photo: height and width of the photo.
            scale: relative to the size at scale 1; > 0.

        Returns:
            Height and width, aspect kept to the nearest pixel, each at least 1.
        """
        if not self.in_windows:
            return fitted_size(photo, self.scaled_box(scale))
        if fit_scale(photo, self.box) > 1:
            photo = fitted_size(photo, self.box)
        return _scaled(photo, scale)


def testing_box(cfg: CfgNode) -> Size:
    """Give height and width of the test box: INPUT.SIZE_TEST, or INPUT.SIZE where it is [0, 0]."""
    height, width = cfg.INPUT.SIZE_TEST if any(cfg.INPUT.SIZE_TEST) else cfg.INPUT.SIZE
    return height, width


def fitted_size(size: Size, box: Size) -> Size:
    """Give the size that an image of a size has when fitted into a box.

    Args:
        size: height and width of the image.
        box: height and width of the box; one of them is filled, also where the image is smaller.

    Returns:
        Height and width, aspect kept to the nearest pixel, each at least 1.
    """
    scale = fit_scale(size, box)
    height, width = (min(b, max(1, round(s * scale))) for s, b in zip(size, box, strict=True))
    return height, width


def offset(size: Size, box: Size) -> tuple[int, int]:
    """Give the top and left, in a box, of an image of a size that lies in its middle."""
    return (box[0] - size[0]) // 2, (box[1] - size[1]) // 2


def _scaled(size: Size, scale: float) -> Size:
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width
