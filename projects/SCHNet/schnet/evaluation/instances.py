"""CIHP's instance-level evaluation: AP^r, AP^p and PCP over a split, image by image.

Each image gives a few numbers for each of its predictions, and masks are never kept: memory grows
with the number of predictions alone. `schnet.evaluation.instance_metrics` has the rules.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from schnet.data.labels import IGNORE_LABEL
from schnet.data.processes import process_map
from schnet.errors import InputError
from schnet.evaluation.average_precision import average_precision, mean_defined
from schnet.evaluation.instance_files import (
    check_same_shape,
    read_predicted_labels,
    read_predicted_parts,
    read_predicted_persons,
    read_true_parts,
    read_true_persons,
)
from schnet.evaluation.instance_folders import ImageFiles, ImageTask
from schnet.evaluation.instance_maps import (
    Counts,
    Floats,
    PartMap,
    PersonMap,
    labels_of_parts,
    part_instances,
)
from schnet.evaluation.instance_metrics import (
    THRESHOLDS,
    PersonMatches,
    match_parts,
    match_persons,
)

# Images handed to a process at once, as a bar that moves wants it.
_CHUNK = 8


@dataclass(frozen=True)
class ImageMatches:
    """What one image adds to the evaluation.

    Attributes:
        part_classes: (n,) class of each predicted part instance.
        part_scores: (n,) its score.
        part_ious: (n,) its IoU with the best ground truth of its class, 0 where there is none.
        true_parts: (K,) number of true part instances of each class.
        ids_without_pixels: listed true ids that no pixel has and that are no instances therefore.
        person_scores: (m,) score of each predicted person.
        persons: how the persons match; None where they are not evaluated.
        true_persons: number of true persons.
    """

    part_classes: Counts
    part_scores: Floats
    part_ious: Floats
    true_parts: Counts
    ids_without_pixels: int
    person_scores: Floats
    persons: PersonMatches | None
    true_persons: int


@dataclass(frozen=True)
class InstanceResults:
    """The instance-level metrics of a split, as ratios, at the T `THRESHOLDS`.

    Attributes:
        part_ap: (K, T) AP^r of each class; NaN for background and for classes without ground truth.
        person_ap: (T,) AP^p; None where persons are not evaluated.
        pcp: (T,) PCP; None likewise.
        images: number of images.
        true_parts: (K,) number of true part instances of each class.
        predicted_parts: (K,) number of predicted ones.
        true_persons: number of true persons.
        predicted_persons: number of predicted ones.
        ids_without_pixels: listed true ids that no pixel has; they count for nothing.
    """

    part_ap: Floats
    person_ap: Floats | None
    pcp: Floats | None
    images: int
    true_parts: Counts
    predicted_parts: Counts
    true_persons: int
    predicted_persons: int
    ids_without_pixels: int

    @property
    def mean_part_ap(self) -> Floats:
        """(T,) mean AP^r of the classes with ground truth, at each threshold."""
        return mean_defined(self.part_ap)


def evaluate_instances(
    tasks: Sequence[ImageTask],
    num_classes: int,
    *,
    ignore_label: int = IGNORE_LABEL,
    jobs: int = 1,
) -> InstanceResults:
    """Evaluate a split.

    Args:
        tasks: its images, in the order that breaks ties of scores; all with persons or none.
        num_classes: K.
        ignore_label: true label whose pixels belong to no part.
        jobs: number of processes; the numbers do not depend on it.

    Raises:
        InputError: a file is bad (of several, the first image's is named), there is no true
            instance, or a process was killed.
    """
    work = partial(match_image, num_classes=num_classes, ignore_label=ignore_label)
    with process_map(work, tasks, jobs=jobs, chunk=_CHUNK) as matches:
        found = list(tqdm(matches, desc="matching", unit="image", total=len(tasks)))
    return summarize(found, num_classes)


def match_image(
    task: ImageTask, num_classes: int, ignore_label: int = IGNORE_LABEL
) -> ImageMatches:
    """Read one image's files and match what they hold.

    Raises:
        InputError: a file is unreadable, holds what it must not, or is of another size.
    """
    true_parts, true_persons, without_pixels = _read_truth(task.truth, num_classes, ignore_label)
    parts, persons = _read_prediction(task.prediction, num_classes)
    true_path, path = _main_file(task.truth), _main_file(task.prediction)
    check_same_shape(true_parts.pixels, true_path, parts.pixels, path)
    matches = None
    if true_persons is not None and persons is not None:
        matches = match_persons(true_persons, persons, num_classes, ignore_label)
    return ImageMatches(
        parts.classes,
        parts.scores,
        match_parts(true_parts, parts),
        np.bincount(true_parts.classes, minlength=num_classes),
        without_pixels,
        np.zeros(0) if persons is None else persons.scores,
        matches,
        0 if true_persons is None else len(true_persons.ids),
    )


def summarize(matches: Iterable[ImageMatches], num_classes: int) -> InstanceResults:
    """Compute the metrics of a split from what its images add.

    Args:
        matches: of all images; their order breaks ties of scores.
        num_classes: K.

    Raises:
        InputError: there is no true instance.
    """
    found = list(matches)
    true_parts = np.sum([one.true_parts for one in found], axis=0)
    true_persons = sum(one.true_persons for one in found)
    if not np.any(true_parts):
        raise InputError(
            f"the ground truth of {len(found)} images holds no part instance: check its files"
        )
    classes = np.concatenate([one.part_classes for one in found])
    scores = np.concatenate([one.part_scores for one in found])
    hits = np.concatenate([one.part_ious for one in found])[:, None] > np.array(THRESHOLDS)
    part_ap = np.full((num_classes, len(THRESHOLDS)), np.nan)
    for value in range(1, num_classes):
        mine = classes == value
        part_ap[value] = average_precision(scores[mine], hits[mine], int(true_parts[value]))
    person_scores = np.concatenate([one.person_scores for one in found])
    persons = [one.persons for one in found if one.persons is not None]
    person_ap = pcp = None
    if persons:
        person_hits = np.concatenate([one.hits for one in persons])
        person_ap = average_precision(person_scores, person_hits, true_persons)
        pcp = _mean_share([one.parts_found for one in persons], true_persons)
    return InstanceResults(
        part_ap,
        person_ap,
        pcp,
        len(found),
        true_parts,
        np.bincount(classes, minlength=num_classes),
        true_persons,
        len(person_scores),
        sum(one.ids_without_pixels for one in found),
    )


def _read_truth(
    files: ImageFiles, num_classes: int, ignore_label: int
) -> tuple[PartMap, PersonMap | None, int]:
    persons = None
    if files.labels is not None and files.persons is not None:
        persons = read_true_persons(files.labels, files.persons, num_classes, ignore_label)
    if files.parts is None:
        assert persons is not None, "find_truth gives part instances or persons"
        return part_instances(persons, num_classes, ignore_label), persons, 0
    parts, without_pixels = read_true_parts(files.parts, files.part_list, num_classes)
    if persons is not None and files.persons is not None:
        check_same_shape(parts.pixels, files.parts, persons.pixels, files.persons)
    return parts, persons, without_pixels


def _read_prediction(files: ImageFiles, num_classes: int) -> tuple[PartMap, PersonMap | None]:
    parts = None
    if files.parts is not None and files.part_list is not None:
        parts = read_predicted_parts(files.parts, files.part_list, num_classes)
        labels, label_path = labels_of_parts(parts), files.parts
    else:
        assert files.labels is not None, "find_prediction gives part instances or classes"
        labels, label_path = read_predicted_labels(files.labels, num_classes), files.labels
    persons = None
    if files.persons is not None and files.person_list is not None:
        pixels, ids, scores = read_predicted_persons(files.persons, files.person_list)
        check_same_shape(labels, label_path, pixels, files.persons)
        persons = PersonMap(labels, pixels, ids, scores)
    if parts is None:
        assert persons is not None, "find_prediction gives part instances or persons"
        parts = part_instances(persons, num_classes)
    return parts, persons


def _main_file(files: ImageFiles) -> Path:
    path = files.parts or files.labels
    assert path is not None, "every image has part instances or classes"
    return path


def _mean_share(shares: Sequence[npt.NDArray[np.float64]], persons: int) -> Floats:
    """Mean over all true persons of sums over images; exact, whatever the order of the images."""
    if not persons:
        return np.full(len(THRESHOLDS), np.nan)
    return np.array([math.fsum(values) / persons for values in zip(*shares, strict=True)])
