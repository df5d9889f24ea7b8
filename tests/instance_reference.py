"""The instance-level metrics once more, one mask at a time, as one reads them in the papers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from schnet.evaluation.instance_maps import PersonMap

Pairs = Sequence[tuple[PersonMap, PersonMap]]
THRESHOLDS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
IGNORED = 255


def area_under_envelope(ranked: Sequence[bool], positives: int) -> float:
    """Sum, over the hits, of the best precision at their recall or beyond, over positives."""
    precisions = [sum(ranked[: k + 1]) / (k + 1) for k in range(len(ranked))]
    return sum(max(precisions[k:]) for k, hit in enumerate(ranked) if hit) / positives


def reference_part_ap(pairs: Pairs, value: int, threshold: float) -> float:
    """AP^r of a class."""
    ranking: list[tuple[float, bool]] = []
    positives = 0
    for truth, prediction in pairs:
        true_masks = [(truth.pixels == p) & (truth.labels == value) for p in truth.ids]
        true_masks = [mask for mask in true_masks if mask.any()]
        positives += len(true_masks)
        for person, score in zip(prediction.ids, prediction.scores, strict=True):
            mask = (prediction.pixels == person) & (prediction.labels == value)
            if mask.any():
                ious = [(mask & true).sum() / (mask | true).sum() for true in true_masks]
                ranking.append((float(score), max(ious, default=0.0) > threshold))
    ranking.sort(key=lambda entry: -entry[0])
    return area_under_envelope([hit for _, hit in ranking], positives) if positives else np.nan


def reference_persons(pairs: Pairs, num_classes: int, threshold: float) -> tuple[float, float]:
    """AP^p and PCP."""
    ranking: list[tuple[float, int, int]] = []
    for image, (_, prediction) in enumerate(pairs):
        for person, score in zip(prediction.ids, prediction.scores, strict=True):
            ranking.append((float(score), image, int(person)))
    ranking.sort(key=lambda entry: -entry[0])
    shares: dict[tuple[int, int], float] = {}
    hits = []
    for _, image, person in ranking:
        truth, prediction = pairs[image]
        shown = np.where(prediction.pixels == person, prediction.labels, 0)
        candidates = [
            (_class_ious(np.where(truth.pixels == p, truth.labels, 0), shown, num_classes), int(p))
            for p in truth.ids
        ]
        means = [np.mean(list(ious.values())) for ious, _ in candidates]
        best = int(np.argmax(means)) if means else -1
        hit = bool(means) and means[best] > threshold and (image, candidates[best][1]) not in shares
        hits.append(hit)
        if hit:
            ious, true_person = candidates[best]
            own = truth.labels[truth.pixels == true_person]
            parts = {int(v) for v in np.unique(own)} - {0, IGNORED}
            right = sum(ious[part] > threshold for part in parts)
            shares[image, true_person] = right / len(parts) if parts else 0.0
    positives = sum(len(truth.ids) for truth, _ in pairs)
    return area_under_envelope(hits, positives), sum(shares.values()) / positives


def _class_ious(true: np.ndarray, shown: np.ndarray, num_classes: int) -> dict[int, float]:
    valid = true != IGNORED
    ious = {}
    for value in range(num_classes):
        a, b = (true == value) & valid, (shown == value) & valid
        if (a | b).any():
            ious[value] = (a & b).sum() / (a | b).sum()
    return ious
