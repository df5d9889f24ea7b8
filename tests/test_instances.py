from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from instance_helpers import (
    nudged,
    person_map,
    random_persons,
    save_png,
    write_prediction,
    write_truth,
)
from instance_reference import THRESHOLDS as REFERENCE_THRESHOLDS
from instance_reference import reference_part_ap, reference_persons

from schnet.errors import InputError
from schnet.evaluation.instance_folders import find_prediction, find_truth, pair_images
from schnet.evaluation.instance_maps import PersonMap
from schnet.evaluation.instance_metrics import THRESHOLDS
from schnet.evaluation.instances import InstanceResults, evaluate_instances

CLASSES = 6
HALF = THRESHOLDS.index(0.5)
Pair = tuple[PersonMap, PersonMap]


@pytest.fixture
def evaluate(tmp_path: Path) -> Callable[..., InstanceResults]:
    """Write images as files, 0.png and so on, and evaluate them."""

    def run(pairs: list[Pair], jobs: int = 1, from_maps: bool = False) -> InstanceResults:
        for index, (truth, prediction) in enumerate(pairs):
            write_truth(tmp_path / "gt", f"{index:03d}", truth, CLASSES)
            write_prediction(tmp_path / "pred", f"{index:03d}", prediction, CLASSES)
        truths = find_truth(tmp_path / "gt", from_maps)
        tasks = pair_images(truths, find_prediction(tmp_path / "pred"))
        return evaluate_instances(tasks, CLASSES, jobs=jobs)

    return run


def random_pairs(number: int, seed: int = 0) -> list[Pair]:
    """Images of several sizes; the last but one has no true person, the last no predicted one."""
    rng = np.random.default_rng(seed)
    pairs = []
    for index in range(number):
        size = (21 + index % 3, 32 - index % 2)
        # No image has the last class, which is predicted all the same.
        truth = random_persons(rng, size, CLASSES - 1, ignored=index % 2 == 0)
        pairs.append((truth, nudged(rng, truth, CLASSES)))
    truth, prediction = pairs[0]
    nobody = person_map(truth.labels % CLASSES, truth.pixels * 0)
    return [*pairs, (nobody, prediction), (truth, nobody)]


def as_lists(results: InstanceResults) -> list[list[float]]:
    assert results.person_ap is not None and results.pcp is not None
    return [results.part_ap.tolist(), results.person_ap.tolist(), results.pcp.tolist()]


def test_perfect_prediction_is_one_everywhere(evaluate: Callable[..., InstanceResults]) -> None:
    rng = np.random.default_rng(1)
    truths = [random_persons(rng, (12, 16), CLASSES) for _ in range(5)]
    # A person without parts would count 0 in PCP.
    truths = [replace(truth, labels=np.maximum(truth.labels, 1)) for truth in truths]
    results = evaluate([(truth, truth) for truth in truths])
    assert np.nanmin(results.part_ap) == 1.0 == results.mean_part_ap.min()
    assert results.person_ap is not None and results.person_ap.tolist() == [1.0] * 9
    assert results.pcp is not None and results.pcp.tolist() == [1.0] * 9


@pytest.mark.parametrize("seed", range(4))
def test_numbers_are_those_of_one_mask_at_a_time(
    evaluate: Callable[..., InstanceResults], seed: int
) -> None:
    pairs = random_pairs(6, seed)
    results = evaluate(pairs)
    assert results.person_ap is not None and results.pcp is not None
    for index, threshold in enumerate(REFERENCE_THRESHOLDS):
        expected = [reference_part_ap(pairs, value, threshold) for value in range(1, CLASSES)]
        np.testing.assert_allclose(results.part_ap[1:, index], expected, atol=1e-12)
        persons = reference_persons(pairs, CLASSES, threshold)
        found = (results.person_ap[index], results.pcp[index])
        np.testing.assert_allclose(found, persons, atol=1e-12)
    # The images must tell thresholds apart for this to say anything.
    assert len(set(results.person_ap.tolist())) > 4 and len(set(results.mean_part_ap)) > 4


def test_number_of_processes_changes_no_bit(evaluate: Callable[..., InstanceResults]) -> None:
    pairs = random_pairs(15)
    one, two = evaluate(pairs), evaluate(pairs, jobs=2)
    assert str(as_lists(one)) == str(as_lists(two))
    assert one.true_parts.tolist() == two.true_parts.tolist()


def test_instances_of_classes_and_persons_are_the_listed_ones(
    evaluate: Callable[..., InstanceResults], tmp_path: Path
) -> None:
    pairs = random_pairs(5)
    listed = evaluate(pairs)
    assert str(as_lists(evaluate(pairs, from_maps=True))) == str(as_lists(listed))
    for path in (tmp_path / "gt" / "Instance_ids").glob("*.txt"):
        path.unlink()
    assert str(as_lists(evaluate_folders(tmp_path))) == str(as_lists(listed))


def evaluate_folders(folder: Path) -> InstanceResults:
    truth, prediction = find_truth(folder / "gt"), find_prediction(folder / "pred")
    return evaluate_instances(pair_images(truth, prediction), CLASSES)


def test_parts_of_classes_and_persons_have_their_persons_score(
    evaluate: Callable[..., InstanceResults], tmp_path: Path
) -> None:
    pairs = random_pairs(5)
    listed = evaluate(pairs)
    (tmp_path / "pred" / "instance_parsing").rename(tmp_path / "elsewhere")
    assert str(as_lists(evaluate_folders(tmp_path))) == str(as_lists(listed))


def test_ties_of_scores_go_by_image_name(evaluate: Callable[..., InstanceResults]) -> None:
    right = person_map([[1, 0]], [[1, 0]], [0.5])
    wrong = person_map([[0, 1]], [[0, 1]], [0.5])
    first = evaluate([(right, right), (right, wrong)])
    second = evaluate([(right, wrong), (right, right)])
    assert first.part_ap[1, HALF] == 0.5 and second.part_ap[1, HALF] == 0.25
    assert first.person_ap is not None and first.person_ap[HALF] == 0.5
    assert second.person_ap is not None and second.person_ap[HALF] == 0.25


def test_class_without_ground_truth_is_left_out_of_the_mean(
    evaluate: Callable[..., InstanceResults],
) -> None:
    truth = person_map([[1, 2, 0, 0]], [[1, 1, 0, 0]])
    # Class 2 is missed, class 3 is invented.
    results = evaluate([(truth, person_map([[1, 3, 0, 0]], [[1, 1, 0, 0]]))])
    assert results.part_ap[1:4, HALF].tolist()[:2] == [1.0, 0.0]
    assert np.isnan(results.part_ap[[0, 3, 4, 5], HALF]).all()
    assert results.mean_part_ap[HALF] == 0.5
    assert results.predicted_parts.tolist() == [0, 1, 0, 1, 0, 0]


def test_two_hits_on_one_part_count_twice_below_a_half(
    evaluate: Callable[..., InstanceResults],
) -> None:
    truth = person_map([[1, 1, 1, 1]], [[1, 1, 1, 1]])
    halves = person_map([[1, 1, 1, 1]], [[1, 1, 2, 2]])
    results = evaluate([(truth, halves)])
    # IoU 1/2 each: both are right below 0.5, as in the official script, and neither is at 0.5.
    assert results.part_ap[1].tolist() == [2.0] * 4 + [0.0] * 5
    # Person IoU is 1/4 each (no background in truth), and the second finds its truth taken.
    assert results.person_ap is not None
    assert results.person_ap.tolist() == [1.0, 1.0, *[0.0] * 7]


def test_predictions_on_an_image_without_persons_are_wrong(
    evaluate: Callable[..., InstanceResults],
) -> None:
    person = person_map([[1, 0]], [[1, 0]], [0.5])
    nobody = person_map([[0, 0]], [[0, 0]])
    sure = person_map([[1, 0]], [[1, 0]], [0.9])
    results = evaluate([(person, person), (nobody, sure)])
    assert results.part_ap[1, HALF] == 0.5
    assert results.person_ap is not None and results.person_ap[HALF] == 0.5
    assert results.pcp is not None and results.pcp[HALF] == 1.0


def test_nothing_predicted_is_zero(evaluate: Callable[..., InstanceResults]) -> None:
    truth, nothing = person_map([[1, 0]], [[1, 0]]), person_map([[0, 0]], [[0, 0]])
    results = evaluate([(truth, nothing)])
    assert results.mean_part_ap.tolist() == [0.0] * 9
    assert results.person_ap is not None and results.person_ap.tolist() == [0.0] * 9
    assert results.pcp is not None and results.pcp.tolist() == [0.0] * 9


def test_unmatched_true_persons_count_zero_in_pcp(
    evaluate: Callable[..., InstanceResults],
) -> None:
    truth = person_map([[1, 1, 2, 2]], [[1, 1, 2, 2]])
    results = evaluate([(truth, person_map([[1, 1, 0, 0]], [[1, 1, 0, 0]]))])
    assert results.pcp is not None and results.pcp[HALF] == 0.5


def test_persons_are_not_evaluated_without_their_maps(
    evaluate: Callable[..., InstanceResults], tmp_path: Path
) -> None:
    pairs = random_pairs(3)
    both = evaluate(pairs)
    (tmp_path / "pred" / "instance_segmentation").rename(tmp_path / "persons")
    parts = evaluate_folders(tmp_path)
    assert parts.person_ap is None and parts.pcp is None
    assert str(parts.part_ap) == str(both.part_ap)
    (tmp_path / "persons").rename(tmp_path / "pred" / "instance_segmentation")
    (tmp_path / "gt" / "Category_ids").rename(tmp_path / "gt" / "Categories")
    assert evaluate_folders(tmp_path).pcp is None


def test_truth_without_any_instance_is_refused(evaluate: Callable[..., InstanceResults]) -> None:
    nobody = person_map([[1, 1]], [[0, 0]])
    with pytest.raises(InputError, match="ground truth of 1 images holds no part instance"):
        evaluate([(nobody, nobody)])


@pytest.mark.parametrize(
    ("damaged", "first", "second"),
    [
        ("pred/instance_parsing", "pred/instance_parsing", "pred/instance_segmentation"),
        ("pred/instance_segmentation", "pred/instance_segmentation", "pred/instance_parsing"),
        ("gt/Instance_ids", "gt/Human_ids", "gt/Instance_ids"),
        ("gt/Human_ids", "gt/Human_ids", "gt/Category_ids"),
    ],
)
def test_maps_of_other_sizes_are_refused(
    evaluate: Callable[..., InstanceResults],
    tmp_path: Path,
    damaged: str,
    first: str,
    second: str,
) -> None:
    truth = person_map([[1, 1, 1]], [[1, 1, 1]])
    evaluate([(truth, truth)])
    save_png(tmp_path / damaged / "000.png", np.ones((3, 1), np.uint8))
    with pytest.raises(InputError, match="original size") as error:
        evaluate_folders(tmp_path)
    assert str(tmp_path / first / "000.png") in str(error.value)
    assert str(tmp_path / second / "000.png") in str(error.value)
    assert "1x3" in str(error.value) and "3x1" in str(error.value)


def test_prediction_of_another_size_than_its_truth_is_refused(
    evaluate: Callable[..., InstanceResults],
) -> None:
    with pytest.raises(InputError, match="2x1 pixels .* is 3x1"):
        evaluate([(person_map([[1, 1, 1]], [[1, 1, 1]]), person_map([[1, 1]], [[1, 1]]))])


@pytest.mark.parametrize("jobs", [1, 2])
def test_of_several_bad_files_the_first_is_named(
    evaluate: Callable[..., InstanceResults], tmp_path: Path, jobs: int
) -> None:
    truth = person_map([[1, 1]], [[1, 1]])
    evaluate([(truth, truth)] * 20)
    for name in ("004", "019"):
        (tmp_path / "pred" / "instance_parsing" / f"{name}.txt").write_text("1 high\n")
    tasks = pair_images(find_truth(tmp_path / "gt"), find_prediction(tmp_path / "pred"))
    with pytest.raises(InputError, match="004.txt"):
        evaluate_instances(tasks, CLASSES, jobs=jobs)
