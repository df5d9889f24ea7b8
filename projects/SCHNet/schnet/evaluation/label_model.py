"""A model of labels: the argmax of another one's scores, at the photo's size."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from schnet.evaluation.argmax import label_map
from schnet.evaluation.wrapper import ModelInput, ModelWrapper, image_name, score_maps


class LabelModel(ModelWrapper):
    """Takes the argmax band by band, so that no scores of the photo's size are ever made."""

    def forward(self, batched_inputs: Sequence[ModelInput]) -> list[dict[str, torch.Tensor]]:
        """Parse a batch.

        Args:
            batched_inputs: one dict an image, as the model takes them.

        Returns:
            One dict an image, in order, with `labels` (height, width), uint8, on the CPU.

        Raises:
            NaNScoreError: the model's prediction is not a number.
        """
        found = score_maps(self.model, batched_inputs)
        return [
            {"labels": torch.from_numpy(label_map(scores, image_name(entry)))}
            for entry, scores in zip(batched_inputs, found, strict=True)
        ]
