"""Test-time augmentation: one prediction from several scales of a photo and their mirror images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from schnet.data.augmentation import mirror_table
from schnet.errors import InputError
from schnet.evaluation.wrapper import ModelInput, ScoreWrapper, result_size, score_maps
from schnet.score_maps import ScoreMap


class MeanProbabilities(ScoreMap):
    """The mean of the probabilities of an image's views, and of the views mirrored."""

    normalized = True

    def __init__(
        self,
        views: Sequence[ScoreMap],
        mirrored: Sequence[ScoreMap],
        mirrored_channels: Sequence[int],
    ) -> None:
        """Take the scores.

        Args:
            views: at least one, each (K, H, W): logits, or the logarithm of probabilities.
            mirrored: of each view's mirror image, as many or none.
            mirrored_channels: for each label, the one that it becomes in a mirrored image.
        """
        every = (*views, *mirrored)
        super().__init__(
            views[0].shape,
            views[0].device,
            row_sources=sum(view.row_bytes for view in every),
            whole_sources=sum(view.whole_bytes for view in every),
        )
        self._views, self._mirrored = tuple(views), tuple(mirrored)
        self._mirrored_channels = tuple(mirrored_channels)

    def rows(self, first: int, last: int) -> torch.Tensor:
        """See `ScoreMap.rows`."""
        return self._mean(lambda view: view.rows(first, last))

    def whole(self) -> torch.Tensor:
        """See `ScoreMap.whole`."""
        return self._mean(lambda view: view.whole())

    def _mean(self, band: Callable[[ScoreMap], torch.Tensor]) -> torch.Tensor:
        total: torch.Tensor | None = None
        for number, view in enumerate(self._views):
            probabilities = band(view).softmax(dim=0)
            total = probabilities if total is None else total.add_(probabilities)
            if self._mirrored:
                self._add_mirrored(total, band(self._mirrored[number]).softmax(dim=0))
        assert total is not None
        return total.div_(len(self._views) + len(self._mirrored))

    def _add_mirrored(self, total: torch.Tensor, probabilities: torch.Tensor) -> None:
        # Channel by channel: swapping and mirroring all at once would take two copies of them.
        for channel, mirrored in enumerate(self._mirrored_channels):
            total[channel] += probabilities[mirrored].flip(-1)


class SegmentorWithTTA(ScoreWrapper):
    """Averages the probabilities of an image's views, and of the views mirrored.

    What `SemanticSegmentorWithTTA` of Detectron2's projects does, with two differences: the views
    come with the input, since only the mapper has the original pixels, and mirrored predictions
    get the labels of left and right swapped. Views are added up band by band: beside a band, only
    what the model gives before it is resized is in memory.
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

    def score_maps(self, batched_inputs: Sequence[ModelInput]) -> list[ScoreMap]:
        """Parse a batch.

        Args:
            batched_inputs: one dict an image: `views`, dicts with the model's input but for
                `height` and `width`, as many for every image; `height` and `width` of the
                result, those of `image` where they are missing.

        Returns:
            One map an image, in order, (K, height, width): the mean probabilities. The logits as
            they are where there is one view and no mirroring.
        """
        num_views = len(batched_inputs[0]["views"]) if batched_inputs else 0
        if num_views == 1 and self.mirrored_channels is None:
            return score_maps(self.model, [_view(entry, 0) for entry in batched_inputs])
        straight: list[list[ScoreMap]] = []
        mirrored: list[list[ScoreMap]] = []
        for number in range(num_views):
            views = [_view(entry, number) for entry in batched_inputs]
            straight.append(score_maps(self.model, views))
            if self.mirrored_channels is not None:
                images = [{**view, "image": view["image"].flip(-1)} for view in views]
                mirrored.append(score_maps(self.model, images))
        return [
            MeanProbabilities(
                [view[number] for view in straight],
                [view[number] for view in mirrored],
                self.mirrored_channels or (),
            )
            for number in range(len(batched_inputs))
        ]


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
