"""One frozen transformer layer of SAM at least cost: no work on padding, little memory traffic."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from segment_anything.modeling.image_encoder import Block
from torch import nn

from schnet.modeling.attention import attend, choose_way
from schnet.modeling.context import product_dtype
from schnet.modeling.derived import Derived
from schnet.modeling.kernels import FrozenLinear, linear, onednn_takes, pack
from schnet.modeling.positions import Positions

ROWS_AT_ONCE = 1024
"""Tokens whose hidden layer of the MLP exists at once in inference."""


class FastLayer:
    """Runs a block of segment_anything with frozen weights; the block keeps them.

    The residual stream and the norms stay in its type, fp32 as a rule; the GEMMs and the attention
    are in autocast's type where that is on. Works with and without gradients of its input.

    Attributes:
        device_type: choose the kernels of this type of device; None takes the input's. A plan's
            tensors without values are on the CPU and stand for those of a GPU.
        keeps_casts: keep the weights in 16 bits, for the way there and back, from step to step: as
            much memory again as in fp32. Where layers are recomputed to save memory, no.
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

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (B, h, w, C) to the next layer's, of the same shape and type."""
        dtype = product_dtype(x)
        # The patch embedding's tokens come with their channels first in memory.
        x = x.contiguous()
        with torch.autocast(x.device.type, enabled=False):
            if torch.is_grad_enabled() and x.requires_grad:
                x = x + self._linear(self._attention(x, dtype), self._block.attn.proj)
                return x + self._mlp(x, dtype)
            return self._infer(x, dtype)

    def _infer(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """All behind the attention for some tokens at a time, in memory that is there already."""
        x = self._plus_attention(x, dtype)
        for rows in x.view(-1, x.shape[-1]).split(ROWS_AT_ONCE):
            rows += self._mlp(rows, dtype)
        return x

    def _plus_attention(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        attended = self._attention(x, dtype)
        for rows in attended.flatten(0, 2).split(ROWS_AT_ONCE):
            rows.copy_(self._linear(rows.contiguous(), self._block.attn.proj))
        return x + attended

    def _mlp(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        mlp = self._block.mlp
        hidden = self._linear(_norm(self._block.norm2, x, dtype), mlp.lin1, gelu=True)
        return self._linear(hidden, mlp.lin2)

    def _attention(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        qkv = self._linear(_norm(self._block.norm1, x, dtype), self._block.attn.qkv)
        return self._attend(qkv, dtype)

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
        padding = self._bias(block.attn.qkv, dtype)
        way = choose_way(self._device_type(qkv), qkv, positions, self._num_heads)
        return attend(qkv, padding, positions, self._num_heads, way)

    def _device_type(self, x: torch.Tensor) -> str:
        return self.device_type or x.device.type

    def _linear(self, x: torch.Tensor, layer: nn.Linear, *, gelu: bool = False) -> torch.Tensor:
        weight, bias = self._weight(layer, x), self._bias(layer, x.dtype)
        if torch.is_grad_enabled() and x.requires_grad:
            if self._device_type(x) == "cpu":
                y = FrozenLinear.apply(x, weight, bias, self._weight(layer, x, transposed=True))
            else:
                y = F.linear(x, weight, bias)
            return F.gelu(y) if gelu else y
        return linear(x, weight, bias, gelu=gelu)

    def _weight(
        self, layer: nn.Linear, x: torch.Tensor, *, transposed: bool = False
    ) -> torch.Tensor:
        """A layer's weight, or its transpose, as `linear` wants it for an input.

        In its own type it is used as it lies: packing fp32 gains little, and would cost as much
        memory again as the base has.
        """
        weight = layer.weight.detach()
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
        key = (id(layer), "weight", transposed, x.dtype)
        return self._derived.get(key, (layer.weight,), cast)

    def _bias(self, layer: nn.Linear, dtype: torch.dtype) -> torch.Tensor:
        if layer.bias.dtype == dtype:
            return layer.bias.detach()
        key = (id(layer), "bias", dtype)
        return self._derived.get(key, (layer.bias,), lambda: layer.bias.detach().to(dtype))


def _norm(norm: nn.LayerNorm, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return norm(x).to(dtype)
