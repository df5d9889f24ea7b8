"""The confusion matrix of a segmentation and the metrics that follow from it; NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schnet.evaluation.scratch import Scratch

Counts = npt.NDArray[np.int64]
Labels = npt.NDArray[np.integer]
Ratios = npt.NDArray[np.float64]

# Label maps are bytes (index PNGs), and one value is left for the ignore label.
MAX_CLASSES = 255


@dataclass(frozen=True)
class SegmentationMetrics:
    """Metrics of one confusion matrix, as ratios in [0, 1]; NaN where undefined.

    A class that is in neither truth nor prediction is NaN and left out of every mean. One that is
    only predicted counts 0 wherever it has a value: in IoU and precision. Recall has none for it,
    since it divides by the true pixels. Others differ:

    - LIP's own script (Engineering-Course/LIP_SSL, test_human.py) averages as here.
    - Detectron2's SemSegEvaluator has the same mIoU (its divisor counts the classes in truth or
      prediction), though it prints NaN as the IoU of a class that is only predicted, and the same
      mACC, pACC and fwIoU.
    - Scripts in the line of CE2P and SCHP divide by max(1, pixels) and average over all K classes,
      so that a class which is nowhere counts 0 and lowers the mean; the same on a split that has
      every class.
    - Where a matrix has the predictions as its rows, a 'mean accuracy' over the rows is the mean
      *precision*. `mean_accuracy` is the mean recall, `mean_precision` is beside it.

    Attributes:
        iou: (K,) intersection over union. NaN where a class is in neither truth nor prediction;
            0 where it is only predicted.
        precision: (K,) share of the pixels predicted as a class that are right. NaN where it is
            never predicted.
        recall: (K,) share of a class's true pixels that are predicted as it. NaN where the class
            is not in the truth.
        mean_iou: mean of `iou` without its NaNs (mIoU), background included.
        pixel_accuracy: share of all labelled pixels that are right (pACC).
        mean_accuracy: mean of `recall` without its NaNs (mACC).
        mean_precision: mean of `precision` without its NaNs.
        frequency_weighted_iou: sum of `iou` weighted with each class's share of the true pixels
            (fwIoU).
        truth_share: (K,) each class's share of the labelled pixels; sums to 1.
    """

    iou: Ratios
    precision: Ratios
    recall: Ratios
    mean_iou: float
    pixel_accuracy: float
    mean_accuracy: float
    mean_precision: float
    frequency_weighted_iou: float
    truth_share: Ratios


class ConfusionMatrix:
    """Counts of (true label, predicted label) over all pixels seen, in constant memory.

    Attributes:
        counts: (K, K) int64; rows are the truth, columns the prediction.
        num_classes: K.
        ignore_label: true label whose pixels are dropped.
    """

    def __init__(self, num_classes: int, ignore_label: int = 255) -> None:
        """Start with all counts at zero.

        Args:
            num_classes: K, in 1..255.
            ignore_label: in K..255.

        Raises:
            ValueError: one of them is out of its range.
        """
        if not 1 <= num_classes <= MAX_CLASSES:
            raise ValueError(f"num_classes must be in 1..{MAX_CLASSES}, not {num_classes}")
        if not num_classes <= ignore_label <= 255:
            raise ValueError(f"ignore_label must be in {num_classes}..255, not {ignore_label}")
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.counts: Counts = np.zeros((num_classes, num_classes), dtype=np.int64)
        # Start of each true label's row in the flattened counts. Two rows more than classes: one
        # takes the ignored pixels and one the invalid labels, so that one table look-up and one
        # bincount do the masking and the range check too.
        starts = np.full(256, (num_classes + 1) * num_classes, dtype=np.int64)
        starts[:num_classes] = np.arange(num_classes) * num_classes
        starts[ignore_label] = num_classes * num_classes
        self._row_start = starts
        self._scratch = Scratch()

    def update(self, truth: Labels, prediction: Labels) -> None:
        """Count the pixels of one image.

        Label maps are flat in most places: runs of pixels with one true and one predicted label
        are counted by their lengths, some hundredfold fewer additions than pixels.

        Args:
            truth: integers of any shape, in 0..K-1 or the ignore label.
            prediction: integers of the same shape, in 0..K-1.

        Raises:
            ValueError: the shapes differ, or a label is out of range; nothing is counted then.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"truth is {truth.shape} and prediction {prediction.shape}")
        if truth.size == 0:
            return
        classes = self.num_classes
        true_labels = _as_bytes(truth, "truth").ravel()
        predicted_labels = _as_bytes(prediction, "prediction").ravel()
        ends = self._run_ends(true_labels, predicted_labels)
        bins = self._row_start[true_labels[ends]]
        predicted = predicted_labels[ends]
        if predicted.max() >= classes:
            raise ValueError(f"predicted label {predicted.max()} is not in 0..{classes - 1}")
        bins += predicted
        # bincount adds weights up as float64, which holds every integer below 2^53: no image has
        # as many pixels, and the running counts are integers.
        lengths = np.diff(ends, prepend=-1)
        pixels = np.bincount(bins, weights=lengths, minlength=(classes + 2) * classes)
        rows = pixels.astype(np.int64).reshape(classes + 2, classes)
        if rows[-1].any():
            found = sorted(set(np.unique(truth).tolist()) - {*range(classes), self.ignore_label})
            raise ValueError(f"true labels {found} are not in 0..{classes - 1}")
        self.counts += rows[:classes]

    def metrics(self) -> SegmentationMetrics:
        """Compute all metrics of the counts so far; all NaN where nothing was counted."""
        counts = self.counts.astype(np.float64)
        hits = np.diag(counts)
        true, predicted = counts.sum(axis=1), counts.sum(axis=0)
        total = true.sum()
        iou = ratio(hits, true + predicted - hits)
        precision, recall = ratio(hits, predicted), ratio(hits, true)
        share = ratio(true, np.full_like(true, total))
        return SegmentationMetrics(
            iou=iou,
            precision=precision,
            recall=recall,
            mean_iou=mean_defined(iou),
            pixel_accuracy=float(hits.sum() / total) if total else float("nan"),
            mean_accuracy=mean_defined(recall),
            mean_precision=mean_defined(precision),
            frequency_weighted_iou=float((share * np.nan_to_num(iou)).sum()),
            truth_share=share,
        )

    def _run_ends(
        self, truth: npt.NDArray[np.uint8], prediction: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.intp]:
        """Give the last position of each run of one (true, predicted) pair, ascending."""
        steps = truth.size - 1
        changes = self._scratch.take("truth", (steps,)).view(np.bool_)
        others = self._scratch.take("prediction", (steps,)).view(np.bool_)
        np.not_equal(truth[1:], truth[:-1], out=changes)
        np.not_equal(prediction[1:], prediction[:-1], out=others)
        changes |= others
        return np.append(np.flatnonzero(changes), steps)


def ratio(numerator: Ratios, denominator: Ratios) -> Ratios:
    """Divide arrays of one shape; NaN where the denominator is 0."""
    undefined = np.full_like(numerator, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def mean_defined(values: Ratios) -> float:
    """Mean of what is not NaN; NaN where nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _as_bytes(labels: Labels, name: str) -> npt.NDArray[np.uint8]:
    if labels.dtype != np.uint8 and not 0 <= labels.min() <= labels.max() <= 255:
        raise ValueError(f"{name} has labels {labels.min()}..{labels.max()}, outside 0..255")
    return labels.astype(np.uint8, copy=False)
