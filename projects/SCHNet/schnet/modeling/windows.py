"""Where SAM's windows lie on a grid of tokens, and which of their tokens are real."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Region:
    """A rectangle of a grid whose windows all have as many real rows and columns.

    SAM pads a grid at the right and the bottom to whole windows, so there are at most four
    regions: the whole windows, those cut by the right edge, by the bottom edge, and the corner.

    Attributes:
        top: first row of the grid, in tokens.
        left: first column.
        down: windows from top to bottom.
        across: windows from left to right.
        rows: real rows of each window.
        columns: real columns of each window.
    """

    top: int
    left: int
    down: int
    across: int
    rows: int
    columns: int

    def of(self, tokens: torch.Tensor) -> torch.Tensor:
        """The region's windows as a view: (B, h, w, D) to (B, down, rows, across, columns, D)."""
        bottom, right = self.top + self.down * self.rows, self.left + self.across * self.columns
        part = tokens[:, self.top : bottom, self.left : right]
        return part.unflatten(2, (self.across, -1)).unflatten(1, (self.down, -1))


def regions(grid: tuple[int, int], window: tuple[int, int]) -> Iterator[Region]:
    """The regions of a grid (h, w) under windows (H, W), all in tokens."""
    for top, down, rows in _spans(grid[0], window[0]):
        for left, across, columns in _spans(grid[1], window[1]):
            yield Region(top, left, down, across, rows, columns)


def _spans(length: int, window: int) -> list[tuple[int, int, int]]:
    """(start, windows, real length of each) of the whole windows and of the cut one."""
    whole, rest = divmod(length, window)
    spans = [(0, whole, window)] if whole else []
    return [*spans, (whole * window, 1, rest)] if rest else spans


def pad_to_windows(
    tokens: torch.Tensor, padding: torch.Tensor, window: tuple[int, int]
) -> torch.Tensor:
    """All windows, padded with one token.

    Args:
        tokens: shape (B, h, w, D).
        padding: what stands in each padded place, shape (D,).
        window: height and width (H, W) of a window.

    Returns:
        Shape (B * windows, H, W, D); row by row of windows.
    """
    batch, height, width, dim = tokens.shape
    down, across = -(-height // window[0]), -(-width // window[1])
    if (down * window[0], across * window[1]) != (height, width):
        padded = padding.to(tokens.dtype).expand(batch, down * window[0], across * window[1], dim)
        padded = padded.clone()
        padded[:, :height, :width] = tokens
        tokens = padded
    split = tokens.unflatten(2, (across, window[1])).unflatten(1, (down, window[0]))
    return split.transpose(2, 3).reshape(-1, *window, dim)


def split_into_windows(tokens: torch.Tensor, side: int) -> torch.Tensor:
    """All square windows, padded with zeros, without a decision that depends on the grid's size.

    Args:
        tokens: shape (B, h, w, D); h and w may be symbolic.
        side: of a window, in tokens.

    Returns:
        Shape (B * windows, side, side, D); row by row of windows.
    """
    height, width, dim = tokens.shape[1:]
    down, across = (height + side - 1) // side, (width + side - 1) // side
    padded = F.pad(tokens, (0, 0, 0, across * side - width, 0, down * side - height))
    split = padded.unflatten(2, (across, side)).unflatten(1, (down, side))
    return split.transpose(2, 3).reshape(-1, side, side, dim)


def crop_from_windows(windows: torch.Tensor, batch: int, grid: tuple[int, int]) -> torch.Tensor:
    """Undo `pad_to_windows`: (B * windows, H, W, D) to the real tokens (B, h, w, D)."""
    height, width = windows.shape[1:3]
    down, across = (grid[0] + height - 1) // height, (grid[1] + width - 1) // width
    split = windows.reshape(batch, down, across, height, width, -1).transpose(2, 3)
    whole = split.reshape(batch, down * height, across * width, -1)
    return whole[:, : grid[0], : grid[1]]
