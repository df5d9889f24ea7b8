"""The segmentation losses: cross-entropy and Lovasz-softmax, each per image, then averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from torch import nn

from schnet.modeling.resize import resize_map_thinned

MAX_CLASS_WEIGHT = 10.0


def sqrt_inverse_weights(frequencies: Sequence[float]) -> list[float]:
    """Class weights 1/sqrt(frequency), scaled so that an average pixel weighs 1, then capped.

    Args:
        frequencies: each class's share of the labelled pixels; they add up to 1.

    Returns:
        One weight a class, at most `MAX_CLASS_WEIGHT` so that a class of a handful of pixels
        cannot rule the gradient; a class without pixels gets the largest weight of the others.
    """
    raw = [f**-0.5 if f > 0 else 0.0 for f in frequencies]
    raw = [w if w > 0 else max(raw) for w in raw]
    mean = sum(f * w for f, w in zip(frequencies, raw, strict=True))
    return [min(w / mean, MAX_CLASS_WEIGHT) for w in raw]


def cross_entropy_per_image(
    logits: torch.Tensor, labels: torch.Tensor, ignore_label: int, weight: torch.Tensor | None
) -> torch.Tensor:
    """Mean (weighted) cross-entropy over each image's labelled pixels.

    Args:
        logits: shape (B, K, N).
        labels: shape (B, N), int64, values 0..K-1 or `ignore_label`.
        ignore_label: label that does not count.
        weight: class weights (K,), or None for 1 each.

    Returns:
        Shape (B,); 0 for an image without labelled pixels.
    """
    pixels = F.cross_entropy(
        logits, labels, weight=weight, ignore_index=ignore_label, reduction="none"
    )
    return pixels.sum(dim=1) / (labels != ignore_label).sum(dim=1).clamp(min=1)


def lovasz_softmax(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Lovasz-softmax loss of one image over the classes that it shows (Berman et al., CVPR 2018).

    Args:
        probabilities: shape (K, N), one column a labelled pixel.
        labels: shape (N,), int64, values 0..K-1; at least one pixel.

    Returns:
        Scalar in [0, 1]: the mean over the classes in `labels` of the Jaccard loss's extension.
    """
    present = labels.unique()
    truth = (labels[None] == present[:, None]).to(probabilities.dtype)
    errors = (truth - probabilities[present]).abs()
    errors, order = errors.sort(dim=1, descending=True)
    sorted_truth = truth.gather(1, order)
    positives = sorted_truth.sum(dim=1, keepdim=True)
    intersection = positives - sorted_truth.cumsum(dim=1)
    union = positives + (1 - sorted_truth).cumsum(dim=1)
    jaccard = 1 - intersection / union
    gradient = torch.cat([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], dim=1)
    return (errors * gradient).sum(dim=1).mean()


class SegmentationLoss(nn.Module):
    """Cross-entropy plus Lovasz-softmax, in fp32, per image and then averaged over the images.

    Averaging per image first makes the gradient of a batch the mean of its halves' gradients, so
    that two processes with half the batch each train like one with all of it.
    """

    class_weights: torch.Tensor | None

    @configurable
    def __init__(
        self,
        *,
        ce_weight: float,
        lovasz_weight: float,
        ignore_label: int,
        class_weights: Sequence[float] | None,
        ce_stride: int,
        lovasz_stride: int,
    ) -> None:
        """Keep the factors.

        Args:
            ce_weight: factor of the cross-entropy term.
            lovasz_weight: factor of the Lovasz-softmax term; 0 leaves it out.
            ignore_label: label that does not count.
            class_weights: weights of the classes in the cross-entropy, or None.
            ce_stride: the cross-entropy looks at every n-th row and column.
            lovasz_stride: the Lovasz-softmax term likewise.
        """
        super().__init__()
        self.ce_weight = ce_weight
        self.lovasz_weight = lovasz_weight
        self.ignore_label = ignore_label
        self.ce_stride = ce_stride
        self.lovasz_stride = lovasz_stride
        weight = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weight, persistent=False)

    @classmethod
    def from_config(
        cls, cfg: CfgNode, class_frequencies: Sequence[float] | None = None
    ) -> dict[str, Any]:
        """Read MODEL.LOSS and the ignored label.

        Args:
            cfg: the config.
            class_frequencies: shares of the training pixels, for the class weights; a model that
                is not trained does without.
        """
        node, weights = cfg.MODEL.LOSS, None
        if node.CLASS_WEIGHTS == "sqrt_inverse" and class_frequencies is not None:
            weights = sqrt_inverse_weights(class_frequencies)
        return {
            "ce_weight": node.CE_WEIGHT,
            "lovasz_weight": node.LOVASZ_WEIGHT,
            "ignore_label": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            "class_weights": weights,
            "ce_stride": node.CE_STRIDE,
            "lovasz_stride": node.LOVASZ_STRIDE,
        }

    def forward(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        size: tuple[int, int] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Losses of a batch.

        Args:
            logits: shape (B, K, h, w), any floating type.
            labels: shape (B, H, W), int64, values 0..K-1 or the ignore label.
            size: at least (H, W): what the logits are resized to, bilinearly, before the labels
                meet their top left part; only rows and columns that a loss looks at are. None is
                for logits at the labels' resolution.

        Returns:
            `loss_ce` and `loss_lovasz`, fp32 scalars, those whose factor is not 0.
        """
        losses = {}
        with torch.autocast(logits.device.type, enabled=False):
            logits, seen = logits.float(), (labels.shape[-2], labels.shape[-1])
            strides = {
                stride
                for stride, factor in (
                    (self.ce_stride, self.ce_weight),
                    (self.lovasz_stride, self.lovasz_weight),
                )
                if factor > 0
            }
            thinned = {
                stride: (
                    _every_nth(logits, size, seen, stride).flatten(2),
                    labels[:, ::stride, ::stride].flatten(1),
                )
                for stride in strides
            }
            if self.ce_weight > 0:
                per_image = cross_entropy_per_image(
                    *thinned[self.ce_stride], self.ignore_label, self.class_weights
                )
                losses["loss_ce"] = self.ce_weight * per_image.mean()
            if self.lovasz_weight > 0:
                value = self._lovasz(*thinned[self.lovasz_stride])
                losses["loss_lovasz"] = self.lovasz_weight * value
        return losses

    def _lovasz(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        # An image without labelled pixels adds 0, through the graph, so that every process of a
        # distributed run has the same gradients to exchange.
        total = logits.sum() * 0
        for image_logits, image_labels in zip(logits, labels, strict=True):
            valid = image_labels != self.ignore_label
            if valid.any():
                probabilities = image_logits[:, valid].softmax(dim=0)
                total = total + lovasz_softmax(probabilities, image_labels[valid])
        return total / len(labels)


def _every_nth(
    logits: torch.Tensor, size: tuple[int, int] | None, seen: tuple[int, int], stride: int
) -> torch.Tensor:
    """Every n-th row and column of the top left part of the resized logits."""
    if size is None:
        return logits[:, :, ::stride, ::stride]
    if stride == 1:
        full = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return full[:, :, : seen[0], : seen[1]]
    return resize_map_thinned(logits, size, seen, stride)
