"""Windows over a grid of tokens: every token in one window, and padding where SAM has it."""

from __future__ import annotations

import pytest
import torch
from segment_anything.modeling.image_encoder import window_partition, window_unpartition

from schnet.modeling.windows import crop_from_windows, pad_to_windows, regions

GRIDS = [(28, 28), (32, 30), (14, 14), (15, 14), (13, 8), (1, 1), (1, 29)]


@pytest.mark.parametrize("grid", GRIDS)
def test_regions_hold_every_token_once(grid: tuple[int, int]) -> None:
    counts = torch.zeros(1, *grid, 1)
    found = list(regions(grid, (14, 14)))
    for region in found:
        windows = region.of(counts)
        assert windows.shape[1:5] == (region.down, region.rows, region.across, region.columns)
        windows += 1
    assert torch.equal(counts, torch.ones_like(counts))
    assert len(found) == (1 + (grid[0] > 14 and grid[0] % 14 > 0)) * (
        1 + (grid[1] > 14 and grid[1] % 14 > 0)
    )


@pytest.mark.parametrize("grid", GRIDS)
def test_regions_windows_are_segment_anythings(grid: tuple[int, int]) -> None:
    tokens = torch.arange(2 * grid[0] * grid[1]).view(2, *grid, 1).float()
    theirs, padded = window_partition(tokens, 14)
    theirs = theirs.view(2, padded[0] // 14, padded[1] // 14, 14, 14)
    for region in regions(grid, (14, 14)):
        ours = region.of(tokens)[..., 0].transpose(2, 3)
        top, left = region.top // 14, region.left // 14
        part = theirs[:, top : top + region.down, left : left + region.across]
        assert torch.equal(ours, part[..., : region.rows, : region.columns])


@pytest.mark.parametrize("grid", GRIDS)
def test_padding_with_zeros_is_segment_anythings(grid: tuple[int, int]) -> None:
    tokens = torch.randn(3, *grid, 5)
    theirs, padded = window_partition(tokens, 14)
    ours = pad_to_windows(tokens, torch.zeros(5), (14, 14))
    assert torch.equal(ours, theirs)
    back = crop_from_windows(ours, 3, grid)
    assert torch.equal(back, window_unpartition(theirs, 14, padded, grid))
    assert torch.equal(back, tokens)


def test_padded_places_hold_the_padding() -> None:
    padding = torch.tensor([3.0, -1.0])
    windows = pad_to_windows(torch.zeros(1, 15, 14, 2), padding, (14, 14))
    assert torch.equal(windows[0], torch.zeros(14, 14, 2))
    assert torch.equal(windows[1, 0], torch.zeros(14, 2))
    assert torch.equal(windows[1, 1:], padding.expand(13, 14, 2))


def test_gradients_reach_the_real_tokens_alone() -> None:
    tokens = torch.randn(1, 15, 15, 2, requires_grad=True)
    padding = torch.randn(2)
    crop_from_windows(pad_to_windows(tokens, padding, (14, 14)), 1, (15, 15)).sum().backward()
    assert torch.equal(tokens.grad, torch.ones_like(tokens))
