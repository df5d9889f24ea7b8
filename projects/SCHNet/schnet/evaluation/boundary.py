"""The boundary F-score of a segmentation: how well the outlines of each class are found.

The measure of Csurka et al. (BMVC 2013), with the counts summed over all images rather than the
scores averaged over them, so that it adds up over any division of a split.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from schnet.evaluation.confusion import Counts, Ratios, mean_defined, ratio
from schnet.evaluation.scratch import Scratch

Labels = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.intp]

DEFAULT_TOLERANCE = 2

# No class has it (K <= 255), so it marks what belongs to no boundary.
_NOWHERE = 255
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


@dataclass(frozen=True)
class BoundaryMetrics:
    """Boundary metrics as ratios in [0, 1]; NaN where undefined.

    Attributes:
        precision: (K,) share of a class's predicted boundary pixels that lie within the tolerance
            of a true boundary pixel of that class. NaN where none is predicted.
        recall: (K,) share of its true boundary pixels that lie within the tolerance of a predicted
            one. NaN where there is no true one.
        f_score: (K,) harmonic mean of the two. NaN where a class has neither a true nor a
            predicted boundary pixel; 0 where it has only one kind, or none of them is found.
        mean_f_score: mean of `f_score` without its NaNs (mBF), background included.
    """

    precision: Ratios
    recall: Ratios
    f_score: Ratios
    mean_f_score: float


class BoundaryCounts:
    """Counts of boundary pixels, and of those that were found, in constant memory.

    A boundary pixel of a class is one of its pixels with a pixel of another class above, below,
    left or right of it. Neighbours outside the image or with the ignore label are none, and where
    the truth has the ignore label the prediction is ignored too.

    Attributes:
        counts: (4, K) int64, rows: predicted boundary pixels; those of them within the tolerance
            of a true boundary pixel of their class; true boundary pixels; those of them within
            the tolerance of a predicted one.
        num_classes: K.
        tolerance: largest Euclidean distance in pixels at which a boundary pixel is found.
        ignore_label: true label whose pixels are dropped.
    """

    def __init__(
        self, num_classes: int, tolerance: int = DEFAULT_TOLERANCE, ignore_label: int = 255
    ) -> None:
        """Start with all counts at zero.

        Args:
            num_classes: K, in 1..255.
            tolerance: in pixels, at least 0; the cost grows with its square.
            ignore_label: in K..255.

        Raises:
            ValueError: the tolerance is negative.
        """
        if tolerance < 0:
            raise ValueError(f"tolerance must be at least 0, not {tolerance}")
        self.num_classes = num_classes
        self.tolerance = tolerance
        self.ignore_label = ignore_label
        self.counts: Counts = np.zeros((4, num_classes), dtype=np.int64)
        self._rings = _offsets_by_distance(tolerance)
        self._scratch = Scratch()

    def update(self, truth: Labels, prediction: Labels) -> None:
        """Count the boundaries of one image.

        Args:
            truth: uint8 (H, W), in 0..K-1 or the ignore label.
            prediction: uint8 (H, W), in 0..K-1.

        Raises:
            ValueError: the shapes differ, or a boundary pixel has a label out of range; nothing is
                counted then.
        """
        if truth.shape != prediction.shape or truth.ndim != 2:
            raise ValueError(f"truth is {truth.shape} and prediction {prediction.shape}")
        if truth.size == 0:
            return
        # Most label maps have no ignored pixel; then there is nothing to hide.
        hidden = None if truth.max() < self.num_classes else truth == self.ignore_label
        true_map = self._boundary_map("truth", truth, hidden)
        predicted_map = self._boundary_map("prediction", prediction, hidden)
        predicted, predicted_found = self._found(predicted_map, true_map)
        true, true_found = self._found(true_map, predicted_map)
        self.counts += np.stack([predicted, predicted_found, true, true_found])

    def metrics(self) -> BoundaryMetrics:
        """Compute the metrics of the counts so far; NaN where nothing was counted."""
        predicted, predicted_found, true, true_found = self.counts.astype(np.float64)
        precision, recall = ratio(predicted_found, predicted), ratio(true_found, true)
        p, r = np.nan_to_num(precision), np.nan_to_num(recall)
        # Where both are 0 their harmonic mean is 0 as well.
        f_score = 2 * p * r / np.where(p + r > 0, p + r, 1)
        f_score[predicted + true == 0] = np.nan
        return BoundaryMetrics(precision, recall, f_score, mean_defined(f_score))

    def _boundary_map(
        self, name: str, labels: Labels, hidden: npt.NDArray[np.bool_] | None
    ) -> Labels:
        """Keep the labels of boundary pixels only, in a frame as wide as the tolerance.

        Returns:
            uint8 (H + 2 * tolerance, W + 2 * tolerance), `_NOWHERE` in all other pixels.
        """
        (height, width), frame = labels.shape, self.tolerance
        # A pixel differs from a neighbour where the highest label around it is not the lowest.
        # OpenCV leaves neighbours outside the image out; the ignored ones are made to lose.
        above = below = labels
        if hidden is not None:
            above = np.where(hidden, np.uint8(0), labels)
            below = np.where(hidden, np.uint8(_NOWHERE), labels)
        highest = cv2.dilate(above, _CROSS, dst=self._scratch.take("highest", labels.shape))
        lowest = cv2.erode(below, _CROSS, dst=self._scratch.take("lowest", labels.shape))
        inside = cv2.compare(highest, lowest, cv2.CMP_EQ, dst=highest)
        framed = self._scratch.take(name, (height + 2 * frame, width + 2 * frame))
        framed.fill(_NOWHERE)
        np.bitwise_or(below, inside, out=framed[frame : frame + height, frame : frame + width])
        return framed

    def _found(self, own: Labels, other: Labels) -> tuple[Counts, Counts]:
        """Count one map's boundary pixels by class, and those that the other map has close by."""
        marks = self._scratch.take("marks", own.shape).view(np.bool_)
        np.not_equal(own, _NOWHERE, out=marks)
        positions: Positions = np.flatnonzero(marks)
        own_labels = own.ravel()[positions]
        total = self._count(own_labels)
        flat, stride = other.ravel(), other.shape[1]
        for ring in self._rings:
            found = np.zeros(positions.size, np.bool_)
            for down, right in ring:
                found |= flat[positions + (down * stride + right)] == own_labels
            # Most are found at once, and the wider rings then look at few.
            positions, own_labels = positions[~found], own_labels[~found]
        return total, total - self._count(own_labels)

    def _count(self, labels: Labels) -> Counts:
        counts = np.bincount(labels, minlength=self.num_classes)
        if counts.size > self.num_classes:
            raise ValueError(f"label {counts.size - 1} is not in 0..{self.num_classes - 1}")
        return counts


def _offsets_by_distance(tolerance: int) -> list[list[tuple[int, int]]]:
    """List the offsets (down, right) within a distance, those of one distance together."""
    rings: dict[int, list[tuple[int, int]]] = {}
    reach = range(-tolerance, tolerance + 1)
    for down in reach:
        for right in reach:
            rings.setdefault(down * down + right * right, []).append((down, right))
    return [rings[square] for square in sorted(rings) if square <= tolerance * tolerance]
