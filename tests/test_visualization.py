from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schnet.visualization import (
    PAPER,
    SheetRow,
    colorize,
    contact_sheet,
    legend,
    overlay,
    save_png,
)

PALETTE = [(0, 0, 0), (200, 10, 10), (10, 200, 10)]
NAMES = ["background", "hat", "a rather long name of a part"]


def _has_color(image: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((image == np.uint8(color)).all(axis=-1).any())


def _row(height: int, width: int, label: int, truth: int | None) -> SheetRow:
    """Make a grey photo and constant label maps."""
    photo = np.full((height, width, 3), 90, np.uint8)
    prediction = np.full((height, width), label, np.uint8)
    return SheetRow(photo, None if truth is None else np.full_like(prediction, truth), prediction)


def test_colorize_takes_each_labels_own_color() -> None:
    labels = np.array([[0, 1], [2, 1]], np.uint8)
    assert colorize(labels, PALETTE).tolist() == [
        [[0, 0, 0], [200, 10, 10]],
        [[10, 200, 10], [200, 10, 10]],
    ]


def test_ignored_pixels_are_hatched_white_and_grey() -> None:
    drawn = colorize(np.full((16, 16), 255, np.uint8), PALETTE).reshape(-1, 3)
    shades = {tuple(pixel) for pixel in drawn.tolist()}
    assert shades == {(255, 255, 255), (168, 168, 168)}


def test_label_without_color_is_refused() -> None:
    with pytest.raises(ValueError, match="label 3 has none of 3 colours"):
        colorize(np.array([[0, 3, 255]], np.uint8), PALETTE)


def test_other_ignore_label() -> None:
    drawn = colorize(np.full((1, 1), 3, np.uint8), PALETTE, ignore_label=3)
    assert drawn.ravel().min() > 100


def test_overlay_mixes_labelled_pixels_and_keeps_ignored_ones() -> None:
    image = np.full((1, 2, 3), 100, np.uint8)
    before = image.copy()
    mixed = overlay(image, np.array([[1, 255]], np.uint8), PALETTE, alpha=0.5)
    assert mixed.tolist() == [[[150, 55, 55], [100, 100, 100]]]
    assert np.array_equal(image, before)
    with pytest.raises(ValueError, match="image is"):
        overlay(image, np.zeros((2, 2), np.uint8), PALETTE)


def test_legend_shows_every_color_beside_ink() -> None:
    drawn = legend(NAMES, PALETTE)
    assert drawn.dtype == np.uint8
    line = drawn.shape[0] // 3
    for number, color in enumerate(PALETTE):
        entry = drawn[number * line : (number + 1) * line]
        assert _has_color(entry[:, :18], color)
        assert entry[:, 24:].min() < 100, "no text beside the swatch"
    assert legend(NAMES, PALETTE, show_ignored=True).shape[0] == 4 * line
    assert legend([n[:3] for n in NAMES], PALETTE).shape[1] < drawn.shape[1]


def test_contact_sheet_places_photo_truth_and_prediction_in_order() -> None:
    rows = [_row(50, 40, 1, 2), _row(30, 90, 2, 1), _row(400, 300, 1, 0)]
    sheet = contact_sheet(rows, NAMES, PALETTE, cell_height=80)
    cell, top, left = (80, 64), 40, 16
    for number, row in enumerate(rows):
        assert row.truth is not None
        y = top + number * (80 + 6) + cell[0] // 2
        expected = [(90, 90, 90), PALETTE[row.truth[0, 0]], PALETTE[row.prediction[0, 0]]]
        for column, color in enumerate(expected):
            x = left + column * (cell[1] + 6) + cell[1] // 2
            assert tuple(sheet[y, x]) == color
    # The second row is letterboxed: paper above its wide picture.
    assert tuple(sheet[top + 86 + 4, left + 32]) == PAPER
    # Headers above each column, and the legend at the right.
    for column in range(3):
        x = left + column * (cell[1] + 6)
        assert sheet[16:34, x : x + cell[1]].min() < 100
    assert _has_color(sheet[:, left + 3 * 70 :], PALETTE[1])


def test_contact_sheet_without_truth() -> None:
    both = contact_sheet([_row(50, 40, 1, 2)], NAMES, PALETTE, cell_height=80)
    none = contact_sheet([_row(50, 40, 1, None)], NAMES, PALETTE, cell_height=80)
    some = contact_sheet([_row(50, 40, 1, None), _row(50, 40, 1, 2)], NAMES, PALETTE, 80)
    assert none.shape[1] == both.shape[1] - 70
    assert some.shape[1] == both.shape[1]
    cell = some[40:120, 16 + 70 : 16 + 70 + 64]
    assert tuple(cell[0, 0]) == PAPER and cell.min() < 100, "a note stands in for the truth"


def test_contact_sheet_of_truth_alone_lays_it_over_the_photo() -> None:
    both = contact_sheet([_row(50, 40, 1, 2)], NAMES, PALETTE, cell_height=80)
    row = SheetRow(np.full((50, 40, 3), 90, np.uint8), np.full((50, 40), 1, np.uint8), None)
    sheet = contact_sheet([row], NAMES, PALETTE, cell_height=80)
    assert sheet.shape[1] == both.shape[1]
    mixed = overlay(np.full((1, 1, 3), 90, np.uint8), np.array([[1]], np.uint8), PALETTE)[0, 0]
    centers = [tuple(sheet[80, 16 + column * 70 + 32]) for column in range(3)]
    assert centers == [(90, 90, 90), PALETTE[1], tuple(mixed)]
    # Beside a row that has a prediction, the missing one is a note.
    some = contact_sheet([row, _row(50, 40, 1, 2)], NAMES, PALETTE, cell_height=80)
    assert tuple(some[40, 16 + 2 * 70]) == PAPER and some[40:120, 156:220].min() < 100


def test_contact_sheet_of_photos_alone() -> None:
    both = contact_sheet([_row(50, 40, 1, 2)], NAMES, PALETTE, cell_height=80)
    row = SheetRow(np.full((50, 40, 3), 90, np.uint8), None, None)
    assert contact_sheet([row], NAMES, PALETTE, cell_height=80).shape[1] == both.shape[1] - 140


def test_extreme_photos_do_not_make_extreme_sheets() -> None:
    square = contact_sheet([_row(50, 50, 1, 2)], NAMES, PALETTE, cell_height=80).shape[1]
    for height, width, cell in ((1, 500, 160), (500, 1, 32)):
        sheet = contact_sheet([_row(height, width, 1, 2)], NAMES, PALETTE, cell_height=80)
        assert sheet.shape[1] - square == 3 * (cell - 80)


def test_contact_sheet_knows_other_ignore_labels() -> None:
    photo, truth = np.full((50, 40, 3), 90, np.uint8), np.full((50, 40), 9, np.uint8)
    rows = [SheetRow(photo, truth, None)]
    sheet = contact_sheet(rows, NAMES, PALETTE, cell_height=80, ignore_label=9)
    assert _has_color(sheet[40:120, 86:150], (168, 168, 168))
    assert tuple(sheet[80, 16 + 2 * 70 + 32]) == (90, 90, 90)


def test_contact_sheet_hatches_ignored_truth_and_explains_it() -> None:
    plain = contact_sheet([_row(50, 40, 1, 0)], NAMES * 4, PALETTE * 4, cell_height=80)
    ignored = contact_sheet([_row(50, 40, 1, 255)], NAMES * 4, PALETTE * 4, cell_height=80)
    assert ignored.shape[0] > plain.shape[0]
    assert _has_color(ignored[40:120, 86:150], (168, 168, 168))


def test_tiny_and_extreme_pictures_fit() -> None:
    rows = [_row(1, 1, 1, 0), _row(1, 500, 1, 0), _row(500, 1, 1, 0)]
    assert contact_sheet(rows, NAMES, PALETTE, cell_height=32).shape[0] > 3 * 32
    with pytest.raises(ValueError, match="at least one row"):
        contact_sheet([], NAMES, PALETTE)


def test_save_png_makes_folders_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    target = tmp_path / "a" / "b.png"
    save_png(target, image)
    assert np.array_equal(np.asarray(Image.open(target)), image)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_png(target, image[::-1])
    assert np.array_equal(np.asarray(Image.open(target)), image)
    assert [f.name for f in target.parent.iterdir()] == ["b.png"]
