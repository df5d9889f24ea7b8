"""Labels decided at the size that the model works in, and then brought to the photo's size."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from schnet.data.geometry import resize_label
from schnet.evaluation.argmax import label_map
from schnet.evaluation.wrapper import (
    ModelInput,
    ModelWrapper,
    image_name,
    result_size,
    score_maps,
)


class WarpLabels(ModelWrapper):
    """Takes the argmax at the size of the fitted image and warps the label map back by nearest."""

    def forward(self, batched_inputs: Sequence[ModelInput]) -> list[dict[str, torch.Tensor]]:
        """Parse a batch.

        Args:
            batched_inputs: one dict an image: `image` (3, h, w); `height` and `width` of the
                result, the image's own where they are missing.

        Returns:
            One dict an image, in order, with `labels` (height, width), uint8, on the CPU. A
            pixel has the label of the (h, w) map's pixel that its centre lies in.

        Raises:
            NaNScoreError: the model's prediction is not a number.
        """
        as_fitted = []
        for entry in batched_inputs:
            height, width = entry["image"].shape[-2:]
            as_fitted.append({**entry, "height": height, "width": width})
        results = []
        found = score_maps(self.model, as_fitted)
        for entry, scores in zip(batched_inputs, found, strict=True):
            fitted = label_map(scores, image_name(entry))
            results.append({"labels": torch.from_numpy(resize_label(fitted, result_size(entry)))})
        return results
