"""Large photos parsed in overlapping windows, whose probabilities are averaged."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import nn

from schnet.evaluation.wrapper import ModelInput, ScoreWrapper, result_size, score_maps
from schnet.score_maps import ScoreMap, resized


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


@dataclass(frozen=True)
class _Window:
    """A parsed window of an image.

    Attributes:
        top: its first row in the image.
        left: its first column.
        down: (h,) its share in the mean along its height, which `across` multiplies.
        across: (w,) likewise along its width.
        scores: its logits, (K, h, w).
    """

    top: int
    left: int
    down: torch.Tensor
    across: torch.Tensor
    scores: ScoreMap

    @property
    def bottom(self) -> int:
        return self.top + self.scores.shape[1]

    def share(self, first: int, last: int, logits: torch.Tensor) -> torch.Tensor:
        """What the rows `first` to `last` - 1, whose logits these are, add to the mean."""
        return logits.softmax(dim=0).mul_(self.down[first:last, None] * self.across)


class WindowProbabilities(ScoreMap):
    """The weighted mean of the probabilities of an image's windows.

    Windows are parsed a batch ahead of the rows that are asked for, and given up after their last
    row: those of one or a few rows of windows are in memory, as the model gives them.
    """

    def __init__(
        self, batches: Iterator[list[_Window]], rows: WindowAxis, columns: WindowAxis
    ) -> None:
        """Take the windows.

        Args:
            batches: at least one, of parsed windows, row by row.
            rows: the windows' places from top to bottom.
            columns: and from left to right.
        """
        self._waiting = batches
        self._parsed = deque(next(batches))
        self._done = 0
        scores = self._parsed[0].scores
        shape = (scores.shape[0], rows.length, columns.length)
        row_sources = scores.row_bytes * len(columns.starts)
        super().__init__(shape, scores.device, row_sources=row_sources)

    def rows(self, first: int, last: int) -> torch.Tensor:
        """See `ScoreMap.rows`.

        Raises:
            ValueError: some of the rows were asked for before.
        """

        def part(window: _Window) -> tuple[int, torch.Tensor]:
            top, bottom = max(first, window.top), min(last, window.bottom)
            own = (top - window.top, bottom - window.top)
            return top - first, window.share(*own, window.scores.rows(*own))

        return self._add_up(first, last, part)

    def whole(self) -> torch.Tensor:
        """See `ScoreMap.whole`; raises as `rows` does."""

        def part(window: _Window) -> tuple[int, torch.Tensor]:
            return window.top, window.share(0, window.scores.shape[1], window.scores.whole())

        return self._add_up(0, self.shape[1], part)

    def _add_up(
        self, first: int, last: int, part: Callable[[_Window], tuple[int, torch.Tensor]]
    ) -> torch.Tensor:
        """Add the parts of all windows that reach into a band; `part` gives row and values."""
        if first < self._done:
            raise ValueError(f"row {first} is asked for, and those to {self._done} were given up")
        self._done = last
        mean = torch.zeros((self.shape[0], last - first, self.shape[2]), device=self.device)
        still_wanted: deque[_Window] = deque()
        while window := self._next(last):
            row, values = part(window)
            _, height, width = values.shape
            mean[:, row : row + height, window.left : window.left + width] += values
            if window.bottom > last:
                still_wanted.append(window)
        self._parsed.extendleft(reversed(still_wanted))
        return mean

    def _next(self, last: int) -> _Window | None:
        """Take the next window that begins above a row; None where there is none."""
        if not self._parsed:
            self._parsed.extend(next(self._waiting, ()))
        if not self._parsed or self._parsed[0].top >= last:
            return None
        return self._parsed.popleft()


class LogProbabilities(ScoreMap):
    """The logarithm of probabilities, whose softmax gives them back."""

    def __init__(self, probabilities: ScoreMap) -> None:
        """Take the probabilities."""
        super().__init__(
            probabilities.shape,
            probabilities.device,
            row_sources=probabilities.row_bytes,
            whole_sources=probabilities.whole_bytes,
        )
        self._probabilities = probabilities

    def rows(self, first: int, last: int) -> torch.Tensor:
        """See `ScoreMap.rows`."""
        return self._log(self._probabilities.rows(first, last))

    def whole(self) -> torch.Tensor:
        """See `ScoreMap.whole`."""
        return self._log(self._probabilities.whole())

    def _log(self, probabilities: torch.Tensor) -> torch.Tensor:
        # Probabilities may round to 0, whose logarithm no later sum could use.
        return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log_()


class SlidingWindow(ScoreWrapper):
    """Parses an image window by window; one that fits in a window goes to the model as it is."""

    def __init__(
        self, model: nn.Module, window: tuple[int, int], overlap: float, batch_size: int
    ) -> None:
        """Take the parts.

        Args:
            model: gives logits (K, height, width), as maps or as `sem_seg`.
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

    def score_maps(self, batched_inputs: Sequence[ModelInput]) -> list[ScoreMap]:
        """Parse images one after the other.

        Args:
            batched_inputs: one dict an image: `image` (3, h, w) at the resolution that it is to
                be parsed in; `height` and `width` of the result, the image's own where they are
                missing.

        Returns:
            One map an image, in order, (K, height, width): the logarithm of the mean
            probabilities. So its softmax gives probabilities as that of logits does. The model's
            logits themselves where the image fits in one window. Windows are parsed as bands are
            asked for: under the caller's autocast and gradient mode of then.
        """
        return [self._parse(entry) for entry in batched_inputs]

    def _parse(self, entry: ModelInput) -> ScoreMap:
        rows, columns = (
            WindowAxis.cover(length, window, self.overlap)
            for length, window in zip(entry["image"].shape[-2:], self.window, strict=True)
        )
        height, width = result_size(entry)
        if len(rows.starts) == len(columns.starts) == 1:
            return score_maps(self.model, [{**entry, "height": height, "width": width}])[0]
        mean = WindowProbabilities(self._batches(entry, rows, columns), rows, columns)
        return LogProbabilities(resized(mean, (height, width)))

    def _batches(
        self, entry: ModelInput, rows: WindowAxis, columns: WindowAxis
    ) -> Iterator[list[_Window]]:
        """Parse the windows, a batch at a time."""
        places = list(
            product(
                zip(rows.starts, rows.weights(), strict=True),
                zip(columns.starts, columns.weights(), strict=True),
            )
        )
        size = {"height": rows.window, "width": columns.window}
        for first in range(0, len(places), self.batch_size):
            chunk = places[first : first + self.batch_size]
            cuts = [
                entry["image"][:, top : top + rows.window, left : left + columns.window]
                for (top, _), (left, _) in chunk
            ]
            parsed = score_maps(self.model, [{**entry, "image": cut, **size} for cut in cuts])
            yield [
                _Window(top, left, down.to(scores.device), across.to(scores.device), scores)
                for ((top, down), (left, across)), scores in zip(chunk, parsed, strict=True)
            ]
