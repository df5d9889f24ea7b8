"""SAM's decomposed relative positions, gathered for one window size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from segment_anything.modeling.image_encoder import get_rel_pos

from schnet.modeling.context import is_exported
from schnet.modeling.resample import LINEAR, axis_matrix


@dataclass(frozen=True)
class Positions:
    """What each query's dot product with adds to its scores, by the distance of the key.

    Attributes:
        height: by row of the query and row of the key, (H, H, d); for some rows of queries alone
            (rows, H, d).
        width: by column of the query and column of the key, (W, W, d).
    """

    height: torch.Tensor
    width: torch.Tensor

    @classmethod
    def gather(
        cls, rel_pos_h: torch.Tensor, rel_pos_w: torch.Tensor, window: tuple[int, int]
    ) -> Positions:
        """Take them from SAM's tables, resized where a table is for another window.

        Args:
            rel_pos_h: embeddings by distance in rows, (2 * side - 1, d).
            rel_pos_w: by distance in columns, likewise.
            window: H and W in tokens.
        """
        if is_exported():
            return cls(_by_distance(rel_pos_h, window[0]), _by_distance(rel_pos_w, window[1]))
        return cls(
            get_rel_pos(window[0], window[0], rel_pos_h),
            get_rel_pos(window[1], window[1], rel_pos_w),
        )

    @property
    def window(self) -> tuple[int, int]:
        """H and W."""
        return self.height.shape[1], self.width.shape[1]

    def to(self, dtype: torch.dtype) -> Positions:
        """The same in another type."""
        return Positions(self.height.to(dtype), self.width.to(dtype))

    def rows(self, start: int, stop: int) -> Positions:
        """Those of some rows of queries."""
        return Positions(self.height[start:stop], self.width)

    def one_hot(self) -> torch.Tensor:
        """Row and column of each key of a window, (H * W, H + W), in the embeddings' type."""
        rows, columns = (
            torch.eye(side, dtype=self.height.dtype, device=self.height.device)
            for side in self.window
        )
        spread = rows.repeat_interleave(len(columns), dim=0)
        return torch.cat([spread, columns.repeat(len(rows), 1)], dim=-1)


def _by_distance(table: torch.Tensor, side: int) -> torch.Tensor:
    """What get_rel_pos gives for queries and keys of one side, (side, side, d), which may be open.

    Args:
        table: embeddings by distance, (2 * its side - 1, d).
        side: in tokens.
    """
    known = table.shape[0]
    if not isinstance(side, int) or 2 * side - 1 != known:
        table = axis_matrix(known, 2 * side - 1, LINEAR, table.device) @ table
    numbers = torch.arange(side, device=table.device)
    return table[numbers[:, None] - numbers + (side - 1)]
