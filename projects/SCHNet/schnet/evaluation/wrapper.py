"""What the test-time wrappers share: a module around a model, and the size of a result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

ModelInput = Mapping[str, Any]
"""One image in Detectron2's form: `image` (3, h, w), and `height` and `width` of the result."""


class ModelWrapper(nn.Module):
    """A module around a model, with its interface: a list of input dicts in, of result dicts out.

    It has the model's training mode, and `.train()` and `.eval()` reach the model as they would
    reach it alone; parts that are frozen in evaluation mode stay there.
    """

    def __init__(self, model: nn.Module) -> None:
        """Keep the model and take on its mode."""
        super().__init__()
        self.model = model
        # A new module is in training mode, and whoever restores that restores the model's.
        self.training = model.training


def result_size(entry: ModelInput) -> tuple[int, int]:
    """Give height and width of an image's result: the image's own where they are not given."""
    height, width = entry["image"].shape[-2:]
    return entry.get("height", height), entry.get("width", width)


def resize_scores(scores: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize logits or probabilities bilinearly, as SCHNet does; (K, h, w) to (K, *size)."""
    if tuple(scores.shape[-2:]) == tuple(size):
        return scores
    return F.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]
