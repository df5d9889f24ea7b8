"""Resizing along an axis as a product with a matrix, for graphs that leave the sizes open.

`F.interpolate` has no operator in ONNX for its antialiased kinds, and which kind a map needs
depends on sizes that an exported graph does not know. These matrices are made of the sizes inside
the graph, and give the same values but for rounding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

LINEAR, SMOOTH_LINEAR = "linear", "smooth linear"
CUBIC, SMOOTH_CUBIC = "cubic", "smooth cubic"
# torch's coefficients of the cubic: its antialiased kernel has Pillow's.
_CUBIC_COEFFICIENT, _SMOOTH_CUBIC_COEFFICIENT = -0.75, -0.5


def resample(x: torch.Tensor, size: tuple[int, int], kind: str) -> torch.Tensor:
    """Resize a map as `F.interpolate(x, size, align_corners=False)` does.

    Args:
        x: shape (B, C, h, w), fp32.
        size: new height and width; either may be symbolic.
        kind: `LINEAR` and `CUBIC` are torch's modes bilinear and bicubic; `SMOOTH_LINEAR` and
            `SMOOTH_CUBIC` are the same with `antialias=True`.

    Returns:
        Shape (B, C, *size).
    """
    rows = axis_matrix(x.shape[-2], size[0], kind, x.device)
    columns = axis_matrix(x.shape[-1], size[1], kind, x.device)
    return F.linear(F.linear(x, columns).transpose(-1, -2), rows).transpose(-1, -2)


def axis_matrix(source: int, target: int, kind: str, device: torch.device) -> torch.Tensor:
    """What each of an axis's new positions takes of the old ones, (target, source), fp32.

    Args:
        source: positions there are.
        target: positions wanted.
        kind: see `resample`.
        device: of the result.
    """
    old = torch.arange(source, device=device, dtype=torch.float32)
    # Pixels are areas: the first one's centre is at one half.
    place = (torch.arange(target, device=device, dtype=torch.float32) + 0.5) * source / target - 0.5
    if kind == LINEAR:
        # Beyond the outermost centres the outermost values go on.
        place = torch.minimum(place.clamp(min=0), old[-1])
        return _triangle(place[:, None] - old)
    if kind == CUBIC:
        first = place.floor()
        matrix = torch.zeros((), device=device)
        for step in (-1, 0, 1, 2):
            tap = first + step
            weight = _cubic(place - tap, _CUBIC_COEFFICIENT)[:, None]
            inside = torch.minimum(tap.clamp(min=0), old[-1])
            matrix = matrix + weight * (inside[:, None] == old)
        return matrix
    # Where it shrinks, the kernel is as much wider; a kernel that ends at the edge is made whole.
    width = (torch.ones(1, device=device) * source / target).clamp(min=1)
    distance = (place[:, None] - old) / width
    kernel = (
        _triangle(distance)
        if kind == SMOOTH_LINEAR
        else _cubic(distance, _SMOOTH_CUBIC_COEFFICIENT)
    )
    return kernel / kernel.sum(dim=1, keepdim=True)


def _triangle(distance: torch.Tensor) -> torch.Tensor:
    return (1 - distance.abs()).clamp(min=0)


def _cubic(distance: torch.Tensor, a: float) -> torch.Tensor:
    """The cubic convolution kernel with a coefficient; 0 from a distance of 2 on."""
    x = distance.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
