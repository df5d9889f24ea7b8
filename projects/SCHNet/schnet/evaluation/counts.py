"""All that an evaluation counts, as one vector of integers that adds up."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schnet.evaluation.boundary import DEFAULT_TOLERANCE, BoundaryCounts
from schnet.evaluation.confusion import ConfusionMatrix, Counts


class ParsingCounts:
    """The confusion matrix, the boundary counts and the numbers of images of a share of a split.

    Memory does not grow with the number of images. Any division of a split among processes gives
    the same sum, exactly, since all are integers.

    Attributes:
        confusion: counts of pixels.
        boundary: counts of boundary pixels; None where they are left out.
        labelled_images: images that were counted.
        unlabelled_images: images that have no label map.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_label: int = 255,
        boundary_tolerance: int | None = DEFAULT_TOLERANCE,
    ) -> None:
        """Start with all counts at zero.

        Args:
            num_classes: K, in 1..255.
            ignore_label: true label whose pixels do not count, in K..255.
            boundary_tolerance: in pixels; None leaves the boundaries out.

        Raises:
            ValueError: a number is out of its range.
        """
        self.confusion = ConfusionMatrix(num_classes, ignore_label)
        self.boundary: BoundaryCounts | None = None
        if boundary_tolerance is not None:
            self.boundary = BoundaryCounts(num_classes, boundary_tolerance, ignore_label)
        self.labelled_images = 0
        self.unlabelled_images = 0

    def update(self, truth: npt.NDArray[np.uint8], prediction: npt.NDArray[np.uint8]) -> Counts:
        """Count one image.

        Args:
            truth: uint8 (H, W), in 0..K-1 or the ignore label.
            prediction: uint8 (H, W), in 0..K-1.

        Returns:
            The image's own part of the confusion matrix, (K, K) int64.

        Raises:
            ValueError: the shapes differ, or a label is out of range; nothing is counted then.
        """
        before = self.confusion.counts.copy()
        # First, since it looks at all labels.
        self.confusion.update(truth, prediction)
        if self.boundary is not None:
            self.boundary.update(truth, prediction)
        self.labelled_images += 1
        return self.confusion.counts - before

    def as_vector(self) -> Counts:
        """Give all counts as one int64 vector, whose length depends on K alone."""
        parts = [self.confusion.counts.ravel()]
        if self.boundary is not None:
            parts.append(self.boundary.counts.ravel())
        return np.concatenate([*parts, [self.labelled_images, self.unlabelled_images]])

    def replace(self, vector: Counts) -> None:
        """Take the counts of a vector, or of a sum of vectors, that `as_vector` gave."""
        matrix = self.confusion.counts
        matrix[:] = vector[: matrix.size].reshape(matrix.shape)
        if self.boundary is not None:
            counts = self.boundary.counts
            counts[:] = vector[matrix.size : -2].reshape(counts.shape)
        self.labelled_images, self.unlabelled_images = (int(count) for count in vector[-2:])
