"""Resizing of feature maps, one way for the whole model."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from schnet.modeling.context import is_exported
from schnet.modeling.resample import SMOOTH_LINEAR, resample


def resize_map(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize a map (B, C, h, w) bilinearly to (B, C, *size), antialiased where it shrinks."""
    if is_exported():
        # One formula for both: the smooth kernel is the plain one where it does not shrink.
        return resample(x, size, SMOOTH_LINEAR)
    if x.shape[-2:] == size:
        return x
    if x.shape[-2] > size[0] or x.shape[-1] > size[1]:
        # The antialiased kernel has no bfloat16 on CPUs.
        resized = F.interpolate(x.float(), size=size, mode="bilinear", antialias=True)
        return resized.to(x.dtype)
    return F.interpolate(x, size=size, mode="bilinear")


def resize_map_thinned(
    x: torch.Tensor, size: tuple[int, int], seen: tuple[int, int], stride: int
) -> torch.Tensor:
    """Every n-th row and column of a bilinearly resized map, and of those rows and columns alone.

    Args:
        x: shape (B, C, h, w), fp32.
        size: (H, W) that the map is resized to, without antialiasing.
        seen: how many rows and columns of the resized map there are to choose from.
        stride: n; the first row and column are chosen.

    Returns:
        `F.interpolate(x, size, mode="bilinear")[..., : seen[0] : stride, : seen[1] : stride]`.
    """
    # Bilinear weights are products of a row's and a column's.
    for dim in (-2, -1):
        low, high, share = _neighbours(x.shape[dim], size[dim], seen[dim], stride, x.device)
        share = share[:, None] if dim == -2 else share
        x = torch.lerp(x.index_select(dim, low), x.index_select(dim, high), share)
    return x


def _neighbours(
    length: int, resized: int, seen: int, stride: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each chosen position, the two positions it lies between and the second's share."""
    chosen = torch.arange(0, seen, stride, device=device)
    # Pixels are areas: the first one's centre is at one half.
    position = ((chosen + 0.5) * (length / resized) - 0.5).clamp(min=0)
    low = position.long().clamp(max=length - 1)
    return low, (low + 1).clamp(max=length - 1), position - low
