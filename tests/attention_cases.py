"""Random queries, keys and values of SAM's attention, and what the plain formula makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from schnet.modeling.attention import attend
from schnet.modeling.positions import Positions

HEADS, DIM = 2, 8


@dataclass(frozen=True)
class Case:
    """One call of the attention, in fp32, with the gradient of its output."""

    qkv: torch.Tensor
    padding: torch.Tensor
    positions: Positions
    grad: torch.Tensor

    @classmethod
    def draw(cls, grid: tuple[int, int], window: tuple[int, int], batch: int = 2) -> Case:
        """Draw one; the positions weigh as much as the products."""
        wide = HEADS * DIM
        return cls(
            qkv=torch.randn(batch, *grid, 3 * wide),
            padding=torch.randn(3 * wide),
            positions=Positions(
                torch.randn(window[0], window[0], DIM) / 2,
                torch.randn(window[1], window[1], DIM) / 2,
            ),
            grad=torch.randn(batch, *grid, wide),
        )

    def run(
        self, way: str, dtype: torch.dtype = torch.float32
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The output and the gradient of qkv."""
        qkv = self.qkv.to(dtype, copy=True).requires_grad_()
        padding, positions = self.padding.to(dtype), self.positions.to(dtype)
        out = attend(qkv, padding, positions, HEADS, way)
        (grad,) = torch.autograd.grad(out, qkv, self.grad.to(dtype))
        return out.detach(), grad


# (grid, window): whole windows, cut ones on each side, one token, a window that is the grid.
LAYOUTS = [
    ((28, 28), (14, 14)),
    ((17, 9), (8, 8)),
    ((8, 11), (8, 8)),
    ((5, 3), (8, 8)),
    ((1, 1), (8, 8)),
    ((1, 1), (1, 1)),
    ((13, 7), (13, 7)),
    ((3, 40), (3, 40)),
]
