from __future__ import annotations

import numpy as np
import pytest
from instance_helpers import part_map, person_map

from schnet.evaluation.instance_maps import PersonMap
from schnet.evaluation.instance_metrics import (
    THRESHOLDS,
    joint_counts,
    match_parts,
    match_persons,
    person_ious,
)

HALF = THRESHOLDS.index(0.5)


def test_iou_of_parts_by_hand() -> None:
    truth = part_map([[1, 1, 1, 0, 0, 4]], [2, 3])
    prediction = part_map([[0, 1, 1, 1, 0, 2]], [2, 3])
    assert match_parts(truth, prediction).tolist() == [2 / 4, 1.0]


def test_parts_match_within_their_class_only() -> None:
    truth, prediction = part_map([[1, 1]], [2]), part_map([[1, 1]], [3])
    assert match_parts(truth, prediction).tolist() == [0.0]


def test_two_predictions_may_hit_one_part_and_each_takes_its_best() -> None:
    truth = part_map([[1, 1, 1, 1, 1, 2, 2]], [4, 4])
    prediction = part_map([[1, 1, 1, 2, 2, 2, 2]], [4, 4])
    # The second: 2 of 7 pixels with the first part, 2 of 4 with the other one.
    assert match_parts(truth, prediction).tolist() == [3 / 5, 2 / 4]
    alone = part_map([[1, 1, 1, 1, 1, 0, 0]], [4])
    assert match_parts(alone, prediction).tolist() == [3 / 5, 2 / 7]


def test_pixels_of_unlisted_true_ids_belong_to_nothing() -> None:
    truth = part_map([[9, 9, 0, 0]], [2])
    unlisted = truth.__class__(truth.pixels, truth.ids[:0], truth.classes[:0], truth.scores[:0])
    assert match_parts(unlisted, part_map([[1, 1, 0, 0]], [2])).tolist() == [0.0]


def test_nothing_predicted_matches_nothing() -> None:
    assert match_parts(part_map([[1]], [2]), part_map([[0]], [])).size == 0


def test_joint_counts_of_sparse_ids() -> None:
    rows, columns, counts = joint_counts(np.array([[0, 300, 300]]), np.array([[5, 5, 9]]))
    assert rows.tolist() == [0, 300] and columns.tolist() == [5, 9]
    assert counts.tolist() == [[1, 0], [1, 1]]


def test_iou_of_persons_is_the_mean_over_classes_with_background() -> None:
    truth = person_map([[1, 1, 2, 0, 0, 0]], [[1, 1, 1, 0, 0, 0]])
    prediction = person_map([[1, 1, 3, 3, 0, 0]], [[1, 1, 1, 1, 1, 0]])
    iou, parts = person_ious(truth, prediction, num_classes=5)
    assert parts.tolist() == [2]
    # Background: two of the three pixels that either calls so. Class 4 is in neither map.
    np.testing.assert_array_equal(iou[0, 0], [2 / 3, 1.0, 0.0, 0.0, np.nan])
    hits = match_persons(truth, prediction, num_classes=5).hits[0]
    mean = (2 / 3 + 1) / 4
    assert hits.tolist() == [mean > threshold for threshold in THRESHOLDS]


def test_other_peoples_pixels_are_background_to_a_person() -> None:
    labels = [[1, 1, 1, 1]]
    iou, _ = person_ious(person_map(labels, [[1, 1, 2, 2]]), person_map(labels, [[2, 2, 1, 1]]), 2)
    assert iou[0, 1].tolist() == [1.0, 1.0] and iou[1, 0].tolist() == [1.0, 1.0]
    assert iou[0, 0].tolist() == [0.0, 0.0]


def test_a_threshold_must_be_exceeded() -> None:
    truth = person_map([[1, 1, 0, 0, 0, 0, 0]], [[1, 1, 0, 0, 0, 0, 0]])
    prediction = person_map([[0, 1, 1, 0, 0, 0, 0]], [[0, 1, 1, 0, 0, 0, 0]])
    # The mean of 1/3 (the class) and 4/6 (background) is 0.5.
    assert match_persons(truth, prediction, 2).hits[0].tolist() == [True] * HALF + [False] * 5


def test_a_true_person_is_used_up_by_the_better_score() -> None:
    truth = person_map([[1, 1, 1, 1, 0, 0, 0, 0]], [[1, 1, 1, 1, 0, 0, 0, 0]])
    labels, persons = [[1, 1, 1, 1, 0, 0, 0, 0]], [[1, 1, 2, 2, 0, 0, 0, 0]]
    first = match_persons(truth, person_map(labels, persons, [0.9, 0.8]), 2).hits
    second = match_persons(truth, person_map(labels, persons, [0.8, 0.9]), 2).hits
    # Each has IoU (1/2 + 4/6) / 2 = 0.583 with the one true person.
    assert first[:, HALF].tolist() == [True, False]
    assert second[:, HALF].tolist() == [False, True]


def test_equal_scores_go_by_id() -> None:
    truth = person_map([[1, 1, 0, 0]], [[1, 1, 0, 0]])
    tied = person_map([[1, 1, 0, 0]], [[1, 2, 0, 0]], [0.5, 0.5])
    assert match_persons(truth, tied, 2).hits[:, 0].tolist() == [True, False]


def test_a_persons_second_best_match_is_not_tried() -> None:
    # Both predictions are nearest to the first true person; the second one, left over, has
    # (1/4 + 4/7) / 2 with it: enough at 0.1, were it tried.
    truth = person_map([[1] * 6 + [0] * 2], [[1] * 4 + [2] * 2 + [0] * 2])
    prediction = person_map([[1] * 6 + [0] * 2], [[1, 1, 2, 2, 2, 0, 0, 0]], [0.9, 0.8])
    iou, _ = person_ious(truth, prediction, 2)
    mean = iou.mean(axis=2)
    assert mean[0, 1] > mean[1, 1] > 0.1
    assert match_persons(truth, prediction, 2).hits[:, 0].tolist() == [True, False]


def test_a_threshold_that_a_better_person_fails_leaves_the_truth_free() -> None:
    truth = person_map([[1] * 4 + [0] * 6], [[1] * 4 + [0] * 6])
    labels, persons = [[1] * 4 + [0] * 6], [[1, 2, 2, 2] + [0] * 6]
    hits = match_persons(truth, person_map(labels, persons, [0.9, 0.8]), 2).hits
    # 0.9 has (1/4 + 6/9) / 2 = 0.458, 0.8 has (3/4 + 6/7) / 2 = 0.804.
    assert hits[:, HALF].tolist() == [False, True]
    assert hits[:, HALF - 1].tolist() == [True, False]


def test_pcp_counts_right_parts_over_the_true_persons_parts() -> None:
    labels = [[1, 1, 1, 1, 2, 2, 0, 0, 0, 0]]
    truth = person_map(labels, [[1] * 6 + [0] * 4])
    # Class 1 is right, of class 2 just half is found, class 3 is not the person's.
    prediction = person_map([[1, 1, 1, 1, 2, 0, 0, 0, 0, 3]], [[1] * 5 + [0] * 4 + [1]])
    match = match_persons(truth, prediction, 4)
    # Mean of 3/5 (background), 1, 1/2 and 0.
    assert match.hits[0].tolist() == [True] * 5 + [False] * 4
    assert match.parts_found.tolist() == [1.0] * 4 + [0.5] + [0.0] * 4


def test_pcp_of_a_person_found_twice_counts_once() -> None:
    truth = person_map([[1, 1, 0, 0]], [[1, 1, 0, 0]])
    twice = person_map([[1, 1, 0, 0]], [[1, 2, 0, 0]])
    assert match_persons(truth, twice, 2).parts_found[0] == 1.0


def test_true_persons_without_parts_are_persons() -> None:
    truth = person_map([[0, 0, 1]], [[1, 1, 2]])
    match = match_persons(truth, person_map([[0, 0, 1]], [[1, 1, 2]]), 2)
    assert match.hits.all()
    assert match.parts_found.tolist() == [1.0] * 9


def test_images_without_persons() -> None:
    nobody, somebody = person_map([[1]], [[0]]), person_map([[1]], [[1]])
    assert match_persons(nobody, somebody, 2).hits.tolist() == [[False] * 9]
    assert match_persons(somebody, nobody, 2).hits.shape == (0, 9)


def test_ignored_pixels_do_not_count_for_their_person_alone() -> None:
    truth = person_map([[1, 255, 1, 0]], [[1, 1, 2, 0]])
    prediction = person_map([[1, 1, 1, 0]], [[1, 1, 2, 0]])
    iou, _ = person_ious(truth, prediction, 2)
    assert iou[0, 0].tolist() == [1.0, 1.0]
    # To the second true person the pixel is background like all of the first.
    assert iou[1, 0].tolist() == [1 / 4, 0.0]


def test_a_person_of_ignored_pixels_only_matches_nothing() -> None:
    truth = person_map([[255, 255]], [[1, 1]])
    with np.errstate(all="raise"):
        assert not match_persons(truth, person_map([[1, 1]], [[1, 1]]), 2).hits.any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_ids_of_any_width(dtype: type) -> None:
    person = person_map([[1, 1, 0]], [[1, 1, 0]])
    wide = PersonMap(person.labels, person.pixels.astype(dtype), person.ids, person.scores)
    assert match_persons(wide, wide, 2).hits.all()
