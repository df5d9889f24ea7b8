"""What the test-time wrappers share: a module around a model, and the size of a result."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from schnet.score_maps import HeldScores, ScoreMap

ModelInput = Mapping[str, Any]
"""One image in Detectron2's form: `image` (3, h, w), and `height` and `width` of the result."""


class ModelWrapper(nn.Module):
    """A module around a model, with its interface: a list of input dicts in, of result dicts out.

    It has the model's training mode, and `.train()` and `.eval()` reach the model as they would
    reach it alone; parts that are frozen in evaluation mode stay there.
    """

    model: nn.Module

    def __init__(self, model: nn.Module) -> None:
        """Keep the model and take on its mode."""
        super().__init__()
        self.model = model
        # A new module is in training mode, and whoever restores that restores the model's.
        self.training = model.training


class ScoreWrapper(ModelWrapper):
    """A wrapper whose results are scores: band by band, or all at once as `sem_seg`."""

    @abstractmethod
    def score_maps(self, batched_inputs: Sequence[ModelInput]) -> list[ScoreMap]:
        """Parse a batch; one map (K, height, width) an image, in order."""

    def forward(self, batched_inputs: Sequence[ModelInput]) -> list[dict[str, torch.Tensor]]:
        """Parse a batch in Detectron2's form.

        Args:
            batched_inputs: as `score_maps` takes them.

        Returns:
            One dict an image, in order, with `sem_seg` (K, height, width), fp32.
        """
        return [{"sem_seg": scores.whole()} for scores in self.score_maps(batched_inputs)]


def score_maps(model: nn.Module, batched_inputs: Sequence[ModelInput]) -> list[ScoreMap]:
    """Parse a batch with a model.

    Args:
        model: one with a method `score_maps`, as SCHNet and the wrappers have it, or another that
            gives dicts with `sem_seg` (K, height, width), which is held as it is then.
        batched_inputs: what the model takes.

    Returns:
        One map (K, height, width) an image, in order.
    """
    own = getattr(model, "score_maps", None)
    if own is not None:
        return own(batched_inputs)
    return [HeldScores(result.pop("sem_seg")) for result in model(batched_inputs)]


def result_size(entry: ModelInput) -> tuple[int, int]:
    """Give height and width of an image's result: the image's own where they are not given."""
    height, width = entry["image"].shape[-2:]
    return entry.get("height", height), entry.get("width", width)


def image_name(entry: ModelInput) -> str:
    """Give an image's file name, for errors."""
    return str(entry.get("file_name", "an image"))
