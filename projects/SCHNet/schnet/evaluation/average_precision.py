"""Average precision of ranked predictions: the whole area under the precision envelope."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def average_precision(scores: Floats, hits: npt.NDArray[np.bool_], positives: int) -> Floats:
    """Compute the all-point average precision of PASCAL VOC 2010 and later, at T thresholds.

    The predictions are ranked by descending score; equal scores stay in the order they are given
    in. Precision at a recall is the highest one reached at that recall or a greater one, and each
    hit is worth 1 / positives of recall. (VOC 2007's mean over eleven recalls is another number.)

    Args:
        scores: (n,) confidences of the predictions.
        hits: (n, T), which of them are right at each threshold. Where several hit the same ground
            truth, recall and the result may exceed 1: see `schnet.evaluation.instance_metrics`.
        positives: number of things to find.

    Returns:
        (T,); 0 where nothing hits, NaN where there is nothing to find.
    """
    if positives == 0:
        return np.full(hits.shape[1], np.nan)
    ranked = hits[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(ranked, axis=0) / np.arange(1, len(ranked) + 1)[:, None]
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    return np.where(ranked, envelope, 0.0).sum(axis=0) / positives


def mean_defined(values: Floats) -> Floats:
    """Mean over the first axis without NaNs; NaN where there is nothing else.

    Args:
        values: (n, ...).

    Returns:
        Of the shape of `values[0]`.
    """
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    total = np.where(defined, values, 0.0).sum(axis=0)
    undefined = np.full(np.shape(total), np.nan)
    return np.divide(total, count, out=undefined, where=count > 0)
