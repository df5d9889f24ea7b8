from __future__ import annotations

import numpy as np
import pytest

from schnet.evaluation.boundary import BoundaryCounts


def _blobs(rng: np.random.Generator, shape: tuple[int, int], num_classes: int) -> np.ndarray:
    """Rectangles on a ground, with some single pixels."""
    labels = np.full(shape, rng.integers(num_classes), np.uint8)
    for _ in range(4):
        top, left = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        height, width = rng.integers(1, max(shape) // 2 + 2, 2)
        labels[top : top + height, left : left + width] = rng.integers(num_classes)
    specks = rng.random(shape) < 0.03
    labels[specks] = rng.integers(0, num_classes, specks.sum())
    return labels


def _boundary_pixels(labels: np.ndarray, hidden: np.ndarray) -> list[tuple[int, int]]:
    """By the definition, pixel by pixel."""
    height, width = labels.shape
    found = []
    for y in range(height):
        for x in range(width):
            for ny, nx in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= ny < height and 0 <= nx < width
                if not inside or hidden[y, x] or hidden[ny, nx]:
                    continue
                if labels[ny, nx] != labels[y, x]:
                    found.append((y, x))
                    break
    return found


def _brute_force(
    truth: np.ndarray, prediction: np.ndarray, num_classes: int, tolerance: float, ignore: int
) -> np.ndarray:
    """Every pair of boundary pixels, by their Euclidean distance."""
    hidden = truth == ignore
    maps = {"predicted": prediction, "true": truth}
    pixels = {name: _boundary_pixels(labels, hidden) for name, labels in maps.items()}
    counts = np.zeros((4, num_classes), np.int64)
    for row, own, other in ((0, "predicted", "true"), (2, "true", "predicted")):
        for y, x in pixels[own]:
            label = maps[own][y, x]
            counts[row, label] += 1
            counts[row + 1, label] += any(
                maps[other][v, u] == label and np.hypot(v - y, u - x) <= tolerance
                for v, u in pixels[other]
            )
    return counts


@pytest.mark.parametrize("tolerance", [0, 1, 2, 3])
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("shape", [(17, 13), (1, 1), (1, 9), (11, 1), (2, 2)])
def test_equals_all_pairs_of_pixels(shape: tuple[int, int], ignored: bool, tolerance: int) -> None:
    rng = np.random.default_rng([*shape, tolerance])
    counts = BoundaryCounts(5, tolerance, ignore_label=9)
    expected = np.zeros((4, 5), np.int64)
    # Several sizes through one object: its working arrays must not carry anything over.
    for size in (shape, (9, 8), shape):
        truth, prediction = _blobs(rng, size, 5), _blobs(rng, size, 5)
        mostly = rng.random(size) < 0.8
        prediction[mostly] = truth[mostly]
        if ignored:
            truth[rng.random(size) < 0.15] = 9
            truth[: size[0] // 3, : size[1] // 2] = 9
        counts.update(truth, prediction)
        expected += _brute_force(truth, prediction, 5, tolerance, 9)
    assert np.array_equal(counts.counts, expected)
    assert counts.counts.dtype == np.int64


def test_hand_computed_scores() -> None:
    # One row: true border between columns 3 and 4, predicted between 6 and 7, three to the right.
    truth = np.array([[0] * 4 + [1] * 8], np.uint8)
    prediction = np.array([[0] * 7 + [1] * 5], np.uint8)
    far, near = BoundaryCounts(2, tolerance=2), BoundaryCounts(2, tolerance=3)
    for counts in (far, near):
        counts.update(truth, prediction)
    assert far.metrics().f_score.tolist() == [0, 0]
    assert near.metrics().f_score.tolist() == [1, 1]
    # A second image in which half of class 0's predicted boundary is wrong.
    truth = np.array([[0, 1, 1, 1, 1, 1, 1, 1, 1]], np.uint8)
    prediction = np.array([[0, 1, 1, 1, 1, 1, 1, 1, 0]], np.uint8)
    near.update(truth, prediction)
    metrics = near.metrics()
    assert metrics.precision.tolist() == pytest.approx([2 / 3, 2 / 3])
    assert metrics.recall.tolist() == pytest.approx([1, 1])
    assert metrics.f_score.tolist() == pytest.approx([4 / 5, 4 / 5])
    assert metrics.mean_f_score == pytest.approx(4 / 5)


def test_the_distance_is_euclidean() -> None:
    # Single pixels of class 1, two columns apart, or two columns and one row.
    truth, straight, slanted = (np.zeros((9, 9), np.uint8) for _ in range(3))
    truth[4, 4] = straight[4, 6] = slanted[5, 6] = 1
    for prediction, found in ((straight, 1), (slanted, 0)):
        counts = BoundaryCounts(2, tolerance=2)
        counts.update(truth, prediction)
        assert counts.counts[:, 1].tolist() == [1, found, 1, found]


def test_absent_classes_are_left_out_and_one_sided_ones_count_zero() -> None:
    truth = np.array([[0, 0, 0, 0, 0, 0, 0, 1]], np.uint8)
    prediction = np.array([[0, 2, 0, 0, 0, 0, 0, 0]], np.uint8)
    counts = BoundaryCounts(4)
    counts.update(truth, prediction)
    metrics = counts.metrics()
    assert np.isnan(metrics.f_score).tolist() == [False, False, False, True]
    assert metrics.f_score[:3].tolist() == [0, 0, 0]
    assert np.isnan(metrics.precision).tolist() == [False, True, False, True]
    assert np.isnan(metrics.recall).tolist() == [False, False, True, True]
    assert metrics.mean_f_score == 0


def test_flat_maps_have_no_boundary() -> None:
    counts = BoundaryCounts(2)
    counts.update(np.zeros((5, 4), np.uint8), np.ones((5, 4), np.uint8))
    counts.update(np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8))
    assert not counts.counts.any()
    assert np.isnan(counts.metrics().mean_f_score)


def test_highest_class_is_told_from_no_boundary() -> None:
    labels = np.array([[254, 0]], np.uint8)
    counts = BoundaryCounts(255)
    counts.update(labels, labels)
    assert counts.counts[:, 254].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), "truth is"),
        (np.zeros(4, np.uint8), np.zeros(4, np.uint8), "truth is"),
        (np.array([[0, 3]], np.uint8), np.array([[0, 1]], np.uint8), "label 3"),
        (np.array([[0, 1]], np.uint8), np.array([[0, 3]], np.uint8), "label 3"),
    ],
)
def test_impossible_input_is_refused_and_not_counted(
    truth: np.ndarray, prediction: np.ndarray, message: str
) -> None:
    counts = BoundaryCounts(2)
    with pytest.raises(ValueError, match=message):
        counts.update(truth, prediction)
    assert not counts.counts.any()
    with pytest.raises(ValueError, match="tolerance"):
        BoundaryCounts(2, tolerance=-1)
