"""Part instances and persons of one image as arrays, and how one follows from the other.

A part instance is what one class covers on one person. CIHP's own ground truth defines it so: each
line of its lists (`Instance_part_val/*.txt` of the CIHP_PGN repository) is one (class, person)
pair, numbered class + 20 x (person - 1), 20 being the number of classes. Hence a map of classes and
a map of persons tell all part instances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schnet.data.labels import IGNORE_LABEL

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
IdMap = npt.NDArray[Any]


@dataclass(frozen=True)
class PartMap:
    """The part instances of one image.

    Attributes:
        pixels: integers (H, W), the id of each pixel's instance; 0, or an id that is not in `ids`,
            belongs to none.
        ids: (n,) ascending, from 1; each has pixels.
        classes: (n,) class of each instance, in 1..K-1.
        scores: (n,) confidences; of no meaning in ground truth.
    """

    pixels: IdMap
    ids: Counts
    classes: Counts
    scores: Floats


@dataclass(frozen=True)
class PersonMap:
    """The persons of one image and the class of each pixel.

    Attributes:
        labels: uint8 (H, W), classes 0..K-1 or the ignored label.
        pixels: integers (H, W), the id of each pixel's person; 0 belongs to none.
        ids: (m,) ascending, from 1: all that `pixels` holds.
        scores: (m,) confidences; of no meaning in ground truth.
    """

    labels: npt.NDArray[np.uint8]
    pixels: IdMap
    ids: Counts
    scores: Floats


def present_ids(pixels: IdMap) -> Counts:
    """Give the ids >= 1 that a map of ids >= 0 holds, ascending."""
    values = np.flatnonzero(np.bincount(pixels.ravel()))
    return values[values > 0]


def ground_truth_persons(labels: npt.NDArray[np.uint8], pixels: IdMap) -> PersonMap:
    """Take every id of a person map as a person, such as those of CIHP's `Human_ids`."""
    ids = present_ids(pixels)
    return PersonMap(labels, pixels, ids, np.ones(len(ids)))


def part_instances(
    persons: PersonMap, num_classes: int, ignore_label: int = IGNORE_LABEL
) -> PartMap:
    """Split an image into part instances: what each class covers on each person.

    Background, ignored pixels and those of no person belong to no instance.

    Args:
        persons: map of classes and persons.
        num_classes: K.
        ignore_label: label that no class has.

    Returns:
        Ids as CIHP numbers them, class + K x (person - 1); each has its person's score.
    """
    labels = persons.labels.astype(np.int64)
    outside = (persons.pixels == 0) | (labels == 0) | (labels == ignore_label)
    pixels = labels + num_classes * (persons.pixels.astype(np.int64) - 1)
    pixels[outside] = 0
    ids = present_ids(pixels)
    classes, owners = class_and_person(ids, num_classes)
    return PartMap(pixels, ids, classes, persons.scores[np.searchsorted(persons.ids, owners)])


def class_and_person(ids: Counts, num_classes: int) -> tuple[Counts, Counts]:
    """Read class and person off ids that are numbered class + K x (person - 1).

    Args:
        ids: (n,), from 1.
        num_classes: K.

    Returns:
        (n,) classes, 0 for ids that cannot be numbered so, and (n,) persons, from 1.
    """
    return ids % num_classes, ids // num_classes + 1


def renumber(parts: PartMap) -> PartMap:
    """Number the instances 1..n in the order of their ids, as lists of predictions need it."""
    table = np.zeros(int(parts.pixels.max(initial=0)) + 1, np.int64)
    table[parts.ids] = np.arange(1, len(parts.ids) + 1)
    return PartMap(table[parts.pixels], table[parts.ids], parts.classes, parts.scores)


def labels_of_parts(parts: PartMap) -> npt.NDArray[np.uint8]:
    """Give the class of each pixel's instance, 0 where it belongs to none; uint8 (H, W)."""
    table = np.zeros(int(parts.pixels.max(initial=0)) + 1, np.uint8)
    table[parts.ids] = parts.classes
    return table[parts.pixels]
