"""From a model's scores to the label map that is evaluated, fast on a CPU and in little memory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from schnet.errors import InputError
from schnet.score_maps import ScoreMap

# Bytes of the scores that are made at once, and of what they are made of. Small maps are not cut,
# since torch's threads wait for each other at every band.
_BAND, _UNCUT = 16 << 20, 24 << 20
# Pixels that are worked on at once: their best value so far and mask stay in a CPU's cache.
_BLOCK = 1 << 18


class NaNScoreError(InputError):
    """A score is not a number, so that no label is the most likely one."""

    def __init__(self, image: str = "an image") -> None:
        """Word it.

        Args:
            image: what was predicted, where it is known.
        """
        super().__init__(
            f"the model's prediction of {image} is not a number (NaN): take the weights of an "
            "earlier checkpoint, or train with a lower SOLVER.BASE_LR"
        )


def predicted_labels(output: Mapping[str, torch.Tensor]) -> npt.NDArray[np.uint8]:
    """Give the label map of one image's output.

    Args:
        output: `labels` (H, W), uint8, which is taken as it is, or else `sem_seg` (K, H, W).

    Returns:
        (H, W), uint8.

    Raises:
        NaNScoreError: a score is NaN.
        ValueError: `labels` is no byte map, or `sem_seg` has an impossible shape.
    """
    if "labels" not in output:
        return argmax_labels(output["sem_seg"])
    labels = output["labels"]
    if labels.dtype != torch.uint8 or labels.ndim != 2:
        raise ValueError(f"labels must be uint8 (H, W), not {labels.dtype} {tuple(labels.shape)}")
    return labels.cpu().numpy()


def label_map(scores: ScoreMap, image: str = "an image") -> npt.NDArray[np.uint8]:
    """Give each pixel the label of the highest score, band by band.

    Args:
        scores: (K, H, W), not asked for any row yet.
        image: whose scores they are, for the error.

    Returns:
        (H, W), uint8, on the CPU; see `argmax_labels`. Beside it, memory is taken for some tens of
        MB of scores, whatever K and the photo's size. The labels are those of the whole scores;
        only where probabilities are averaged may a tie within 1e-7 go the other way, since the
        last bit of torch's softmax depends on how many pixels it is given.

    Raises:
        NaNScoreError: a score is NaN.
        ValueError: K is impossible.
    """
    _, height, width = scores.shape
    labels = np.empty((height, width), np.uint8)
    try:
        with torch.no_grad():
            if scores.whole_bytes <= _UNCUT:
                return argmax_labels(scores.whole())
            step = max(1, int(_BAND / scores.row_bytes))
            for first in range(0, height, step):
                last = min(first + step, height)
                labels[first:last] = argmax_labels(scores.rows(first, last))
    except NaNScoreError:
        raise NaNScoreError(image) from None
    return labels


def argmax_labels(scores: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Give each pixel the label of the highest score; the smallest of several that are as high.

    Equal to `scores.argmax(dim=0)`, which torch computes on a CPU pixel by pixel with strides of a
    whole plane; here each plane is compared with the highest so far, an order of magnitude faster.

    Args:
        scores: (K, H, W), logits or probabilities, K in 1..255.

    Returns:
        (H, W), uint8, on the CPU.

    Raises:
        NaNScoreError: a score is NaN, which torch would take for the highest and a comparison
            for none at all.
        ValueError: the shape or K is impossible.
    """
    if scores.ndim != 3 or not 1 <= scores.shape[0] <= 255:
        raise ValueError(f"scores must be (K, H, W) with K in 1..255, not {tuple(scores.shape)}")
    if scores.device.type != "cpu":
        highest, labels = scores.max(dim=0)
        if highest.isnan().any():
            raise NaNScoreError
        return labels.to(device="cpu", dtype=torch.uint8).numpy()
    planes = scores.detach()
    if planes.dtype in (torch.bfloat16, torch.float16):
        planes = planes.float()  # NumPy has no bfloat16, and halves only in software
    return _running_argmax(planes.contiguous().numpy())


def _running_argmax(planes: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    classes, height, width = planes.shape
    flat = planes.reshape(classes, height * width)
    labels = np.zeros(height * width, np.uint8)
    largest = min(_BLOCK, height * width)
    best_buffer, higher_buffer = np.empty(largest, planes.dtype), np.empty(largest, np.bool_)
    for start in range(0, height * width, _BLOCK):
        block, own = flat[:, start : start + _BLOCK], labels[start : start + _BLOCK]
        best, higher = best_buffer[: own.size], higher_buffer[: own.size]
        as_label = higher.view(np.uint8)
        np.copyto(best, block[0])
        for label in range(1, classes):
            np.greater(block[label], best, out=higher)
            # The maximum with a NaN is NaN, so that one look at the end finds any.
            np.maximum(best, block[label], out=best)
            # Labels grow along the way, so the latest that was higher is the largest: a masked
            # assignment would do the same at twice the time.
            np.multiply(as_label, np.uint8(label), out=as_label)
            np.maximum(own, as_label, out=own)
        if np.isnan(best, out=higher).any():
            raise NaNScoreError
    return labels.reshape(height, width)
