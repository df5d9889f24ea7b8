from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from data_helpers import patchwork

from schnet.data.geometry import (
    CropGeometry,
    TurnedCrop,
    fit_scale,
    resize_image,
    resize_label,
)
from schnet.data.reading import UInt8Array

IDENTITY = CropGeometry((0, 0, 24, 20), (24, 20), (0, 0), (24, 20), False, 1)
PAD = (1, 2, 3)


def photo(size: tuple[int, int] = (24, 20)) -> UInt8Array:
    return np.random.default_rng(0).integers(60, 190, (*size, 3), np.uint8)


def smooth(size: tuple[int, int]) -> UInt8Array:
    """An image without detail finer than some pixels, different in each channel."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]] / 9
    channels = np.sin(rows), np.cos(columns), np.sin(rows + columns)
    return np.rint(127 + 120 * np.stack(channels, axis=2)).astype(np.uint8)


def turned(
    size: tuple[int, int],
    canvas: tuple[int, int],
    angle: float,
    step: float = 1.0,
    *,
    shift: tuple[float, float] = (0.0, 0.0),
    mirror: bool = False,
    reduction: int = 1,
) -> TurnedCrop:
    """A turned crop whose middle lies on the image's, or `shift` stored pixels from it."""
    middle = size[0] / 2 + shift[0], size[1] / 2 + shift[1]
    return TurnedCrop(middle, step, angle, size, canvas, mirror, reduction)


def source_points(crop: TurnedCrop) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel's middle comes from in the stored image: (y, x), float64, by its sentence.

    A picture turned counter-clockwise, mirrored afterwards; y points down.
    """
    (height, width), (middle_y, middle_x) = crop.canvas, crop.middle
    y, x = np.mgrid[0:height, 0:width] + 0.5
    x = width - x if crop.mirror else x
    offset = ((x - width / 2) - 1j * (y - height / 2)) * np.exp(-1j * np.radians(crop.angle))
    return middle_y - crop.step * offset.imag, middle_x + crop.step * offset.real


def bilinear(image: UInt8Array, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Sample at points, pixel i standing for i + 0.5; the image's rim goes on beyond it."""
    height, width = image.shape[:2]
    y, x = y - 0.5, x - 0.5
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    total = np.zeros((*y.shape, 3))
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = np.abs(1 - down - (y - top)) * np.abs(1 - right - (x - left))
        rows, columns = (top + down).clip(0, height - 1), (left + right).clip(0, width - 1)
        total += weight[:, :, None] * image[rows, columns]
    return total


def recorded_warps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """A list that the height and width of what is warped will be put into."""
    seen, warp = [], cv2.warpAffine

    def record(source: UInt8Array, *args: object, **options: object) -> np.ndarray:
        seen.append(source.shape[:2])
        return warp(source, *args, **options)

    monkeypatch.setattr(cv2, "warpAffine", record)
    return seen


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


def test_resizing_gives_opencvs_bits() -> None:
    rng = np.random.default_rng(0)
    for case in range(300):
        height, width, new_height, new_width = rng.integers(1, 70, 4)
        if case % 3 == 0:
            new_height, new_width = max(1, new_height % height), max(1, new_width % width)
        elif case % 3 == 1:
            height, width = new_height * rng.integers(1, 4), new_width * rng.integers(1, 4)
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        shrinks = new_height < height or new_width < width
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        wanted = cv2.resize(image, (int(new_width), int(new_height)), interpolation=how)
        assert np.array_equal(resize_image(image, (int(new_height), int(new_width))), wanted)


def test_enlarging_images_interpolates() -> None:
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 1] = 100
    row = resize_image(image, (1, 8))[0, :, 0]
    assert row[0] == 0 and row[-1] == 100 and 40 < row[4] < 70


def test_fit_scale_takes_the_tighter_side() -> None:
    assert fit_scale((100, 50), (20, 20)) == 0.2
    assert fit_scale((10, 50), (100, 100)) == 2


def test_cut_of_a_reduced_image_is_the_same_place() -> None:
    label = patchwork((64, 64)) * 12
    geometry = CropGeometry((16, 8, 32, 48), (8, 12), (0, 0), (8, 12), False, 4)
    full = np.repeat(label[:, :, None], 3, 2)
    reduced = resize_image(full, (16, 16))
    difference = geometry.cut_image(full).astype(int) - geometry.cut_image(reduced, 4)
    assert np.abs(difference).max() <= 1
    moved = replace(geometry, box=(20, 8, 32, 48)).cut_image(full)
    assert np.abs(moved.astype(int) - geometry.cut_image(full)).max() > 10


@pytest.mark.parametrize(
    ("box", "resized", "offset"),
    [
        ((4, 6, 8, 8), (4, 4), (0, 0)),
        ((0, 0, 24, 20), (12, 10), (3, 1)),
        ((2, 2, 4, 6), (8, 12), (0, 0)),
    ],
)
def test_middle_is_what_lies_on_the_middle_of_the_canvas(
    box: tuple[int, int, int, int], resized: tuple[int, int], offset: tuple[int, int]
) -> None:
    canvas = resized[0] + 2 * offset[0], resized[1] + 2 * offset[1]
    geometry = CropGeometry(box, resized, offset, canvas, False, 1)
    assert geometry.middle == (box[0] + box[2] / 2, box[1] + box[3] / 2)
    moved = replace(geometry, offset=(offset[0] + 1, offset[1]), canvas=(canvas[0] + 1, canvas[1]))
    half_pixel = box[2] / resized[0] / 2
    assert moved.middle == pytest.approx((geometry.middle[0] - half_pixel, geometry.middle[1]))


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_quarter_turns_are_exact_and_counter_clockwise(quarter: int) -> None:
    label, image = patchwork((24, 20)), photo()
    canvas = (20, 24) if quarter % 2 else (24, 20)
    crop = turned((24, 20), canvas, 90 * quarter)
    assert np.array_equal(crop.place(crop.cut_label(label), 255), np.rot90(label, quarter))
    assert np.array_equal(crop.place(crop.cut_image(image), PAD), np.rot90(image, quarter))
    mirrored = replace(crop, mirror=True)
    assert np.array_equal(
        mirrored.place(mirrored.cut_label(label), 255), np.rot90(label, quarter)[:, ::-1]
    )


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(
    ("size", "canvas", "step", "shift"),
    [
        ((61, 47), (48, 32), 1.0, (0.0, 0.0)),
        ((61, 47), (48, 32), 0.37, (11.3, -9.1)),
        ((301, 203), (64, 80), 3.71, (20.0, 33.3)),
        ((1, 1), (16, 32), 0.05, (0.2, -0.1)),
        ((1, 90), (32, 16), 0.8, (0.0, 20.0)),
        ((90, 70), (32, 32), 0.5, (500.0, 0.0)),
    ],
)
def test_labels_are_the_nearest_ones(
    size: tuple[int, int],
    canvas: tuple[int, int],
    step: float,
    shift: tuple[float, float],
    mirror: bool,
) -> None:
    label = np.random.default_rng(0).integers(0, 20, size, np.uint8)
    for angle in (-57.0, -8.25, 3.5, 41.0, 179.0):
        crop = turned(size, canvas, angle, step, shift=shift, mirror=mirror)
        got = crop.place(crop.cut_label(label), 255)
        y, x = source_points(crop)
        inside = (y >= 0) & (y < size[0]) & (x >= 0) & (x < size[1])
        nearest = label[
            np.floor(y).astype(int).clip(0, size[0] - 1),
            np.floor(x).astype(int).clip(0, size[1] - 1),
        ]
        wanted = np.where(inside, nearest, 255)
        # OpenCV rounds coordinates to 1/1024 of a pixel: what lies nearer to two labels is a tie.
        sure = np.minimum(np.abs(y - np.rint(y)), np.abs(x - np.rint(x))) > 2 / 1024
        assert sure.mean() > 0.9
        assert np.array_equal(got[sure], wanted[sure]), angle
        assert (got != wanted).mean() < 0.01


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
@pytest.mark.parametrize("mirror", [False, True])
def test_images_are_sampled_at_the_same_places_at_every_reduction(
    reduction: int, mirror: bool
) -> None:
    size = (43 * reduction, 37 * reduction)
    decoded = smooth((43, 37))
    for angle, step in ((-57.0, 1.0), (12.0, 0.6), (33.0, 1.9)):
        crop = turned(
            size,
            (48, 32),
            angle,
            step * reduction,
            shift=(3.0, -5.0),
            mirror=mirror,
            reduction=reduction,
        )
        got = crop.place(crop.cut_image(decoded, reduction), PAD)
        y, x = source_points(crop)
        wanted = bilinear(decoded, y / reduction, x / reduction)
        inside = (y >= 0) & (y < size[0]) & (x >= 0) & (x < size[1])
        # Sampled half a pixel beside, the mean difference is above 3.
        assert np.abs(got - wanted)[inside].max() <= 2 and np.abs(got - wanted)[inside].mean() < 0.5
        assert (got[~inside] == PAD).all() and inside.any()


def test_labels_beyond_the_limit_of_warps(monkeypatch: pytest.MonkeyPatch) -> None:
    # OpenCV 4 numbers the pixels of a warp's source in 16 bits.
    monkeypatch.setattr("schnet.data.geometry._MAX_WARPED_SIDE", 40)
    label = np.arange(120, dtype=np.uint8)[None].repeat(90, 0)
    crop, seen = turned((90, 120), (48, 64), 10.0, 2.0), recorded_warps(monkeypatch)
    got = crop.place(crop.cut_label(label), 255)
    assert seen == [(40, 40), (40, 40)]
    y, x = source_points(crop)
    inside = (y > 3) & (y < 87) & (x > 3) & (x < 117)
    assert np.abs(got.astype(int) - np.floor(x))[inside].max() <= 3
    assert abs((got - np.floor(x))[inside].mean()) < 0.1
    assert (got[(y < -3) | (y > 93) | (x < -3) | (x > 123)] == 255).all()


@pytest.mark.parametrize("shift", [(-35, 0), (35, 0), (0, -35), (0, 35)])
def test_padding_on_one_side(shift: tuple[float, float]) -> None:
    crop = turned((100, 100), (40, 40), 90.0, shift=shift)
    y, x = source_points(crop)
    outside = (y < 0) | (y > 100) | (x < 0) | (x > 100)
    placed = crop.place(crop.cut_label(np.full((100, 100), 5, np.uint8)), 255)
    assert np.array_equal(placed == 255, outside) and 0 < outside.sum() < 40 * 40


def test_padding_is_all_or_nothing() -> None:
    crop = turned((40, 30), (64, 64), 30.0, shift=(0.3, 0.4))
    image = crop.place(crop.cut_image(np.full((40, 30, 3), 200, np.uint8)), PAD)
    label = crop.place(crop.cut_label(np.full((40, 30), 5, np.uint8)), 255)
    assert set(np.unique(label)) == {5, 255}
    assert (image[label == 255] == PAD).all() and (image[label == 5] == 200).all()
    # A picture of ignored pixels keeps its colours: padding is where the image is not.
    ignored = crop.place(crop.cut_label(np.full((40, 30), 255, np.uint8)), 254)
    assert np.array_equal(ignored == 254, label == 255)


def test_crop_within_the_image_has_no_padding() -> None:
    crop = turned((200, 200), (100, 100), 45.0)
    assert crop.inside is None
    assert replace(crop, step=1.42).inside is not None
    label = crop.cut_label(np.full((200, 200), 5, np.uint8))
    assert (crop.place(label, 255) == 5).all()


@pytest.mark.parametrize("mirror", [False, True])
def test_turned_there_and_back(mirror: bool) -> None:
    label, image = patchwork((96, 96)), smooth((96, 96))
    there = turned((96, 96), (96, 96), 25.0, mirror=mirror)
    # Turned, then mirrored: undone by mirroring, and the same turn the other way round.
    back = replace(there, angle=25.0 if mirror else -25.0)
    again = back.place(back.cut_label(there.place(there.cut_label(label), 255)), 255)
    middle = np.s_[24:72, 24:72]
    assert (again[middle] == label[middle]).mean() > 0.93
    twice = back.place(back.cut_image(there.place(there.cut_image(image), PAD)), PAD)
    assert np.abs(twice[middle].astype(int) - image[middle]).max() < 12


def test_mirrored_twice_is_the_same() -> None:
    mirror = replace(IDENTITY, mirror=True)
    for pixels in (photo(), patchwork((24, 20))):
        assert np.array_equal(mirror.place(mirror.place(pixels, 0), 0), pixels)
        assert not np.array_equal(mirror.place(pixels, 0), pixels)


def test_strongly_shrunk_images_are_averaged() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    crop = turned((400, 400), (32, 32), 20.0, 8.0)
    assert crop.place(crop.cut_image(noise), PAD).std() < 20 < 60 < noise.std()
    # The same, decoded at half the scale: the rest is still too much for plain sampling.
    assert crop.cut_image(resize_image(noise, (200, 200)), 2).std() < 20
    gradient = np.repeat(np.linspace(0, 255, 400)[:, None, None], 400, 1).repeat(3, 2)
    got = crop.cut_image(gradient.astype(np.uint8))[..., 0]
    y, _ = source_points(crop)
    assert np.abs(got - (y - 0.5) * 255 / 399).max() < 1.5


def test_only_what_the_crop_sees_is_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = recorded_warps(monkeypatch)
    crop = turned((2000, 2000), (64, 64), 45.0, 2.0, reduction=2)
    crop.cut_image(np.zeros((1000, 1000, 3), np.uint8), 2)
    crop.cut_label(np.zeros((2000, 2000), np.uint8))
    diagonal = 64 * 2**0.5
    assert max(seen[0]) <= diagonal + 8 and max(seen[1]) <= 2 * diagonal + 10
