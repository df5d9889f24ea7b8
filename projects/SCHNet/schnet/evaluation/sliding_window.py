"""Large photos parsed in overlapping windows, whose probabilities are averaged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import nn

from schnet.evaluation.wrapper import ModelInput, ModelWrapper, resize_scores, result_size


@dataclass(frozen=True)
class WindowAxis:
    """The windows' places along one side of an image.

    Attributes:
        length: the side's length in pixels.
        window: the windows' length; at most `length`.
        starts: where the n windows begin: evenly spaced to the pixel, the first at 0 and the last
            flush with the end.
    """

    length: int
    window: int
    starts: tuple[int, ...]

    @classmethod
    def cover(cls, length: int, window: int, overlap: float) -> WindowAxis:
        """Place as few windows as have the overlap.

        Args:
            length: the side's length in pixels, >= 1.
            window: the windows' length, >= 1; a shorter side is one window.
            overlap: smallest share of its length that a window has in common with the next one,
                in [0, 1); a window begins at least one pixel after the one before, though.
        """
        if length <= window:
            return cls(length, length, (0,))
        stride = max(1, window - math.ceil(window * overlap))
        gaps = math.ceil((length - window) / stride)
        starts = tuple(number * (length - window) // gaps for number in range(gaps + 1))
        return cls(length, window, starts)

    def weights(self) -> torch.Tensor:
        """Give each window's share in the average of each of its pixels.

        Within a window the share falls off linearly from the middle to the ends, where the model
        has seen the least of what is around a pixel. Where two windows overlap, one fades into
        the other, so that they meet without a seam.

        Returns:
            (n, window), fp32; at every pixel of the side the shares of its windows sum to 1.
        """
        rising = torch.arange(1, self.window + 1, dtype=torch.float32)
        ramp = torch.minimum(rising, rising.flip(0))
        total = torch.zeros(self.length)
        for start in self.starts:
            total[start : start + self.window] += ramp
        return torch.stack([ramp / total[start : start + self.window] for start in self.starts])


class SlidingWindow(ModelWrapper):
    """Parses an image window by window; one that fits in a window goes to the model as it is."""

    def __init__(
        self, model: nn.Module, window: tuple[int, int], overlap: float, batch_size: int
    ) -> None:
        """Take the parts.

        Args:
            model: gives `sem_seg` (K, height, width) logits.
            window: height and width of a window in pixels; cut to the image where that is
                smaller.
            overlap: smallest share of a window's side that it has in common with the next one, in
                [0, 1).
            batch_size: windows of an image that are given to the model together; >= 1.
        """
        super().__init__(model)
        self.window = window
        self.overlap = overlap
        self.batch_size = batch_size

    def forward(self, batched_inputs: Sequence[ModelInput]) -> list[dict[str, torch.Tensor]]:
        """Parse images one after the other.

        Args:
            batched_inputs: one dict an image: `image` (3, h, w) at the resolution that it is to
                be parsed in; `height` and `width` of the result, the image's own where they are
                missing.

        Returns:
            One dict an image, in order, with `sem_seg` (K, height, width): the logarithm of the
            mean probabilities, fp32. So its softmax gives probabilities as that of logits does.
            The model's logits themselves where the image fits in one window.
        """
        return [self._parse(entry) for entry in batched_inputs]

    def _parse(self, entry: ModelInput) -> dict[str, torch.Tensor]:
        rows, columns = (
            WindowAxis.cover(length, window, self.overlap)
            for length, window in zip(entry["image"].shape[-2:], self.window, strict=True)
        )
        height, width = result_size(entry)
        if len(rows.starts) == len(columns.starts) == 1:
            return self.model([{**entry, "height": height, "width": width}])[0]
        probabilities = resize_scores(self._average(entry, rows, columns), (height, width))
        # Probabilities may round to 0, whose logarithm no later sum could use.
        tiny = torch.finfo(probabilities.dtype).tiny
        return {"sem_seg": probabilities.clamp_(min=tiny).log_()}

    def _average(self, entry: ModelInput, rows: WindowAxis, columns: WindowAxis) -> torch.Tensor:
        """Give the weighted mean probabilities, (K, h, w) of the image, fp32."""
        windows = list(
            product(
                zip(rows.starts, rows.weights(), strict=True),
                zip(columns.starts, columns.weights(), strict=True),
            )
        )
        image = entry["image"]
        mean: torch.Tensor | None = None
        for first in range(0, len(windows), self.batch_size):
            chunk = windows[first : first + self.batch_size]
            cuts = [
                image[:, top : top + rows.window, left : left + columns.window]
                for (top, _), (left, _) in chunk
            ]
            size = {"height": rows.window, "width": columns.window}
            results = self.model([{**entry, "image": cut, **size} for cut in cuts])
            for ((top, down), (left, across)), result in zip(chunk, results, strict=True):
                share = result.pop("sem_seg").float().softmax(dim=0)
                share *= down.to(share.device)[:, None] * across.to(share.device)
                if mean is None:
                    mean = share.new_zeros((share.shape[0], *image.shape[-2:]))
                mean[:, top : top + rows.window, left : left + columns.window] += share
        assert mean is not None
        return mean
