from __future__ import annotations

import numpy as np
import pytest

from schnet.evaluation.average_precision import average_precision, mean_defined


def _ap(scores: list[float], hits: list[int], positives: int) -> float:
    return float(average_precision(np.array(scores), np.array(hits, bool)[:, None], positives)[0])


def test_precision_is_the_best_at_that_recall_or_beyond() -> None:
    # Precisions 1, 1/2, 2/3, 3/4: the second and third hits both stand at 3/4.
    assert _ap([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 1], 4) == pytest.approx((1 + 3 / 4 + 3 / 4) / 4)


def test_predictions_are_ranked_by_score() -> None:
    assert _ap([0.1, 0.9], [1, 0], 1) == 0.5
    assert _ap([0.9, 0.1], [1, 0], 1) == 1.0


def test_equal_scores_stay_in_order() -> None:
    # Long enough for an unstable sort to show.
    hits = [1, *[0] * 40]
    assert _ap([0.5] * 41, hits, 1) == 1.0
    assert _ap([0.5] * 41, hits[::-1], 1) == pytest.approx(1 / 41)


def test_perfect_ranking_is_one_to_the_bit() -> None:
    assert _ap([0.3] * 7, [1] * 7, 7) == 1.0


def test_nothing_predicted_is_zero_and_nothing_to_find_undefined() -> None:
    assert _ap([], [], 3) == 0.0
    assert _ap([0.5], [0], 3) == 0.0
    assert np.isnan(_ap([0.5], [0], 0))


def test_thresholds_are_independent() -> None:
    hits = np.array([[True, False], [True, True]])
    assert average_precision(np.array([0.9, 0.8]), hits, 2).tolist() == [1.0, 0.25]


def test_ground_truth_hit_twice_lifts_recall_beyond_one() -> None:
    assert _ap([0.9, 0.8], [1, 1], 1) == 2.0


def test_mean_leaves_undefined_values_out() -> None:
    values = np.array([[1.0, np.nan], [np.nan, np.nan], [0.5, np.nan]])
    means = mean_defined(values)
    assert means[0] == 0.75 and np.isnan(means[1])
    assert float(mean_defined(np.array([0.5, np.nan]))) == 0.5
