from __future__ import annotations

import numpy as np
import pytest

from schnet.evaluation.confusion import ConfusionMatrix


def _labels(*values: int) -> np.ndarray:
    return np.array([values], dtype=np.uint8)


def test_rows_are_truth_and_columns_prediction() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(_labels(0, 0, 1, 2), _labels(0, 2, 1, 1))
    assert matrix.counts.tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 0]]
    assert matrix.counts.dtype == np.int64


def test_hand_computed_metrics() -> None:
    matrix = ConfusionMatrix(2)
    # Truth: 6 of class 0 (4 right), 2 of class 1 (1 right).
    matrix.update(_labels(0, 0, 0, 0, 0, 0, 1, 1), _labels(0, 0, 0, 0, 1, 1, 1, 0))
    metrics = matrix.metrics()
    assert metrics.iou == pytest.approx([4 / 7, 1 / 4])
    assert metrics.precision == pytest.approx([4 / 5, 1 / 3])
    assert metrics.recall == pytest.approx([4 / 6, 1 / 2])
    assert metrics.mean_iou == pytest.approx((4 / 7 + 1 / 4) / 2)
    assert metrics.pixel_accuracy == pytest.approx(5 / 8)
    assert metrics.mean_accuracy == pytest.approx((4 / 6 + 1 / 2) / 2)
    assert metrics.mean_precision == pytest.approx((4 / 5 + 1 / 3) / 2)
    assert metrics.frequency_weighted_iou == pytest.approx(6 / 8 * 4 / 7 + 2 / 8 / 4)
    assert metrics.truth_share == pytest.approx([6 / 8, 2 / 8])


def test_class_in_neither_is_left_out_and_only_predicted_class_counts_zero() -> None:
    matrix = ConfusionMatrix(4)
    # 2 is predicted only, 3 is nowhere.
    matrix.update(_labels(0, 0, 1, 1), _labels(0, 0, 1, 2))
    metrics = matrix.metrics()
    assert metrics.iou[2] == 0
    assert np.isnan(metrics.iou[3])
    assert metrics.mean_iou == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert np.isnan(metrics.recall[2:]).all()
    assert metrics.mean_accuracy == pytest.approx((1 + 1 / 2) / 2)
    assert metrics.precision.tolist()[:3] == [1, 1, 0]
    assert np.isnan(metrics.precision[3])
    assert metrics.mean_precision == pytest.approx((1 + 1 + 0) / 3)


def test_missed_class_counts_zero_in_both_means() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(_labels(0, 1), _labels(0, 0))
    metrics = matrix.metrics()
    assert metrics.mean_iou == pytest.approx((1 / 2 + 0) / 2)
    assert metrics.mean_accuracy == pytest.approx((1 + 0) / 2)
    # Never predicted: its precision is undefined.
    assert metrics.mean_precision == pytest.approx(1 / 2)


def test_ignored_pixels_count_nowhere() -> None:
    matrix = ConfusionMatrix(2, ignore_label=255)
    matrix.update(_labels(0, 255, 255, 1), _labels(0, 0, 1, 1))
    assert matrix.counts.tolist() == [[1, 0], [0, 1]]
    assert matrix.metrics().mean_iou == 1


def test_updates_add_up_and_wide_dtypes_are_accepted() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(_labels(0, 1).astype(np.int64), _labels(0, 1).astype(np.int32))
    matrix.update(_labels(1), _labels(1))
    assert matrix.counts.tolist() == [[1, 0], [0, 2]]


@pytest.mark.parametrize("num_classes", [1, 20, 59, 255])
@pytest.mark.parametrize("repeats", [1, 5])
def test_equals_a_plain_loop(num_classes: int, repeats: int) -> None:
    rng = np.random.default_rng(num_classes)
    matrix = ConfusionMatrix(num_classes)
    expected = np.zeros((num_classes, num_classes), dtype=np.int64)
    # Runs of labels that go on in the next row, and images of several sizes in turn.
    for shape in ((13, 7), (1, 1), (3, 2), (13, 7), (20, 9)):
        truth, prediction = (
            rng.integers(0, num_classes, shape).astype(np.uint8).repeat(repeats, axis=1)
            for _ in range(2)
        )
        truth[rng.random(truth.shape) < 0.2] = 255
        matrix.update(truth, prediction)
        for true, predicted in zip(truth.ravel(), prediction.ravel(), strict=True):
            if true != 255:
                expected[true, predicted] += 1
    assert np.array_equal(matrix.counts, expected)


def test_views_are_counted_as_they_are_seen() -> None:
    rng = np.random.default_rng(0)
    truth, prediction = (rng.integers(0, 4, (9, 8)).astype(np.uint8) for _ in range(2))
    matrix, copied = ConfusionMatrix(4), ConfusionMatrix(4)
    matrix.update(truth.T[::2], prediction[:, ::2].T)
    copied.update(truth.T[::2].copy(), prediction[:, ::2].T.copy())
    assert np.array_equal(matrix.counts, copied.counts)


def test_more_pixels_than_single_precision_can_count() -> None:
    # 2^24 + 1 is the first integer that float32 does not hold.
    truth = np.zeros(2**24 + 3, np.uint8)
    prediction = truth.copy()
    prediction[5] = prediction[-1] = 1
    matrix = ConfusionMatrix(2)
    for _ in range(2):
        matrix.update(truth, prediction)
    assert matrix.counts.tolist() == [[2 * (2**24 + 1), 4], [0, 0]]


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (_labels(0, 7), _labels(0, 1), r"true labels \[7\]"),
        (_labels(0, 1), _labels(0, 2), "predicted label 2"),
        (_labels(0, 1), _labels(0, 255), "predicted label 255"),
        (_labels(0, 1), _labels(0), "truth is"),
        (_labels(0, 1).astype(np.int16) - 1, _labels(0, 0), "truth has labels -1"),
        (_labels(0, 1), _labels(0, 1).astype(np.int64) + 256, "outside 0..255"),
    ],
)
def test_impossible_labels_are_refused_and_not_counted(
    truth: np.ndarray, prediction: np.ndarray, message: str
) -> None:
    matrix = ConfusionMatrix(2)
    with pytest.raises(ValueError, match=message):
        matrix.update(truth, prediction)
    assert not matrix.counts.any()


def test_nothing_counted_gives_nan_everywhere() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(_labels(255, 255), _labels(0, 1))
    matrix.update(np.zeros((0, 3), np.uint8), np.zeros((0, 3), np.uint8))
    metrics = matrix.metrics()
    means = (metrics.mean_iou, metrics.pixel_accuracy, metrics.mean_accuracy)
    assert np.isnan((*means, metrics.mean_precision, metrics.frequency_weighted_iou)).all()


@pytest.mark.parametrize(
    ("num_classes", "ignore_label"), [(0, 255), (256, 255), (20, 19), (2, 256)]
)
def test_impossible_sizes_are_refused(num_classes: int, ignore_label: int) -> None:
    with pytest.raises(ValueError, match="must be in"):
        ConfusionMatrix(num_classes, ignore_label)
