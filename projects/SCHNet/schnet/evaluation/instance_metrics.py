"""How the part instances and persons predicted for one image match its ground truth.

The rules are those of the field's public evaluators, read for their facts (no line is taken):
CIHP_PGN `evaluation/test_inst_part_ap.py` (AP^r; the official one of CIHP), Multi-Human-Parsing
`Evaluation/Multi-Human-Parsing/v2/eval_mhp.py` (AP^p and PCP; where they come from), and
`parsing_eval.py` of Parsing R-CNN, QANet and M2FP (all three on CIHP).

**AP^r**, a class, a threshold t: a predicted part instance is right if its best ground truth of its
class in its image has IoU > t (never >=). Ground truth is *not* used up: two predictions may hit
the same one. Predictions of one PNG do not overlap, so that this needs t < 0.5; recall, and AP^r
with it, may then exceed 1, in the official script too. Background has no AP^r.

**AP^p**, a threshold t: a person stands for a label map of the whole image, their own pixels'
classes and background (0) elsewhere. The IoU of two persons is the mean over the classes that
either map holds, background included. Persons are taken by descending score; one is right if its
best ground truth (the first of equals) has IoU > t and no better-scored person was right with it:
the others are wrong, even where a second-best person would do. Pixels that the ground truth ignores
on the person in question are left out.

**PCP**, a threshold t: for each true person that a prediction is right with at t, the share of the
person's classes (background not counted) whose IoU > t; 0 for all other true persons; the mean over
all true persons of all images.

Where the public evaluators differ from each other:

- Every id of `Human_ids` is a person, as in QANet and M2FP, whose numbers on CIHP are the published
  ones; Multi-Human-Parsing leaves out persons without a labelled pixel.
- No prediction is dropped for its score; Parsing R-CNN, QANet and M2FP drop persons below 0.001.
- Equal scores rank by image name, then id; the evaluators leave the order to an unstable sort.
- A class without ground truth has no AP^r and is left out of the mean (QANet, M2FP); CIHP_PGN's
  mean becomes NaN. CIHP's validation set has all classes.
- All images of the ground truth count (M2FP); CIHP_PGN counts those that have a prediction file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schnet.data.labels import IGNORE_LABEL
from schnet.evaluation.instance_maps import Counts, Floats, IdMap, PartMap, PersonMap

# Written out: multiples of 0.1 by arithmetic lie beside the nearest double, and `>` is strict.
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class PersonMatches:
    """How the persons of one image match.

    Attributes:
        hits: (m, T) bool, which predicted persons are right at each threshold.
        parts_found: (T,) sum of the true persons' shares of correctly parsed parts, for PCP.
    """

    hits: npt.NDArray[np.bool_]
    parts_found: Floats


def match_parts(truth: PartMap, prediction: PartMap) -> Floats:
    """Give each predicted part instance's IoU with its best ground truth of the same class.

    Args:
        truth: of one image.
        prediction: of the same size.

    Returns:
        (n,) in [0, 1]; 0 where the image has no ground truth of the class.
    """
    rows, columns, counts = joint_counts(truth.pixels, prediction.pixels)
    true_rows = np.searchsorted(rows, truth.ids)
    predicted_columns = np.searchsorted(columns, prediction.ids)
    shared = counts[np.ix_(true_rows, predicted_columns)]
    areas = counts.sum(axis=1)[true_rows, None] + counts.sum(axis=0)[predicted_columns]
    iou = shared / (areas - shared)
    iou[truth.classes[:, None] != prediction.classes] = 0
    return iou.max(axis=0, initial=0)


def match_persons(
    truth: PersonMap, prediction: PersonMap, num_classes: int, ignore_label: int = IGNORE_LABEL
) -> PersonMatches:
    """Match predicted persons with true ones, greedily by score, at all `THRESHOLDS`.

    Args:
        truth: of one image.
        prediction: of the same size.
        num_classes: K.
        ignore_label: true label whose pixels are left out.
    """
    thresholds = np.array(THRESHOLDS)
    hits = np.zeros((len(prediction.ids), len(thresholds)), bool)
    parts_found = np.zeros(len(thresholds))
    if not len(truth.ids) or not len(prediction.ids):
        return PersonMatches(hits, parts_found)
    iou, parts = person_ious(truth, prediction, num_classes, ignore_label)
    defined = ~np.isnan(iou)
    mean_iou = np.where(defined, iou, 0).sum(axis=2) / np.maximum(defined.sum(axis=2), 1)
    best = mean_iou.argmax(axis=0)
    taken = np.zeros((len(truth.ids), len(thresholds)), bool)
    for person in np.argsort(-prediction.scores, kind="stable"):
        match = best[person]
        hits[person] = (mean_iou[match, person] > thresholds) & ~taken[match]
        taken[match] |= hits[person]
        right = (iou[match, person, 1:, None] > thresholds).sum(axis=0)
        parts_found += hits[person] * right / max(1, parts[match])
    return PersonMatches(hits, parts_found)


def person_ious(
    truth: PersonMap, prediction: PersonMap, num_classes: int, ignore_label: int = IGNORE_LABEL
) -> tuple[Floats, Counts]:
    """Compute the IoU of each class between the label maps of each true and predicted person.

    All areas come from one joint histogram of (person, class) pairs; no person is masked out.

    Args:
        truth: of one image, with P persons.
        prediction: of the same size, with Q persons.
        num_classes: K.
        ignore_label: true label whose pixels are left out of that person's IoUs.

    Returns:
        (P, Q, K) IoU, NaN where a class is in neither map; (P,) number of classes but background
        that each true person has.
    """
    base = num_classes + 1
    rows, columns, counts = joint_counts(
        _pairs(truth, base, ignore_label), _pairs(prediction, base, ignore_label)
    )
    true_at, true_label = np.searchsorted(truth.ids, rows // base), rows % base
    person_at, label = np.searchsorted(prediction.ids, columns // base), columns % base
    shape = (len(truth.ids), len(prediction.ids), num_classes)
    shared, ignored = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    true_area = np.zeros((shape[0], num_classes), np.int64)
    area = np.zeros((shape[1], num_classes), np.int64)
    ignored_rows = np.flatnonzero(true_label == num_classes)
    for value in range(1, num_classes):
        r, c = np.flatnonzero(true_label == value), np.flatnonzero(label == value)
        true_area[true_at[r], value] = counts[r].sum(axis=1)
        area[person_at[c], value] = counts[:, c].sum(axis=0)
        shared[true_at[r, None], person_at[c], value] = counts[np.ix_(r, c)]
        ignored[true_at[ignored_rows, None], person_at[c], value] = counts[np.ix_(ignored_rows, c)]
    # Foreground of both, whatever its classes: what is left of the image is background of either.
    foreground = np.zeros(shape[:2], np.int64)
    r, c = np.flatnonzero(true_label % num_classes), np.flatnonzero(label % num_classes)
    np.add.at(foreground, (true_at[r, None], person_at[c]), counts[np.ix_(r, c)])
    valid = np.full(shape[0], counts.sum())
    valid[true_at[ignored_rows]] -= counts[ignored_rows].sum(axis=1)
    areas = true_area[:, None] + area - ignored
    shared[..., 0] = valid[:, None] - areas.sum(axis=2) + foreground
    union = areas - shared
    union[..., 0] = valid[:, None] - foreground
    iou = np.divide(shared, union, out=np.full(shape, np.nan), where=union > 0)
    return iou, (true_area > 0).sum(axis=1)


def joint_counts(rows: IdMap, columns: IdMap) -> tuple[Counts, Counts, Counts]:
    """Count how often each value of one map meets each value of another.

    Args:
        rows: integers >= 0 of any shape.
        columns: integers >= 0 of the same shape.

    Returns:
        The values that `rows` holds, ascending; those of `columns`; their (R, C) counts.
    """
    row_at, row_values = _compact(rows)
    column_at, column_values = _compact(columns)
    shape = (len(row_values), len(column_values))
    bins = row_at * shape[1] + column_at
    return (
        row_values,
        column_values,
        np.bincount(bins, minlength=shape[0] * shape[1]).reshape(shape),
    )


def _compact(values: IdMap) -> tuple[Counts, Counts]:
    """Number the values that occur; gives (N,) numbers and the values they stand for."""
    flat = values.ravel()
    present = np.bincount(flat) > 0
    return (np.cumsum(present) - 1)[flat], np.flatnonzero(present)


def _pairs(persons: PersonMap, base: int, ignore_label: int) -> Counts:
    """Give person x base + class for each pixel, 0 for no person, base - 1 as the ignored class."""
    labels = persons.labels.astype(np.int64)
    labels[persons.labels == ignore_label] = base - 1
    pairs = persons.pixels.astype(np.int64) * base + labels
    pairs[persons.pixels == 0] = 0
    return pairs
