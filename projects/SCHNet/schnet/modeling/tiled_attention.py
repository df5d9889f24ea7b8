"""Kernel of SAM's attention on the CPU: in tiles that stay in the caches, forward and backward.

`attention.py` beside it has the plain formula that it is tested against.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from schnet.modeling.positions import Positions
from schnet.modeling.windows import Region, regions

TILE_BYTES = 4 << 20
"""A thread's part of a tile of attention scores: stays in the caches, and is worth a GEMM."""

SHORT_ROW = 32
"""Elements of 16 bits that a CPU of today adds at once."""


class TiledAttention(torch.autograd.Function):
    """SAM's attention with decomposed positions, tile by tile; keeps its input alone.

    The scores exist for one tile at a time, in the backward pass again. Padded tokens are no
    queries; as keys and values they are the padding.
    """

    @staticmethod
    def forward(
        ctx: Any,
        qkv: torch.Tensor,
        padding: torch.Tensor,
        height: torch.Tensor,
        width: torch.Tensor,
        num_heads: int,
    ) -> torch.Tensor:
        """Attend within each window.

        Args:
            ctx: what the backward pass needs.
            qkv: queries, keys and values of the real tokens, (B, h, w, 3C).
            padding: those of a padded token, (3C,).
            height: `Positions.height`, (H, H, d); H and W are the window's sides in tokens.
            width: `Positions.width`, (W, W, d).
            num_heads: heads; d = C / heads.

        Returns:
            Shape (B, h, w, C).
        """
        ctx.save_for_backward(qkv, padding, height, width)
        ctx.num_heads = num_heads
        out = qkv.new_empty(*qkv.shape[:3], qkv.shape[3] // 3)
        work = _Work(Positions(height, width), num_heads)
        for group in work.groups(qkv, padding):
            work.attend(group, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradient of the real tokens' queries, keys and values."""
        qkv, padding, height, width = ctx.saved_tensors
        grad_qkv = torch.empty_like(qkv)
        grad_q, grad_k, grad_v = grad_qkv.tensor_split(3, dim=-1)
        work = _Work(Positions(height, width), ctx.num_heads)
        for group in work.groups(qkv, padding):
            q, k, v = work.gradients(group, group.read(grad))
            group.write(grad_q, q)
            group.write(grad_k, group.real(k))
            group.write(grad_v, group.real(v))
        return grad_qkv, None, None, None, None


def attend_rows(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, positions: Positions
) -> torch.Tensor:
    """Attention of some rows of queries to a whole grid, without a graph.

    Args:
        queries: of the rows' tokens, (B, r, w, C).
        keys: of all tokens, (B, heads, d, h * w).
        values: of all tokens, (B, heads, h * w, d).
        positions: `height` of those rows alone, (r, h, d).

    Returns:
        Shape (B, r, w, C).
    """
    out = torch.empty_like(queries)
    work = _Work(positions, keys.shape[1])
    region = Region(0, 0, 1, 1, queries.shape[1], queries.shape[2])
    pairs = region.of(queries)[:, 0].unflatten(-1, (keys.shape[1], -1)).permute(0, 2, 4, 1, 3, 5)
    for image, q in enumerate(pairs):
        q = q.flatten(2, 3).flatten(0, 1)
        group = _Group(region, image, 0, work, q, keys[image].transpose(1, 2), values[image])
        work.attend(group, out)
    return out


@dataclass(frozen=True)
class _Group:
    """A row of windows of one image, as n pairs of window and head.

    Attributes:
        region: what the windows are of.
        image: number of the image in the batch.
        row: number of the row of windows in the region.
        work: has the window and the number of heads.
        q: queries of the real tokens, (n, rows * columns, d): a copy where windows are several.
        k: keys of the whole windows, (n, H * W, d).
        v: values likewise.
    """

    region: Region
    image: int
    row: int
    work: _Work
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """The group's tokens of a map (B, h, w, C) by pair: (n, rows * columns, d)."""
        return self.windows(tokens).reshape(self.q.shape)

    def write(self, tokens: torch.Tensor, pairs: torch.Tensor) -> None:
        """Undo `read`: write the group's tokens into a map."""
        windows = self.windows(tokens)
        windows.copy_(pairs.view(windows.shape))

    def real(self, pairs: torch.Tensor) -> torch.Tensor:
        """Leave padded tokens out: (n, H * W, d) to (n, rows * columns, d)."""
        whole = pairs.unflatten(1, self.work.positions.window)
        return whole[:, : self.region.rows, : self.region.columns].flatten(1, 2)

    def windows(self, tokens: torch.Tensor) -> torch.Tensor:
        """View of the group's windows in a map (B, h, w, C): (windows, heads, rows, columns, d)."""
        windows = self.region.of(tokens)[self.image, self.row]
        return windows.unflatten(-1, (self.work.num_heads, -1)).permute(1, 3, 0, 2, 4)

    def tiles(self) -> Iterator[_Tile]:
        """Cut the group by `TILE_BYTES`; as many pairs as there are threads for, where it can."""
        columns, total = self.region.columns, len(self.q)
        row_bytes = columns * self.k.shape[1] * self.k.element_size()
        rows = _evenly(self.region.rows, max(1, TILE_BYTES // row_bytes))
        threads = torch.get_num_threads()
        together = threads * max(1, TILE_BYTES // (rows * row_bytes))
        for start in range(0, total, together):
            pairs = slice(start, min(start + together, total))
            k, v = self.k[pairs], self.v[pairs]
            # Views of a map: a product reads them many times, and slowly.
            if not (k.is_contiguous() or k.transpose(1, 2).is_contiguous()):
                k = k.transpose(1, 2).contiguous().transpose(1, 2)
            v = v.contiguous()
            for row in range(0, self.region.rows, rows):
                lines = slice(row, min(row + rows, self.region.rows))
                queries = slice(lines.start * columns, lines.stop * columns)
                yield _Tile(pairs, lines, queries, self.q[pairs, queries], k, v)


@dataclass(frozen=True)
class _Tile:
    """Some pairs of a group, and some rows of their windows.

    Attributes:
        pairs: which of the group's.
        rows: which of the windows' rows.
        queries: the same, as tokens.
        q: the queries, (pairs, queries, d).
        k: the pairs' keys, (pairs, H * W, d), dense in memory in either order.
        v: their values, contiguous.
    """

    pairs: slice
    rows: slice
    queries: slice
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor


class _Work:
    """What the tiles of one call share: positions, and memory for the scores.

    The memory is used again by every tile: fresh memory each time costs page faults.
    """

    def __init__(self, positions: Positions, num_heads: int) -> None:
        self.positions = positions
        self.num_heads = num_heads
        self._memory: dict[str, torch.Tensor] = {}
        # In 16 bits adding along rows as short as a window's is slow; a GEMM does it instead.
        short = positions.window[1] < SHORT_ROW and positions.height.dtype != torch.float32
        self._one_hot = positions.one_hot().t().contiguous() if short else None

    def groups(self, qkv: torch.Tensor, padding: torch.Tensor) -> Iterator[_Group]:
        """All windows of a batch, a row of windows at a time."""
        window, heads = self.positions.window, self.num_heads
        padding = padding.view(3, heads, 1, 1, -1)
        for region in regions((qkv.shape[1], qkv.shape[2]), window):
            windows = region.of(qkv).unflatten(-1, (3, heads, -1))
            # To (B, down, 3, across, heads, rows, columns, d).
            ordered = windows.permute(0, 1, 5, 3, 6, 2, 4, 7)
            for image in range(len(ordered)):
                for row in range(region.down):
                    q, k, v = ordered[image, row]
                    if (region.rows, region.columns) != window:
                        k, v = _padded(k, padding[1], window), _padded(v, padding[2], window)
                    pairs = (part.flatten(2, 3).flatten(0, 1) for part in (q, k, v))
                    yield _Group(region, image, row, self, *pairs)

    def attend(self, group: _Group, tokens: torch.Tensor) -> None:
        """Write the attention of a group into a map (B, h, w, C)."""
        target = group.windows(tokens)
        # Where windows are many, a tile's pairs are no rectangle of the map.
        alone = len(target) == 1
        whole = None if alone else torch.empty_like(group.q)
        for tile in group.tiles():
            attended = torch.bmm(self._weights(group, tile), tile.v)
            if whole is None:
                part = target[0, tile.pairs, tile.rows]
                part.copy_(attended.view(part.shape))
            else:
                whole[tile.pairs, tile.queries] = attended
        if whole is not None:
            target.copy_(whole.view(target.shape))

    def gradients(
        self, group: _Group, grad: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradients of a group's q, k and v, padded keys and values included."""
        q, k, v = group.q, group.k, group.v
        scale = q.shape[-1] ** -0.5
        grad_q = torch.empty_like(q, memory_format=torch.contiguous_format)
        grad_k = torch.zeros_like(k, memory_format=torch.contiguous_format)
        grad_v = torch.zeros_like(v, memory_format=torch.contiguous_format)
        for tile in group.tiles():
            weights = self._weights(group, tile)
            part = grad[tile.pairs, tile.queries]
            grad_v[tile.pairs].baddbmm_(weights.transpose(1, 2), part)
            slopes = self._take("slopes", weights.shape, weights)
            torch.bmm(part, tile.v.transpose(1, 2), out=slopes)
            torch.ops.aten._softmax_backward_data(
                slopes, weights, -1, weights.dtype, grad_input=slopes
            )
            grad_k[tile.pairs].baddbmm_(slopes.transpose(1, 2), tile.q, alpha=scale)
            direct = torch.bmm(slopes, tile.k).mul_(scale)
            direct += self._through_positions(slopes, group, tile.rows)
            grad_q[tile.pairs, tile.queries] = direct
        return grad_q, grad_k, grad_v

    def _weights(self, group: _Group, tile: _Tile) -> torch.Tensor:
        """Softmax of a tile's scores, (pairs, queries, H * W), in memory of `scores`."""
        columns = group.region.columns
        grid = tile.q.unflatten(1, (-1, columns))
        by_row = torch.einsum("grcd,rkd->grck", grid, self.positions.height[tile.rows])
        by_column = torch.einsum("grcd,ckd->grck", grid, self.positions.width[:columns])
        scores = self._take("scores", (*tile.q.shape[:2], tile.k.shape[1]), tile.q)
        if self._one_hot is None:
            spread = scores.view(*grid.shape[:3], *self.positions.window)
            torch.add(by_row[..., :, None], by_column[..., None, :], out=spread)
        else:
            by_axis = torch.cat([by_row, by_column], dim=-1).flatten(1, 2)
            torch.matmul(by_axis, self._one_hot, out=scores)
        keys, scale = tile.k.transpose(1, 2), tile.q.shape[-1] ** -0.5
        torch.baddbmm(scores, tile.q, keys, alpha=scale, out=scores)
        return torch.softmax(scores, dim=-1, out=scores)

    def _through_positions(self, slopes: torch.Tensor, group: _Group, rows: slice) -> torch.Tensor:
        """Gradient of a tile's queries by way of the positions: (pairs, queries, d)."""
        height, width = self.positions.window
        if self._one_hot is None:
            spread = slopes.unflatten(2, (height, width))
            by_row, by_column = spread.sum(-1), spread.sum(-2)
        else:
            by_axis = torch.matmul(slopes, self._one_hot.t())
            by_row, by_column = by_axis.split([height, width], dim=-1)
        columns = group.region.columns
        by_row, by_column = (part.unflatten(1, (-1, columns)) for part in (by_row, by_column))
        through = torch.einsum("grck,rkd->grcd", by_row, self.positions.height[rows])
        through += torch.einsum("grck,ckd->grcd", by_column, self.positions.width[:columns])
        return through.flatten(1, 2)

    def _take(self, name: str, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        size = torch.Size(shape).numel()
        memory = self._memory.get(name)
        if memory is None or memory.numel() < size:
            memory = self._memory[name] = like.new_empty(size)
        return memory[:size].view(shape)


def _evenly(total: int, most: int) -> int:
    """Size of the parts of a whole, none larger than `most` and all but the last the same."""
    return -(-total // -(-total // most))


def _padded(pairs: torch.Tensor, padding: torch.Tensor, window: tuple[int, int]) -> torch.Tensor:
    """Fill windows (n, heads, rows, columns, d) up to (n, heads, H, W, d) with a token each."""
    filled = pairs.new_empty(*pairs.shape[:2], *window, pairs.shape[-1])
    filled[:] = padding
    filled[:, :, : pairs.shape[2], : pairs.shape[3]] = pairs
    return filled
