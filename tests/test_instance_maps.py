from __future__ import annotations

import numpy as np
from instance_helpers import person_map

from schnet.evaluation.instance_maps import (
    class_and_person,
    labels_of_parts,
    part_instances,
    present_ids,
    renumber,
)

LABELS = [[0, 2, 2, 3, 255, 3]]
PERSONS = [[1, 1, 2, 2, 2, 0]]


def test_a_part_instance_is_one_class_on_one_person() -> None:
    parts = part_instances(person_map(LABELS, PERSONS, [0.75, 0.5]), num_classes=20)
    # Background, the ignored pixel and the pixel of nobody belong to none.
    assert parts.pixels.tolist() == [[0, 2, 22, 23, 0, 0]]
    assert parts.ids.tolist() == [2, 22, 23]
    assert parts.classes.tolist() == [2, 2, 3]
    assert parts.scores.tolist() == [0.75, 0.5, 0.5]


def test_two_patches_of_a_class_are_one_instance() -> None:
    parts = part_instances(person_map([[5, 0, 5]], [[1, 1, 1]]), num_classes=20)
    assert parts.pixels.tolist() == [[5, 0, 5]]


def test_ids_are_numbered_as_in_cihps_lists() -> None:
    # Lines of CIHP_PGN's Instance_part_val/0000001.txt.
    lines = [(2, 2, 1), (15, 15, 1), (22, 2, 2), (35, 15, 2), (47, 7, 3), (57, 17, 3), (75, 15, 4)]
    ids, classes, persons = np.array(lines).T
    found = class_and_person(ids, 20)
    assert found[0].tolist() == classes.tolist() and found[1].tolist() == persons.tolist()


def test_persons_without_a_part_have_no_instances() -> None:
    parts = part_instances(person_map([[0, 0]], [[1, 2]]), num_classes=20)
    assert parts.ids.size == 0 and parts.scores.size == 0


def test_thirteenth_person_needs_more_than_a_byte() -> None:
    parts = part_instances(person_map([[19]], [[13]]), num_classes=20)
    assert parts.ids.tolist() == [259]


def test_renumbered_instances_keep_class_and_score() -> None:
    parts = renumber(part_instances(person_map(LABELS, PERSONS, [0.75, 0.5]), num_classes=20))
    assert parts.pixels.tolist() == [[0, 1, 2, 3, 0, 0]]
    assert parts.ids.tolist() == [1, 2, 3]
    assert parts.classes.tolist() == [2, 2, 3] and parts.scores.tolist() == [0.75, 0.5, 0.5]


def test_labels_come_back_from_the_instances() -> None:
    parts = part_instances(person_map(LABELS, PERSONS), num_classes=20)
    assert labels_of_parts(parts).tolist() == [[0, 2, 2, 3, 0, 0]]


def test_empty_maps_hold_no_ids() -> None:
    empty = np.zeros((2, 3), np.uint8)
    assert present_ids(empty).size == 0
    assert present_ids(empty + 7).tolist() == [7]
    parts = renumber(part_instances(person_map([[0]], [[0]]), 20))
    assert parts.ids.size == 0 and labels_of_parts(parts).tolist() == [[0]]
