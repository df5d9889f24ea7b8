"""Image and label map stay aligned, through files and decoders, to a fraction of a pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_helpers import COLOR_STEP, color_of, save_image
from mapper_helpers import exif_of_orientation, make_dict, make_mapper

from schnet.data.geometry import Geometry, TurnedCrop
from schnet.data.mapper import DatasetDict
from schnet.data.reading import UInt8Array


def discs(size: tuple[int, int], radius: int) -> UInt8Array:
    """Discs of label 19 on label 0: their outlines cross the pixel grid at every phase."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]] % (3 * radius) - 1.5 * radius
    return np.where(rows**2 + columns**2 < radius**2, 19, 0).astype(np.uint8)


def centre(weights: np.ndarray) -> np.ndarray:
    """Centre of mass, (row, column) in pixels."""
    grid = np.stack(np.indices(weights.shape)).reshape(2, -1)
    return grid @ weights.ravel() / weights.sum()


def shift_of_colors(mapped: DatasetDict, drawn: Geometry) -> np.ndarray:
    """How far the colours lie from the labels that they stand for, in the upright picture."""
    sem_seg = mapped["sem_seg"].numpy()
    seen = np.where(sem_seg == 255, 0, mapped["image"][0].numpy().astype(float))
    said = np.where(sem_seg == 255, 0, sem_seg).astype(float)
    assert seen.sum() / COLOR_STEP == pytest.approx(said.sum(), rel=0.03)
    down, right = (centre(seen) - centre(said)) * (1, -1 if drawn.mirror else 1)
    turn = np.radians(drawn.angle) if isinstance(drawn, TurnedCrop) else 0.0
    upright = (right - 1j * down) * np.exp(-1j * turn)
    return np.array([-upright.imag, upright.real])


@pytest.mark.parametrize("ending", [".png", ".jpg", "turned.jpg"])
@pytest.mark.parametrize(("sigma", "letterbox"), [(0.0, False), (30.0, False), (30.0, True)])
@pytest.mark.parametrize(
    ("stored", "size", "scale_range", "reductions"),
    [
        ((193, 191), (96, 96), (1.1, 3.0), {1}),
        ((401, 303), (96, 96), (0.9, 1.6), {2, 4}),
        ((401, 303), (112, 80), (0.8, 1.2), {2, 4}),
        ((403, 605), (64, 64), (0.7, 0.9), {8}),
    ],
)
def test_label_and_colour_stay_aligned(
    tmp_path: Path,
    ending: str,
    sigma: float,
    letterbox: bool,
    stored: tuple[int, int],
    size: tuple[int, int],
    scale_range: tuple[float, float],
    reductions: set[int],
) -> None:
    labels = discs(stored, max(stored) // 8)
    entry = make_dict(tmp_path, labels, ending=ending)
    if ending == "turned.jpg":
        turned = np.rot90(color_of(labels))
        save_image(Path(entry["file_name"]), turned, exif=exif_of_orientation(6))
    mapper = make_mapper(size, scale_range, 0.5, sigma=sigma, letterbox=letterbox)
    shifts = []
    for seed in range(8):
        drawn = mapper.crop.draw(stored, np.random.default_rng(seed))
        assert drawn.reduction in reductions and isinstance(drawn, TurnedCrop) is (sigma > 0)
        mapped = mapper(entry, np.random.default_rng(seed))
        shifts.append(shift_of_colors(mapped, drawn))
    # A shift by half a pixel, which is what resizing with other conventions does, is five times
    # as much.
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.1
    assert np.abs(shifts).max() < 0.3
