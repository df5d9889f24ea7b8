"""The rate of matrix products that this machine reaches on prepacked weights."""

from __future__ import annotations

import torch

from schnet.modeling.kernels import linear, onednn_takes, pack

ROWS = 1024
# Inputs and outputs of a layer's linear layers, in units of the encoder's width.
_SHAPES = ((1, 3), (1, 1), (1, 4), (4, 1))


class PackedProducts:
    """A transformer layer's four linear layers on 1024 rows, their weights packed beforehand.

    Attributes:
        flops: operations of one call.
        packed: whether oneDNN's packed products are there; else they are plain linear layers.
    """

    def __init__(self, dim: int, dtype: torch.dtype) -> None:
        """Draw inputs and weights.

        Args:
            dim: C, the encoder's width.
            dtype: of inputs, weights and results.
        """
        self.packed = onednn_takes(torch.empty(1, dtype=dtype))
        self.flops = 2 * ROWS * dim * dim * sum(a * b for a, b in _SHAPES)
        self._layers = []
        for inputs, outputs in _SHAPES:
            weight = torch.randn(outputs * dim, inputs * dim, dtype=dtype) / dim**0.5
            if self.packed:
                weight = pack(weight, ROWS)
            bias = torch.zeros(outputs * dim, dtype=dtype)
            self._layers.append((torch.randn(ROWS, inputs * dim, dtype=dtype), weight, bias))

    @torch.inference_mode()
    def __call__(self) -> None:
        """Compute the four products."""
        for x, weight, bias in self._layers:
            linear(x, weight, bias)
