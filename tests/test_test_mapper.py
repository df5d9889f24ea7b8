"""The views that `TestMapper` makes for test-time augmentation, and photos for windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import color_of, data_config, patchwork, save_image

from schnet.data.mapper import TestMapper


def test_views_are_made_from_the_original_pixels() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 60, 3), np.uint8)
    mapped = TestMapper(box=(40, 40), scales=(0.5, 1.0, 1.5)).from_array(noise)
    assert (mapped["height"], mapped["width"]) == (120, 60) and mapped["box"] == (40, 40)
    assert [view["box"] for view in mapped["views"]] == [(20, 20), (40, 40), (60, 60)]
    for view, block in zip(mapped["views"], (6, 3, 2), strict=True):
        image = view["image"].permute(1, 2, 0).numpy()
        size = (120 // block, 60 // block)
        assert view["image"].dtype == torch.uint8 and image.shape == (*size, 3)
        # Of the fitted image neither the larger nor the smaller one could be made so exactly.
        means = noise.reshape(size[0], block, size[1], block, 3).mean((1, 3))
        assert np.abs(image - means).max() <= 1
    assert mapped["views"][1]["image"] is mapped["image"]
    assert "views" not in TestMapper(box=(40, 40)).from_array(noise)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (33, 47)])
def test_views_of_odd_photos(size: tuple[int, int]) -> None:
    mapper = TestMapper(box=(17, 31), scales=(0.1, 0.75, 1.25))
    mapped = mapper.from_array(np.full((*size, 3), 9, np.uint8))
    for scale, view in zip((0.1, 0.75, 1.25), mapped["views"], strict=True):
        height, width = view["image"].shape[1:]
        assert (height, width) == mapper.sizes.view_size(size, scale)
        assert view["box"][0] >= height >= 1 and view["box"][1] >= width >= 1
        assert (view["image"] == 9).all()


def test_photo_for_windows_keeps_its_pixels(tmp_path: Path) -> None:
    pixels = color_of(patchwork((100, 50)))
    path = save_image(tmp_path / "photo.png", pixels)
    mapper = TestMapper(box=(40, 40), scales=(0.5,), in_windows=True)
    mapped = mapper({"file_name": str(path), "image_id": "photo"})
    assert np.array_equal(mapped["image"].permute(1, 2, 0).numpy(), pixels)
    assert mapped["views"][0]["image"].shape == (3, 50, 25)


def test_test_mapper_reads_augmentation_and_windows() -> None:
    plain = TestMapper(data_config("TEST.AUG.SCALES", [0.5]))
    assert plain.scales is None and not plain.sizes.in_windows
    cfg = data_config(
        *("TEST.AUG.ENABLED", True, "TEST.AUG.SCALES", [0.5, 2.0]),
        *("TEST.SLIDING_WINDOW.ENABLED", True, "INPUT.SIZE_TEST", [48, 64]),
    )
    mapper = TestMapper(cfg)
    assert mapper.scales == (0.5, 2.0) and mapper.sizes.in_windows
    assert mapper.sizes.box == (48, 64)
