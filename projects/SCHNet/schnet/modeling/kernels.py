"""Kernels of SAM's frozen layers on the CPU: linear layers, and attention in cache-sized tiles.

`attention.py` beside it has the plain formula that they are tested against. No gradient of a weight
is computed here: SAM is frozen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from schnet.modeling.positions import Positions
from schnet.modeling.windows import Region, regions

TILE_BYTES = 8 << 20
"""Size of a tile of attention scores: stays in the last cache, and is worth a GEMM's start."""

SHORT_ROW = 32
"""Elements of 16 bits that a CPU of today adds at once."""


def linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *, gelu: bool = False
) -> torch.Tensor:
    """`x W^T + b`, then GELU where wanted, without a graph.

    oneDNN's kernel where it can be had: PyTorch's `F.linear` takes MKL in fp32, which is slow on
    other makers' CPUs, and cannot fuse the GELU. The operator is the one torch.compile emits.

    Args:
        x: shape (..., in), contiguous.
        weight: (out, in), of x's type, any strides, or what `pack` made of it.
        bias: (out,) or None.
        gelu: apply the exact GELU.
    """
    if onednn_takes(x):
        return torch.ops.mkldnn._linear_pointwise(
            x, weight, bias, "gelu" if gelu else "none", [], "none"
        )
    y = F.linear(x, weight, bias)
    return F.gelu(y) if gelu else y


def pack(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """A weight (out, in) in the order that oneDNN's GEMM reads it in, for `linear` alone.

    Args:
        weight: of a type that `onednn_takes`.
        rows: how many rows of input to expect.
    """
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)


def onednn_takes(x: torch.Tensor) -> bool:
    """Whether `linear` runs this input by oneDNN's kernel."""
    return onednn_computes(x) and x.numel() > 0 and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def onednn_computes(x: torch.Tensor) -> bool:
    """Whether oneDNN is there, not switched off, and computes in a tensor's type on its device."""
    # Tensors without values (FakeTensor) are left out: a plan counts plain operators' FLOPs.
    if x.device.type != "cpu" or type(x) is not torch.Tensor:
        return False
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    if x.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return x.dtype == torch.float32


class FrozenLinear(torch.autograd.Function):
    """`linear` with the gradient of its input alone; keeps no activation."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        transposed: torch.Tensor,
    ) -> torch.Tensor:
        """See `linear`; `transposed` is the weight (in, out) for the way back, of any type."""
        # No saved tensor: a packed one has no memory that autograd's hooks could look at.
        ctx.transposed = transposed
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradient of x."""
        weight = ctx.transposed
        if weight.dtype != grad.dtype:
            weight = weight.to(grad.dtype)
        return linear(grad.contiguous(), weight, None), None, None, None


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
        _attend_tiled(qkv, padding, Positions(height, width), num_heads, out)
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


def attend_in_place(
    qkv: torch.Tensor, padding: torch.Tensor, positions: Positions, num_heads: int
) -> torch.Tensor:
    """`TiledAttention` without a graph, in the memory of the queries, which are lost.

    See there for the arguments. Returns (B, h, w, C), a view of `qkv`.
    """
    queries = qkv[..., : qkv.shape[3] // 3]
    _attend_tiled(qkv, padding, positions, num_heads, queries)
    return queries


def _attend_tiled(
    qkv: torch.Tensor,
    padding: torch.Tensor,
    positions: Positions,
    num_heads: int,
    out: torch.Tensor,
) -> None:
    """Attend within each window; `out` (B, h, w, C) may be the queries' own memory."""
    work = _Work(positions, num_heads)
    for group in work.groups(qkv, padding):
        work.attend(group, out)


@dataclass(frozen=True)
class _Group:
    """A row of windows of one image, as n pairs of window and head.

    Attributes:
        region: what the windows are of.
        image: number of the image in the batch.
        row: number of the row of windows in the region.
        window: H and W.
        num_heads: heads.
        q: queries of the real tokens, (n, rows * columns, d): a copy where windows are several.
        k: keys of the whole windows, (n, H * W, d).
        v: values likewise.
    """

    region: Region
    image: int
    row: int
    window: tuple[int, int]
    num_heads: int
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
        whole = pairs.unflatten(1, self.window)
        return whole[:, : self.region.rows, : self.region.columns].flatten(1, 2)

    def windows(self, tokens: torch.Tensor) -> torch.Tensor:
        """View of the group's windows in a map (B, h, w, C): (windows, heads, rows, columns, d)."""
        windows = self.region.of(tokens)[self.image, self.row].unflatten(-1, (self.num_heads, -1))
        return windows.permute(1, 3, 0, 2, 4)


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
                    if region.across > 1:
                        q = q.clone(memory_format=torch.contiguous_format)
                    pairs = (part.flatten(2, 3).flatten(0, 1) for part in (q, k, v))
                    yield _Group(region, image, row, window, heads, *pairs)

    def attend(self, group: _Group, tokens: torch.Tensor) -> None:
        """Write the attention of a group into a map (B, h, w, C), perhaps that of its queries."""
        target = group.windows(tokens)
        # Where windows are many, a tile's pairs are no rectangle of the map. The queries are a copy
        # then, whose memory takes the result: no tile reads another's.
        alone = len(target) == 1
        for pairs, rows, queries in self._tiles(group):
            weights = self._weights(group, pairs, rows, queries)
            attended = torch.bmm(weights, group.v[pairs])
            if alone:
                tile = target[0, pairs, rows]
                tile.copy_(attended.view(tile.shape))
            else:
                group.q[pairs, queries] = attended
        if not alone:
            target.copy_(group.q.view(target.shape))

    def gradients(
        self, group: _Group, grad: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradients of a group's q, k and v, padded keys and values included."""
        q, k, v = group.q, group.k, group.v
        scale = q.shape[-1] ** -0.5
        grad_q = torch.empty_like(q, memory_format=torch.contiguous_format)
        grad_k = torch.zeros_like(k, memory_format=torch.contiguous_format)
        grad_v = torch.zeros_like(v, memory_format=torch.contiguous_format)
        for pairs, rows, queries in self._tiles(group):
            weights = self._weights(group, pairs, rows, queries)
            part = grad[pairs, queries]
            grad_v[pairs].baddbmm_(weights.transpose(1, 2), part)
            slopes = self._take("slopes", weights.shape, weights)
            torch.bmm(part, v[pairs].transpose(1, 2), out=slopes)
            torch.ops.aten._softmax_backward_data(
                slopes, weights, -1, weights.dtype, grad_input=slopes
            )
            grad_k[pairs].baddbmm_(slopes.transpose(1, 2), q[pairs, queries], alpha=scale)
            direct = torch.bmm(slopes, k[pairs]).mul_(scale)
            grad_q[pairs, queries] = direct.add_(self._through_positions(slopes, group, rows))
        return grad_q, grad_k, grad_v

    def _weights(self, group: _Group, pairs: slice, rows: slice, queries: slice) -> torch.Tensor:
        """Softmax of a tile's scores, (pairs, queries, H * W), in memory of `scores`."""
        q, columns = group.q[pairs, queries], group.region.columns
        grid = q.unflatten(1, (-1, columns))
        by_row = torch.einsum("grcd,rkd->grck", grid, self.positions.height[rows])
        by_column = torch.einsum("grcd,ckd->grck", grid, self.positions.width[:columns])
        scores = self._take("scores", (*q.shape[:2], group.k.shape[1]), q)
        if self._one_hot is None:
            spread = scores.view(*grid.shape[:3], *group.window)
            torch.add(by_row[..., :, None], by_column[..., None, :], out=spread)
        else:
            by_axis = torch.cat([by_row, by_column], dim=-1).flatten(1, 2)
            torch.matmul(by_axis, self._one_hot, out=scores)
        keys = group.k[pairs].transpose(1, 2)
        torch.baddbmm(scores, q, keys, alpha=q.shape[-1] ** -0.5, out=scores)
        return torch.softmax(scores, dim=-1, out=scores)

    def _through_positions(self, slopes: torch.Tensor, group: _Group, rows: slice) -> torch.Tensor:
        """Gradient of a tile's queries by way of the positions: (pairs, queries, d)."""
        height, width = group.window
        if self._one_hot is None:
            spread = slopes.unflatten(2, group.window)
            by_row, by_column = spread.sum(-1), spread.sum(-2)
        else:
            by_axis = torch.matmul(slopes, self._one_hot.t())
            by_row, by_column = by_axis.split([height, width], dim=-1)
        columns = group.region.columns
        by_row, by_column = (part.unflatten(1, (-1, columns)) for part in (by_row, by_column))
        through = torch.einsum("grck,rkd->grcd", by_row, self.positions.height[rows])
        through += torch.einsum("grck,ckd->grcd", by_column, self.positions.width[:columns])
        return through.flatten(1, 2)

    def _tiles(self, group: _Group) -> Iterator[tuple[slice, slice, slice]]:
        """Cut a group into (pairs, rows of the windows, their queries) by `TILE_BYTES`."""
        region, total = group.region, len(group.q)
        row_bytes = region.columns * group.k.shape[1] * group.k.element_size()
        rows = max(1, min(region.rows, TILE_BYTES // row_bytes))
        together = max(1, min(total, TILE_BYTES // (rows * row_bytes)))
        for pair in range(0, total, together):
            for row in range(0, region.rows, rows):
                end = min(row + rows, region.rows)
                queries = slice(row * region.columns, end * region.columns)
                yield slice(pair, min(pair + together, total)), slice(row, end), queries

    def _take(self, name: str, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        size = torch.Size(shape).numel()
        memory = self._memory.get(name)
        if memory is None or memory.numel() < size:
            memory = self._memory[name] = like.new_empty(size)
        return memory[:size].view(shape)


def _padded(pairs: torch.Tensor, padding: torch.Tensor, window: tuple[int, int]) -> torch.Tensor:
    """Fill windows (n, heads, rows, columns, d) up to (n, heads, H, W, d) with a token each."""
    filled = pairs.new_empty(*pairs.shape[:2], *window, pairs.shape[-1])
    filled[:] = padding
    filled[:, :, : pairs.shape[2], : pairs.shape[3]] = pairs
    return filled
