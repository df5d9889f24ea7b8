"""Images padded to their test box before a model sees them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from schnet.data.view_sizes import offset
from schnet.evaluation.wrapper import ModelInput, ScoreWrapper, result_size, score_maps
from schnet.score_maps import ScoreMap, cropped, resized


class Letterbox(ScoreWrapper):
    """Pads images that were fitted into a box to the whole box, and cuts the padding off again.

    The image stays in the middle. A pixel of padding that is left over goes to the bottom or to
    the right. All images of a box have one size then, and make up full batches.
    """

    def __init__(self, model: torch.nn.Module, pad_color: tuple[int, int, int]) -> None:
        """Take the parts.

        Args:
            model: gives `sem_seg` (K, height, width).
            pad_color: RGB of the padding, 0..255.
        """
        super().__init__(model)
        self.pad_color = pad_color

    def score_maps(self, batched_inputs: Sequence[ModelInput]) -> list[ScoreMap]:
        """Parse a batch.

        Args:
            batched_inputs: one dict an image: `image` (3, h, w), not larger than its `box`
                (height and width in pixels); `height` and `width` of the result, the image's own
                where they are missing.

        Returns:
            One map an image, in order, (K, height, width).
        """
        padded = [self._pad(entry) for entry in batched_inputs]
        found = []
        for entry, scores in zip(batched_inputs, score_maps(self.model, padded), strict=True):
            height, width = entry["image"].shape[-2:]
            top, left = offset((height, width), entry["box"])
            inside = cropped(scores, top, left, (height, width))
            found.append(resized(inside, result_size(entry)))
        return found

    def _pad(self, entry: ModelInput) -> ModelInput:
        image, (box_height, box_width) = entry["image"], entry["box"]
        height, width = image.shape[-2:]
        top, left = offset((height, width), (box_height, box_width))
        color = torch.tensor(self.pad_color, dtype=image.dtype, device=image.device)
        padded = color[:, None, None].repeat(1, box_height, box_width)
        padded[:, top : top + height, left : left + width] = image
        return {**entry, "image": padded, "height": box_height, "width": box_width}
