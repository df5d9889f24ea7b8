"""One frozen transformer layer of SAM, at least cost: no work on padding, few passes over memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from segment_anything.modeling.image_encoder import Block
from torch import nn

from schnet.modeling.attention import attend, choose_way
from schnet.modeling.derived import Derived
from schnet.modeling.kernels import FrozenLinear, linear
from schnet.modeling.positions import Positions

ROWS_AT_ONCE = 1024
"""Tokens whose hidden layer of the MLP exists at once in inference."""


class FastLayer:
    """Runs a block of segment_anything with frozen weights; the block keeps them.

    The residual stream and the norms stay in its type, fp32 as a rule; the GEMMs and the attention
    are in autocast's type where that is on. Works with and without gradients of its input.
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

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (B, h, w, C) to the next layer's, of the same shape and type."""
        device = x.device.type
        is_autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if is_autocast else x.dtype
        block = self._block
        # The patch embedding's tokens come with their channels first in memory.
        x = x.contiguous()
        with torch.autocast(device, enabled=False):
            qkv = self._linear(_norm(block.norm1, x, dtype), block.attn.qkv)
            attended = self._attend(qkv, dtype)
            x = x + self._linear(attended, block.attn.proj)
            if torch.is_grad_enabled() and x.requires_grad:
                hidden = self._linear(_norm(block.norm2, x, dtype), block.mlp.lin1)
                return x + self._linear(F.gelu(hidden), block.mlp.lin2)
            self._add_mlp(x, dtype)
            return x

    def _add_mlp(self, x: torch.Tensor, dtype: torch.dtype) -> None:
        """Add the MLP to the tokens in place, some rows at a time: its hidden layer is 4C wide."""
        mlp = self._block.mlp
        weights = [self._in(dtype, p) for layer in (mlp.lin1, mlp.lin2) for p in layer.parameters()]
        for rows in x.view(-1, x.shape[-1]).split(ROWS_AT_ONCE):
            normed = _norm(self._block.norm2, rows, dtype)
            hidden = linear(normed, weights[0], weights[1], gelu=True)
            rows += linear(hidden, weights[2], weights[3])

    def _attend(self, qkv: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        block = self._block
        side = block.window_size
        window = (side, side) if side else (qkv.shape[1], qkv.shape[2])
        tables = (block.attn.rel_pos_h, block.attn.rel_pos_w)
        # get_rel_pos resizes a table only where it does not fit the grid: never in a window.
        positions = self._derived.get(
            ("positions", window, dtype),
            tables,
            lambda: Positions.gather(*tables, window).to(dtype),
        )
        padding = self._in(dtype, block.attn.qkv.bias)
        way = choose_way(qkv, positions, self._num_heads)
        return attend(qkv, padding, positions, self._num_heads, way)

    def _linear(self, x: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
        weight, bias = self._in(x.dtype, layer.weight), self._in(x.dtype, layer.bias)
        if x.device.type != "cpu":
            return F.linear(x, weight, bias)
        if torch.is_grad_enabled() and x.requires_grad:
            return FrozenLinear.apply(x, weight, bias)
        return linear(x, weight, bias)

    def _in(self, dtype: torch.dtype, weight: torch.Tensor) -> torch.Tensor:
        """A weight in another type, cast once."""
        if weight.dtype == dtype:
            return weight.detach()
        key = (id(weight), dtype)
        return self._derived.get(key, (weight,), lambda: weight.detach().to(dtype))


def _norm(norm: nn.LayerNorm, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return norm(x).to(dtype)
