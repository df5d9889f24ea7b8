from __future__ import annotations

import cv2
import numpy as np
import pytest

from schnet.data.color import ColorJitter
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


def test_numbers_drawn_do_not_depend_on_the_image() -> None:
    rngs = [np.random.default_rng(5), np.random.default_rng(5), np.random.default_rng(5)]
    only(contrast=0.3)(photo(), rngs[0])
    only()(photo((3, 2)), rngs[1])
    rngs[2].random(4)
    assert rngs[0].random() == rngs[1].random() == rngs[2].random()


def test_pixels_outside_do_not_count_for_the_mean() -> None:
    inside = np.zeros((24, 20), np.uint8)
    inside[3:12] = 255
    seen = only(contrast=0.5)(photo()[3:12], np.random.default_rng(0))
    image = photo()
    image[inside == 0] = 255
    masked = only(contrast=0.5)(image, np.random.default_rng(0), inside)
    assert np.array_equal(masked[3:12], seen)
    assert not np.array_equal(only(contrast=0.5)(image, np.random.default_rng(0))[3:12], seen)


def test_all_changes_take_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    transform = cv2.transform

    def count(image: UInt8Array, matrix: np.ndarray) -> np.ndarray:
        passes.append(matrix.shape)
        return transform(image, matrix)

    monkeypatch.setattr(cv2, "transform", count)
    jitter = only(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1)
    jitter(photo(), np.random.default_rng(0))
    assert passes == [(3, 4)]
