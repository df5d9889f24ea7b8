from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from data_helpers import patchwork

from schnet.data.augmentation import (
    ColorJitter,
    CropGeometry,
    RandomCrop,
    fit_scale,
    mirror_table,
    resize_image,
    resize_label,
)
from schnet.data.reading import UInt8Array


def photo(size: tuple[int, int] = (24, 20)) -> UInt8Array:
    return np.random.default_rng(0).integers(60, 190, (*size, 3), np.uint8)


def only(**ranges: float) -> ColorJitter:
    return ColorJitter(
        **{"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, **ranges}
    )


def luma(image: UInt8Array) -> np.ndarray:
    return image @ np.array([0.299, 0.587, 0.114])


def spread(image: UInt8Array) -> float:
    """Mean difference of a pixel's strongest and weakest channel."""
    return float((image.max(2).astype(int) - image.min(2)).mean())


IDENTITY = CropGeometry((0, 0, 24, 20), (24, 20), (0, 0), (24, 20), False, 1)


def test_identity_changes_nothing() -> None:
    assert np.array_equal(IDENTITY.place(IDENTITY.cut_image(photo()), 0), photo())


def test_crop_pad_and_mirror_by_hand() -> None:
    geometry = CropGeometry((2, 3, 4, 5), (4, 5), (1, 2), (6, 8), True, 1)
    label = patchwork((24, 20))
    placed = geometry.place(geometry.cut_label(label), 255)
    expected = np.full((6, 8), 255, np.uint8)
    expected[1:5, 2:7] = label[2:6, 3:8]
    assert np.array_equal(placed, expected[:, ::-1])
    image = geometry.place(geometry.cut_image(photo()), (1, 2, 3))
    assert image.shape == (6, 8, 3) and image[0, 0].tolist() == [1, 2, 3]
    assert np.array_equal(image[1:5, 1:6], photo()[2:6, 3:8][:, ::-1])


def test_enlarging_labels_keeps_blocks_centred() -> None:
    label = np.array([[1, 2], [3, 4]], np.uint8)
    assert np.array_equal(resize_label(label, (6, 6)), np.kron(label, np.ones((3, 3), np.uint8)))
    assert resize_label(np.arange(9, dtype=np.uint8)[None], (1, 3)).tolist() == [[1, 4, 7]]


def test_shrinking_images_averages_what_a_pixel_covers() -> None:
    noise = photo((40, 50))
    blocks = noise.reshape(8, 5, 10, 5, 3).mean((1, 3))
    assert np.abs(resize_image(noise, (8, 10)) - blocks).max() <= 1


def test_enlarging_images_interpolates() -> None:
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 1] = 100
    row = resize_image(image, (1, 8))[0, :, 0]
    assert row[0] == 0 and row[-1] == 100 and 40 < row[4] < 70


def test_fit_scale_takes_the_tighter_side() -> None:
    assert fit_scale((100, 50), (20, 20)) == 0.2
    assert fit_scale((10, 50), (100, 100)) == 2


@pytest.mark.parametrize("size", [(830, 550), (37, 200), (1, 1), (3, 4000), (64, 64), (2000, 999)])
def test_drawn_boxes_lie_in_image_and_canvas(size: tuple[int, int]) -> None:
    crop = RandomCrop((64, 48), (0.3, 3.0), 0.5)
    for seed in range(60):
        drawn = crop.draw(size, np.random.default_rng(seed))
        top, left, height, width = drawn.box
        assert min(top, left) >= 0 and min(height, width) >= 1
        assert top + height <= size[0] and left + width <= size[1]
        assert all(value % drawn.reduction == 0 for value in drawn.box)
        for place, cut, canvas in zip(drawn.offset, drawn.resized, drawn.canvas, strict=True):
            assert place >= 0 and cut >= 1 and place + cut <= canvas
        assert drawn.canvas == (64, 48)


def test_aspect_is_kept_and_scales_are_log_uniform() -> None:
    crop = RandomCrop((256, 160), (0.5, 2.0), 0.0)
    rng = np.random.default_rng(0)
    scales = []
    for _ in range(2000):
        drawn = crop.draw((800, 500), rng)
        vertical, horizontal = (drawn.resized[i] / drawn.box[2 + i] for i in (0, 1))
        assert vertical == pytest.approx(horizontal, rel=0.03)
        scales.append(vertical / 0.32)
    assert min(scales) == pytest.approx(0.5, rel=0.03)
    assert max(scales) == pytest.approx(2.0, rel=0.03)
    assert np.mean(np.array(scales) < 1) == pytest.approx(0.5, abs=0.04)


def test_crops_and_padding_reach_both_ends() -> None:
    rng = np.random.default_rng(0)
    zoomed = [RandomCrop((32, 32), (2.0, 2.0), 0).draw((32, 32), rng) for _ in range(300)]
    assert {d.box[0] for d in zoomed} == {d.box[1] for d in zoomed} == set(range(17))
    shrunk = [RandomCrop((32, 32), (0.5, 0.5), 0).draw((32, 32), rng) for _ in range(300)]
    assert {d.offset[0] for d in shrunk} == {d.offset[1] for d in shrunk} == set(range(17))


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (0.3, 0.3), (1.0, 1.0)])
def test_mirror_probability(probability: float, share: float) -> None:
    crop, rng = RandomCrop((32, 32), (1.0, 1.0), probability), np.random.default_rng(0)
    mirrored = np.mean([crop.draw((32, 32), rng).mirror for _ in range(1000)])
    assert mirrored == pytest.approx(share, abs=0.05)


def test_draws_depend_on_the_generator_alone() -> None:
    crop, jitter = RandomCrop((32, 32), (0.5, 2.0), 0.5), only(brightness=0.3, hue=0.1)
    np.random.seed(1)
    first = [np.random.default_rng(5), np.random.default_rng(5)]
    drawn = [crop.draw((80, 50), rng) for rng in first]
    np.random.seed(2)
    assert drawn[0] == drawn[1]
    assert np.array_equal(jitter(photo(), first[0]), jitter(photo(), first[1]))
    assert first[0].random() == first[1].random()


def test_number_of_draws_does_not_depend_on_the_image() -> None:
    crop, jitter = RandomCrop((32, 32), (0.5, 2.0), 0.5), only(contrast=0.3)
    rngs = [np.random.default_rng(5), np.random.default_rng(5)]
    for rng, size, colors in zip(rngs, ((900, 700), (8, 8)), (jitter, only()), strict=True):
        crop.draw(size, rng)
        colors(photo(), rng)
    assert rngs[0].random() == rngs[1].random()


def test_reduction_never_loses_detail_of_the_result() -> None:
    crop, rng = RandomCrop((64, 64), (0.5, 3.0), 0), np.random.default_rng(0)
    drawn = [crop.draw((640, 640), rng) for _ in range(100)]
    for geometry in drawn:
        assert geometry.box[2] // geometry.reduction >= geometry.resized[0] - 1
    assert {geometry.reduction for geometry in drawn} == {2, 4, 8}


def test_cut_of_a_reduced_image_is_the_same_place() -> None:
    label = patchwork((64, 64)) * 12
    geometry = CropGeometry((16, 8, 32, 48), (8, 12), (0, 0), (8, 12), False, 4)
    full = np.repeat(label[:, :, None], 3, 2)
    reduced = resize_image(full, (16, 16))
    difference = geometry.cut_image(full).astype(int) - geometry.cut_image(reduced, 4)
    assert np.abs(difference).max() <= 1
    moved = replace(geometry, box=(20, 8, 32, 48)).cut_image(full)
    assert np.abs(moved.astype(int) - geometry.cut_image(full)).max() > 10


def test_no_jitter_is_the_same_image() -> None:
    assert np.array_equal(only()(photo(), np.random.default_rng(0)), photo())


def test_brightness_scales_all_channels() -> None:
    jittered = only(brightness=0.3)(photo(), np.random.default_rng(0))
    ratio = jittered / photo()
    assert ratio.std() < 0.01 and abs(ratio.mean() - 1) > 0.05


def test_contrast_keeps_the_mean_luma() -> None:
    jittered = only(contrast=0.5)(photo(), np.random.default_rng(0))
    assert luma(jittered).mean() == pytest.approx(luma(photo()).mean(), abs=1)
    assert abs(luma(jittered).std() / luma(photo()).std() - 1) > 0.05


def test_saturation_keeps_each_luma() -> None:
    jittered = only(saturation=0.5)(photo(), np.random.default_rng(0))
    assert np.abs(luma(jittered) - luma(photo())).max() < 2
    assert abs(spread(jittered) / spread(photo()) - 1) > 0.05


def test_hue_turns_red_and_leaves_grey() -> None:
    image = np.array([[[200, 60, 60], [120, 120, 120]]], np.uint8)
    jittered = only(hue=0.5)(image, np.random.default_rng(3))
    assert np.abs(jittered[0, 1].astype(int) - 120).max() <= 1
    assert np.abs(jittered[0, 0].astype(int) - image[0, 0]).max() > 30
    assert luma(jittered)[0, 0] == pytest.approx(luma(image)[0, 0], abs=3)


def test_jitter_saturates() -> None:
    white = np.full((4, 4, 3), 250, np.uint8)
    results = [only(brightness=1.0)(white, np.random.default_rng(seed)) for seed in range(20)]
    assert max(result.max() for result in results) == 255
    assert all(np.ptp(result) == 0 for result in results)


def test_mirror_table_swaps_pairs_only() -> None:
    table = mirror_table([(14, 15), (1, 3)])
    assert table[[14, 15, 1, 3]].tolist() == [15, 14, 3, 1]
    rest = [value for value in range(256) if value not in (14, 15, 1, 3)]
    assert table[rest].tolist() == rest and table.dtype == np.uint8
