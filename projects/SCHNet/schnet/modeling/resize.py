"""Resizing of feature maps, one way for the whole model."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def resize_map(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize a map (B, C, h, w) bilinearly to (B, C, *size), antialiased where it shrinks."""
    if x.shape[-2:] == size:
        return x
    if x.shape[-2] > size[0] or x.shape[-1] > size[1]:
        # The antialiased kernel has no bfloat16 on CPUs.
        resized = F.interpolate(x.float(), size=size, mode="bilinear", antialias=True)
        return resized.to(x.dtype)
    return F.interpolate(x, size=size, mode="bilinear")
