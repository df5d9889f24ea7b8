from __future__ import annotations

import numpy as np
import pytest

from schnet.data.augmentation import RandomCrop, RandomRotation, mirror_table
from schnet.data.geometry import CropGeometry, TurnedCrop

# What was drawn before there was rotation, for a crop of (256, 176), scales 0.5 to 2 and draw
# [seed, draw index] = [0, 0] and [0, 1]: by size, two of (box, resized, offset, mirror, reduction).
PINNED = {
    (832, 550): (
        ((38, 0, 688, 474), (256, 176), (0, 0), False, 2),
        ((193, 208, 485, 333), (256, 176), (0, 0), True, 1),
    ),
    (40, 300): (
        ((0, 0, 40, 248), (28, 176), (9, 0), False, 1),
        ((0, 120, 40, 175), (40, 176), (173, 0), True, 1),
    ),
    (1, 1): (
        ((0, 0, 1, 1), (213, 176), (1, 0), False, 1),
        ((0, 0, 1, 1), (256, 176), (0, 0), True, 1),
    ),
    (2000, 999): (
        ((92, 0, 1656, 996), (256, 154), (0, 18), False, 4),
        ((464, 188, 1164, 800), (256, 176), (0, 0), True, 4),
    ),
}
NEXT_NUMBERS = (0.6066357757671799, 0.7878121978721646)


def draw_upright(
    crop: RandomCrop, size: tuple[int, int], rng: np.random.Generator, count: int
) -> list[CropGeometry]:
    drawn = [crop.draw(size, rng) for _ in range(count)]
    assert all(isinstance(geometry, CropGeometry) for geometry in drawn)
    return drawn  # type: ignore[return-value]


@pytest.mark.parametrize("rotation", [None, RandomRotation(0.0, 30.0)])
@pytest.mark.parametrize("size", PINNED)
def test_without_rotation_the_stream_of_draws_is_what_it_was(
    size: tuple[int, int], rotation: RandomRotation | None
) -> None:
    crop = RandomCrop((256, 176), (0.5, 2.0), 0.5, rotation=rotation)
    for draw, (box, resized, offset, mirror, reduction) in enumerate(PINNED[size]):
        rng = np.random.default_rng([0, draw])
        drawn = crop.draw(size, rng)
        assert drawn == CropGeometry(box, resized, offset, (256, 176), mirror, reduction)
        # The colour jitter's numbers come next.
        assert rng.random() == NEXT_NUMBERS[draw]


def test_rotation_keeps_what_was_drawn_before_it() -> None:
    crop = RandomCrop((256, 176), (0.5, 2.0), 0.5)
    turning = RandomCrop((256, 176), (0.5, 2.0), 0.5, rotation=RandomRotation(1.0, 30.0))
    for seed in range(40):
        upright = crop.draw((832, 550), np.random.default_rng(seed))
        turned = turning.draw((832, 550), np.random.default_rng(seed))
        assert isinstance(upright, CropGeometry) and isinstance(turned, TurnedCrop)
        assert turned.middle == upright.middle and turned.size == (832, 550)
        assert (turned.mirror, turned.reduction) == (upright.mirror, upright.reduction)
        for side, wanted in zip(upright.box[2:], upright.resized, strict=True):
            assert turned.step == pytest.approx(side / wanted, rel=0.03)


def test_angles_are_normal_and_cut_at_two_sigmas() -> None:
    rotation, rng = RandomRotation(0.6, 30.0), np.random.default_rng(0)
    angles = np.array([rotation.draw(rng) for _ in range(20000)])
    turned = angles[angles != 0]
    assert len(turned) / len(angles) == pytest.approx(0.6, abs=0.01)
    assert turned.mean() == pytest.approx(0, abs=1)
    # 0.9594 is the standard deviation of a standard normal variable that is cut at +-2; 4.55 % of
    # it are cut, and half of it lies within 0.6745.
    assert turned.std() == pytest.approx(0.9594 * 30, rel=0.02)
    assert np.abs(turned).max() == pytest.approx(60.0)
    assert np.mean(np.abs(turned) > 59.99) == pytest.approx(0.0455, abs=0.005)
    assert np.mean(np.abs(turned) < 0.6745 * 30) == pytest.approx(0.5, abs=0.015)


def test_no_sigma_turns_nothing() -> None:
    crop = RandomCrop((32, 32), (0.5, 2.0), 0.5, rotation=RandomRotation(1.0, 0.0))
    assert draw_upright(crop, (60, 40), np.random.default_rng(0), 20)


@pytest.mark.parametrize("size", [(832, 550), (37, 200), (1, 1), (3, 4000), (2000, 999), (65, 49)])
@pytest.mark.parametrize("scale", [0.4, 1.0, 1.7])
def test_letterbox_puts_the_middle_on_the_middle(size: tuple[int, int], scale: float) -> None:
    crop = RandomCrop((96, 64), (scale, scale), 0.5, letterbox=True)
    first, *others = draw_upright(crop, size, np.random.default_rng(0), 10)
    factor = min(96 / size[0], 64 / size[1]) * scale
    for place, middle, length in zip((0, 1), first.middle, size, strict=True):
        assert abs(middle - length / 2) * factor <= 1.0, place
        padded = first.canvas[place] - first.resized[place]
        assert abs(padded - 2 * first.offset[place]) <= 1
    assert {other.mirror for other in others} == {False, True}
    for other in others:
        assert (other.box, other.resized, other.offset) == (
            first.box,
            first.resized,
            first.offset,
        )


def test_letterbox_draws_the_same_scales() -> None:
    boxed = RandomCrop((96, 64), (0.5, 2.0), 0.5, letterbox=True)
    free = RandomCrop((96, 64), (0.5, 2.0), 0.5)
    for seed in range(20):
        first = boxed.draw((400, 300), np.random.default_rng(seed))
        second = free.draw((400, 300), np.random.default_rng(seed))
        assert isinstance(first, CropGeometry) and isinstance(second, CropGeometry)
        assert (first.resized, first.box[2:]) == (second.resized, second.box[2:])
        assert (first.mirror, first.reduction) == (second.mirror, second.reduction)


@pytest.mark.parametrize("size", [(830, 550), (37, 200), (1, 1), (3, 4000), (64, 64), (2000, 999)])
def test_drawn_boxes_lie_in_image_and_canvas(size: tuple[int, int]) -> None:
    crop = RandomCrop((64, 48), (0.3, 3.0), 0.5)
    for drawn in draw_upright(crop, size, np.random.default_rng(0), 60):
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
    for drawn in draw_upright(crop, (800, 500), rng, 2000):
        vertical, horizontal = (drawn.resized[i] / drawn.box[2 + i] for i in (0, 1))
        assert vertical == pytest.approx(horizontal, rel=0.03)
        scales.append(vertical / 0.32)
    assert min(scales) == pytest.approx(0.5, rel=0.03)
    assert max(scales) == pytest.approx(2.0, rel=0.03)
    assert np.mean(np.array(scales) < 1) == pytest.approx(0.5, abs=0.04)


def test_crops_and_padding_reach_both_ends() -> None:
    rng = np.random.default_rng(0)
    zoomed = draw_upright(RandomCrop((32, 32), (2.0, 2.0), 0), (32, 32), rng, 300)
    assert {d.box[0] for d in zoomed} == {d.box[1] for d in zoomed} == set(range(17))
    shrunk = draw_upright(RandomCrop((32, 32), (0.5, 0.5), 0), (32, 32), rng, 300)
    assert {d.offset[0] for d in shrunk} == {d.offset[1] for d in shrunk} == set(range(17))


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (0.3, 0.3), (1.0, 1.0)])
def test_mirror_probability(probability: float, share: float) -> None:
    crop, rng = RandomCrop((32, 32), (1.0, 1.0), probability), np.random.default_rng(0)
    mirrored = np.mean([crop.draw((32, 32), rng).mirror for _ in range(1000)])
    assert mirrored == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("size", [(80, 50), (900, 700), (8, 8)])
@pytest.mark.parametrize(("prob", "count"), [(0.0, 6), (0.5, 8), (1.0, 8)])
def test_draws_depend_on_the_generator_alone_and_are_as_many_for_all_images(
    size: tuple[int, int], prob: float, count: int
) -> None:
    crop = RandomCrop((32, 32), (0.5, 2.0), 0.5, rotation=RandomRotation(prob, 30.0))
    for seed in range(8):
        rng, again, counted = (np.random.default_rng(seed) for _ in range(3))
        np.random.seed(1)
        drawn = crop.draw(size, rng)
        np.random.seed(2)
        assert crop.draw(size, again) == drawn
        counted.random(count)
        assert rng.random() == counted.random()


def test_reduction_never_loses_detail_of_the_result() -> None:
    crop, rng = RandomCrop((64, 64), (0.5, 3.0), 0), np.random.default_rng(0)
    drawn = draw_upright(crop, (640, 640), rng, 100)
    for geometry in drawn:
        assert geometry.box[2] // geometry.reduction >= geometry.resized[0] - 1
    assert {geometry.reduction for geometry in drawn} == {2, 4, 8}


def test_mirror_table_swaps_pairs_only() -> None:
    table = mirror_table([(14, 15), (1, 3)])
    assert table[[14, 15, 1, 3]].tolist() == [15, 14, 3, 1]
    rest = [value for value in range(256) if value not in (14, 15, 1, 3)]
    assert table[rest].tolist() == rest and table.dtype == np.uint8
