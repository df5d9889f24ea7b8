"""A segmentation model of one convolution, for the tests of what is put around models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Entry = dict[str, Any]


class ConvSegmentor(nn.Module):
    """Logits by one random convolution, resized to `height` and `width`; records what it saw.

    With a kernel of 1 each pixel is parsed alone; with more it is no longer symmetric either.
    """

    def __init__(self, num_classes: int = 4, kernel_size: int = 1) -> None:
        super().__init__()
        torch.manual_seed(num_classes)
        self.conv = nn.Conv2d(3, num_classes, kernel_size, padding=kernel_size // 2)
        nn.init.normal_(self.conv.weight, std=3 / kernel_size)
        self.seen: list[list[Entry]] = []

    def forward(self, batch: Sequence[Entry]) -> list[dict[str, torch.Tensor]]:
        self.seen.append(list(batch))
        results = []
        for entry in batch:
            logits = self.conv(entry["image"].float()[None] / 255)
            size = (entry["height"], entry["width"])
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
            results.append({"sem_seg": logits[0]})
        return results

    def sizes(self) -> list[list[tuple[int, int]]]:
        """Height and width of the images of each call."""
        return [[tuple(entry["image"].shape[-2:]) for entry in batch] for batch in self.seen]


def photo(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A random image, uint8 (3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def entry_of(image: torch.Tensor, height: int, width: int, *views: torch.Tensor) -> Entry:
    """An input dict; each view has the box that it fills."""
    entry: Entry = {"image": image, "box": tuple(image.shape[-2:])}
    entry |= {"height": height, "width": width}
    if views:
        entry["views"] = [{"image": view, "box": tuple(view.shape[-2:])} for view in views]
    return entry
