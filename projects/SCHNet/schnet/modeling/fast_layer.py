"""One frozen transformer layer of SAM at least cost: no work on padding, little memory traffic."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from segment_anything.modeling.image_encoder import Block
from torch import nn
from torch.utils.checkpoint import checkpoint

from schnet.modeling.attention import attend, choose_way
from schnet.modeling.context import product_dtype
from schnet.modeling.derived import Derived
from schnet.modeling.kernels import FrozenLinear, linear, onednn_takes, pack
from schnet.modeling.positions import Positions
from schnet.modeling.tiled_attention import attend_rows

STRIP = 1024
"""About how many tokens inference takes through a layer at once: more gain nothing."""


class FastLayer:
    """Runs a block of segment_anything with frozen weights; the block keeps them.

    The residual stream and the norms stay in its type, fp32 as a rule; the GEMMs and the attention
    are in autocast's type where that is on. Works with and without gradients of its input.

    Attributes:
        device_type: choose the kernels of this type of device; None takes the input's. A plan's
            tensors without values are on the CPU and stand for those of a GPU.
        keeps_casts: keep the weights in 16 bits, for the way there and back, from step to step: as
            much memory again as in fp32. Where layers are recomputed to save memory, no.
        recomputes_mlp: run the MLP again in the backward pass instead of keeping what is in it.
    """

    def __init__(self, block: Block, num_heads: int) -> None:
        """Take a block.

        Args:
            block: the layer, frozen; its weights may be loaded or moved later.
            num_heads: its attention heads.
        """
        self._block = block
        self._num_heads = num_heads
        self._derived = Derived()
        self.device_type: str | None = None
        self.keeps_casts = True
        self.recomputes_mlp = False

    def __call__(self, x: torch.Tensor, *, overwrite: bool = False) -> torch.Tensor:
        """Tokens (B, h, w, C) to the next layer's, of the same shape and type.

        Args:
            x: the tokens.
            overwrite: the caller needs `x` no more: without a graph its memory takes the result.
        """
        dtype = product_dtype(x)
        is_ours = overwrite or not x.is_contiguous()
        # The patch embedding's tokens come with their channels first in memory.
        x = x.contiguous()
        with torch.autocast(x.device.type, enabled=False):
            with_graph = torch.is_grad_enabled() and x.requires_grad
            if with_graph or self._device_type(x) != "cpu":
                x = x + self._attention(x, dtype)
                if with_graph and self.recomputes_mlp:
                    return x + checkpoint(self._mlp, x, dtype, use_reentrant=False)
                return x + self._mlp(x, dtype)
            return self._infer(x, x if is_ours else torch.empty_like(x), dtype)

    def _infer(self, x: torch.Tensor, out: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The whole layer strip by strip: what a strip needs stays in the caches.

        `out` may be `x`: a strip's tokens are read before its result is written, and other strips
        need none of them, but for the keys and values that a global layer makes beforehand.
        """
        side = self._block.window_size
        for images in _images_at_once(x):
            part, target = x[images], out[images]
            grid = None if side else self._grid(part, dtype)
            for rows in _strips(part, side or 1):
                strip, result = part[:, rows], target[:, rows]
                if grid is None:
                    torch.add(strip, self._attention(strip, dtype), out=result)
                else:
                    torch.add(strip, self._attend_grid(strip, rows, grid, dtype), out=result)
                result += self._mlp(result, dtype)
        return out

    def _grid(self, x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys (B, heads, d, h * w) and values (B, heads, h * w, d) of a global layer."""
        batch, height, width, dim = x.shape
        heads = self._num_heads
        keys = x.new_empty(batch, heads, dim // heads, height, width, dtype=dtype)
        values = x.new_empty(batch, heads, height, width, dim // heads, dtype=dtype)
        for rows in _strips(x, 1):
            normed = _norm(self._block.norm1, x[:, rows], dtype)
            both = self._linear(normed, self._block.attn.qkv, part=(dim, 3 * dim))
            k, v = both.unflatten(-1, (2, heads, -1)).permute(3, 0, 4, 1, 2, 5)
            keys[:, :, :, rows] = k.permute(0, 1, 4, 2, 3)
            values[:, :, rows] = v
        return keys.flatten(3), values.flatten(2, 3)

    def _attend_grid(
        self,
        x: torch.Tensor,
        rows: slice,
        grid: tuple[torch.Tensor, torch.Tensor],
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """What a global layer's attention adds to a strip, (B, r, w, C)."""
        dim = x.shape[-1]
        normed = _norm(self._block.norm1, x, dtype)
        queries = self._linear(normed, self._block.attn.qkv, part=(0, dim))
        positions = self._positions((grid[0].shape[-1] // x.shape[2], x.shape[2]), dtype)
        attended = attend_rows(queries, *grid, positions.rows(rows.start, rows.stop))
        return self._linear(attended, self._block.attn.proj)

    def _mlp(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        mlp = self._block.mlp
        hidden = self._linear(_norm(self._block.norm2, x, dtype), mlp.lin1, gelu=True)
        return self._linear(hidden, mlp.lin2)

    def _attention(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """What attention within the layer's windows adds to the tokens, (B, h, w, C)."""
        qkv = self._linear(_norm(self._block.norm1, x, dtype), self._block.attn.qkv)
        return self._linear(self._attend(qkv, dtype), self._block.attn.proj)

    def _attend(self, qkv: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        side = self._block.window_size
        window = (side, side) if side else (qkv.shape[1], qkv.shape[2])
        positions = self._positions(window, dtype)
        padding = self._bias(self._block.attn.qkv, dtype)
        way = choose_way(self._device_type(qkv), qkv, positions, self._num_heads)
        return attend(qkv, padding, positions, self._num_heads, way)

    def _positions(self, window: tuple[int, int], dtype: torch.dtype) -> Positions:
        tables = (self._block.attn.rel_pos_h, self._block.attn.rel_pos_w)
        # get_rel_pos resizes a table only where it does not fit the grid: never in a window.
        return self._derived.get(
            ("positions", window, dtype),
            tables,
            lambda: Positions.gather(*tables, window).to(dtype),
        )

    def _device_type(self, x: torch.Tensor) -> str:
        return self.device_type or x.device.type

    def _linear(
        self,
        x: torch.Tensor,
        layer: nn.Linear,
        *,
        gelu: bool = False,
        part: tuple[int, int] | None = None,
    ) -> torch.Tensor:
        """A layer's outputs, or without a graph those from `part[0]` to `part[1]` alone."""
        weight, bias = self._weight(layer, x, part=part), self._bias(layer, x.dtype)
        if torch.is_grad_enabled() and x.requires_grad:
            if self._device_type(x) == "cpu":
                y = FrozenLinear.apply(x, weight, bias, self._weight(layer, x, transposed=True))
            else:
                y = F.linear(x, weight, bias)
            return F.gelu(y) if gelu else y
        return linear(x, weight, bias if part is None else bias[slice(*part)], gelu=gelu)

    def _weight(
        self,
        layer: nn.Linear,
        x: torch.Tensor,
        *,
        transposed: bool = False,
        part: tuple[int, int] | None = None,
    ) -> torch.Tensor:
        """A layer's weight, some of its rows, or its transpose, as `linear` wants it for an input.

        In its own type it is used as it lies: packing fp32 gains little, and would cost as much
        memory again as the base has.
        """
        weight = layer.weight.detach()
        if part is not None:
            weight = weight[slice(*part)]
        if transposed:
            weight = weight.t()
        if weight.dtype == x.dtype:
            return weight
        if torch.is_grad_enabled() and not self.keeps_casts:
            # Cast on the way back only: until then it would be there for every layer.
            return weight if transposed else weight.to(x.dtype)

        def cast() -> torch.Tensor:
            return pack(weight.to(x.dtype), rows) if onednn_takes(x) else weight.to(x.dtype)

        rows = x.numel() // x.shape[-1]
        key = (id(layer), "weight", part, transposed, x.dtype)
        return self._derived.get(key, (layer.weight,), cast)

    def _bias(self, layer: nn.Linear, dtype: torch.dtype) -> torch.Tensor:
        if layer.bias.dtype == dtype:
            return layer.bias.detach()
        key = (id(layer), "bias", dtype)
        return self._derived.get(key, (layer.bias,), lambda: layer.bias.detach().to(dtype))


def _norm(norm: nn.LayerNorm, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return norm(x).to(dtype)


def _images_at_once(x: torch.Tensor) -> Iterator[slice]:
    """Cut a batch (B, h, w, C) into images that are a strip together, or into single ones."""
    together = max(1, STRIP // (x.shape[1] * x.shape[2]))
    for start in range(0, len(x), together):
        yield slice(start, min(start + together, len(x)))


def _strips(x: torch.Tensor, side: int) -> Iterator[slice]:
    """Cut the rows of maps (B, h, w, C) into strips of about `STRIP` tokens.

    Args:
        x: tokens, perhaps of several images that are a strip together.
        side: rows that must stay together: a window's.
    """
    height, width = x.shape[1:3]
    units = -(-height // side)
    strips = min(units, max(1, round(len(x) * height * width / STRIP)))
    # The last ones are the larger, since the last window may be cut.
    ends = [units * number // strips * side for number in range(strips + 1)]
    for start, end in itertools.pairwise(ends):
        yield slice(start, min(end, height))
