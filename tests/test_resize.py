"""Resizing of maps: what a thinned map is, and that it is never whole."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from schnet.modeling.resize import resize_map, resize_map_thinned


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("small", "size", "seen"),
    [((8, 12), (32, 48), (32, 48)), ((1, 5), (4, 20), (3, 17)), ((7, 3), (16, 13), (9, 13))],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_thinned_is_the_resized_map_thinned(
    batch: int, small: tuple[int, int], size: tuple[int, int], seen: tuple[int, int], stride: int
) -> None:
    x = torch.randn(batch, 2, *small, requires_grad=True)
    thin = resize_map_thinned(x, size, seen, stride)
    whole = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    expected = whole[..., : seen[0] : stride, : seen[1] : stride]
    assert thin.shape == expected.shape
    assert torch.allclose(thin, expected, atol=1e-6)
    grad = torch.randn_like(thin)
    gradients = [torch.autograd.grad(y, x, grad)[0] for y in (thin, expected)]
    assert torch.allclose(*gradients, atol=1e-5)


def test_resizing_keeps_the_layout_and_the_type() -> None:
    x = torch.randn(2, 8, 6, 4).bfloat16().contiguous(memory_format=torch.channels_last)
    for size in ((3, 2), (6, 4), (12, 8), (12, 2)):
        resized = resize_map(x, size)
        assert resized.shape == (2, 8, *size) and resized.dtype == torch.bfloat16
        assert resized.is_contiguous(memory_format=torch.channels_last)
