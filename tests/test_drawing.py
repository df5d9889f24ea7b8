from __future__ import annotations

import numpy as np
import pytest

from schnet.drawing import FrameLegend, at_least, parts_in, with_legend
from schnet.parsing import Parsing

CLASSES = ("Background", "hat", "coat", "shoes")
PALETTE = ((0, 0, 0), (250, 0, 0), (0, 250, 0), (0, 0, 250))


def _parsing(height: int = 200, width: int = 300, **rows: int) -> Parsing:
    labels = np.zeros((height, width), np.uint8)
    for name, row in rows.items():
        labels[row : row + 20] = CLASSES.index(name)
    return Parsing(labels, CLASSES, PALETTE, np.full((height, width, 3), 100, np.uint8))


def _has(picture: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((np.abs(picture.astype(int) - color).max(axis=-1) < 40).any())


def test_parts_that_occur() -> None:
    parsing = _parsing(shoes=100, hat=0)
    assert parts_in(parsing) == [1, 3]
    parsing.labels[50, :2] = 2
    assert parts_in(parsing) == [1, 2, 3]
    assert parts_in(parsing, 0.001) == [1, 3]
    assert parts_in(_parsing()) == []


def test_small_pictures_are_enlarged() -> None:
    labels = np.array([[0, 7]], np.uint8)
    assert at_least(labels, 6).tolist() == [[0, 0, 0, 7, 7, 7]] * 3
    assert at_least(np.zeros((10, 5, 3), np.uint8), 40).shape == (40, 20, 3)
    large = np.zeros((10, 50, 3), np.uint8)
    assert at_least(large, 40) is large


@pytest.mark.parametrize("height", [20, 200, 2400])
def test_the_legend_lists_what_occurs_beside_the_photo(height: int) -> None:
    parsing = _parsing(height, 300, hat=0)
    picture = np.full((height, 300, 3), 100, np.uint8)
    drawn = with_legend(picture, parsing)
    assert drawn.shape[0] >= height and drawn.shape[1] > 340
    assert (drawn[:height, :300] == 100).all()
    key = drawn[:, 300:]
    assert _has(key, PALETTE[1]) and not _has(key, PALETTE[2]) and not _has(key, PALETTE[3])
    assert with_legend(picture, _parsing(height, 300)) is picture


def test_a_videos_legend_keeps_its_lines() -> None:
    legend = FrameLegend()
    frame = np.full((200, 300, 3), 100, np.uint8)
    empty = legend.draw(frame, _parsing())
    assert (empty == frame).all() and empty is not frame
    coat = legend.draw(frame, _parsing(coat=50))
    assert _has(coat, PALETTE[2]) and not _has(coat, PALETTE[1])
    assert (frame == 100).all()
    # The hat, whose label is the smaller, comes below, and both stay after they are gone.
    both = legend.draw(frame, _parsing(hat=0))
    assert _has(both, PALETTE[1])
    line = np.abs(coat.astype(int) - both)[:30].max()
    assert line < 60
    assert np.array_equal(legend.draw(frame, _parsing()), both)


@pytest.mark.parametrize("size", [(24, 32), (40, 400), (400, 40), (2160, 3840)])
def test_a_videos_legend_fits_any_frame(size: tuple[int, int]) -> None:
    frame = np.full((*size, 3), 100, np.uint8)
    parsing = _parsing(*size, hat=0)
    drawn = FrameLegend().draw(frame, parsing)
    assert drawn.shape == frame.shape
    changed = np.argwhere((drawn != 100).any(axis=-1))
    assert changed.size and (changed[:, 1] < 0.75 * size[1]).all()
