"""Test-time augmentation: one prediction from several scales of a photo and their mirror images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from schnet.data.augmentation import mirror_table
from schnet.errors import InputError
from schnet.evaluation.wrapper import ModelInput, ModelWrapper, result_size


class SegmentorWithTTA(ModelWrapper):
    """Averages the probabilities of an image's views, and of the views mirrored.

    What `SemanticSegmentorWithTTA` of Detectron2's projects does, with two differences: the views
    come with the input, since only the mapper has the original pixels, and mirrored predictions
    get the labels of left and right swapped. Views are added up as they come: beside the sum
    only one view's prediction is in memory.
    """

    def __init__(self, model: nn.Module, mirrored_channels: Sequence[int] | None) -> None:
        """Take the parts.

        Args:
            model: gives `sem_seg` (K, height, width): logits, or anything whose softmax gives
                probabilities, such as their logarithm.
            mirrored_channels: for each label, the one that it becomes in a mirrored image (see
                the function of this name); None does not mirror.
        """
        super().__init__(model)
        self.mirrored_channels = None if mirrored_channels is None else tuple(mirrored_channels)

    def forward(self, batched_inputs: Sequence[ModelInput]) -> list[dict[str, torch.Tensor]]:
        """Parse a batch.

        Args:
            batched_inputs: one dict an image: `views`, dicts with the model's input but for
                `height` and `width`, as many for every image; `height` and `width` of the
                result, those of `image` where they are missing.

        Returns:
            One dict an image, in order, with `sem_seg` (K, height, width), fp32: the mean
            probabilities. The logits as they are where there is one view and no mirroring.
        """
        num_views = len(batched_inputs[0]["views"]) if batched_inputs else 0
        if num_views == 1 and self.mirrored_channels is None:
            return self.model([_view(entry, 0) for entry in batched_inputs])
        sums: list[torch.Tensor] = []
        for number in range(num_views):
            views = [_view(entry, number) for entry in batched_inputs]
            self._add(sums, self.model(views))
            if self.mirrored_channels is not None:
                mirrored = [{**view, "image": view["image"].flip(-1)} for view in views]
                self._add_mirrored(sums, self.model(mirrored))
        count = num_views * (1 if self.mirrored_channels is None else 2)
        return [{"sem_seg": total.div_(count)} for total in sums]

    def _add(self, sums: list[torch.Tensor], results: Sequence[dict[str, torch.Tensor]]) -> None:
        first = not sums
        for number, result in enumerate(results):
            probabilities = result.pop("sem_seg").float().softmax(dim=0)
            if first:
                sums.append(probabilities)
            else:
                sums[number] += probabilities

    def _add_mirrored(
        self, sums: list[torch.Tensor], results: Sequence[dict[str, torch.Tensor]]
    ) -> None:
        assert self.mirrored_channels is not None
        for total, result in zip(sums, results, strict=True):
            probabilities = result.pop("sem_seg").float().softmax(dim=0)
            # Channel by channel: swapping and mirroring all at once would take two copies of them.
            for channel, mirrored in enumerate(self.mirrored_channels):
                total[channel] += probabilities[mirrored].flip(-1)


def mirrored_channels(pairs: Sequence[tuple[int, int]], num_classes: int) -> tuple[int, ...]:
    """Give the label that each label becomes when its image is mirrored.

    Args:
        pairs: labels that change places; each label is in one pair at most.
        num_classes: K.

    Returns:
        K labels; labels of no pair stay.

    Raises:
        InputError: a label is in two pairs, or is not in 0..K-1.
    """
    members = [label for pair in pairs for label in pair]
    if len(set(members)) < len(members) or not all(0 <= label < num_classes for label in members):
        raise InputError(
            f"the mirror pairs {[tuple(pair) for pair in pairs]} do not fit {num_classes} labels: "
            f"each label 0..{num_classes - 1} may be in one pair; correct the data set's "
            "mirror_pairs, or set TEST.AUG.FLIP False"
        )
    return tuple(mirror_table(pairs)[:num_classes].tolist())


def _view(entry: ModelInput, number: int) -> ModelInput:
    height, width = result_size(entry)
    return {**entry, **entry["views"][number], "height": height, "width": width}
