"""Scores of every pixel's labels, made band by band: never K planes of a photo's size at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate, groupby

import torch
import torch.nn.functional as F

# Up to this height + width, torch resizes on CPUs with another kernel, which rounds differently.
_OTHER_KERNEL = 128
_FLOAT_BYTES = 4
# Numbers up to which torch works on them in one thread on a CPU.
_UNDIVIDED = (1 << 15) - 1


class ScoreMap(ABC):
    """Scores (K, H, W) of an image's pixels, of which any band of rows can be asked for.

    Attributes:
        shape: K, H and W.
        device: where the bands are.
        row_bytes: the most memory that one row takes, or what it is made of.
        whole_bytes: likewise of the whole.
        normalized: the scores are probabilities already; elsewhere their softmax gives them.
    """

    normalized = False

    def __init__(
        self,
        shape: tuple[int, int, int],
        device: torch.device,
        *,
        row_sources: float = 0,
        whole_sources: float = 0,
    ) -> None:
        """Take what is known.

        Args:
            shape: K, H and W.
            device: where the bands are.
            row_sources: bytes of what one row is made of; 0 where it is there anyway.
            whole_sources: likewise of the whole.
        """
        self.shape = shape
        self.device = device
        row = _FLOAT_BYTES * shape[0] * shape[2]
        self.row_bytes = max(row, row_sources)
        self.whole_bytes = max(row * shape[1], whole_sources)

    @abstractmethod
    def rows(self, first: int, last: int) -> torch.Tensor:
        """Give the rows `first` to `last` - 1.

        Each row is asked for once, from the top to the bottom, since what they are made of is
        given up on the way. They are not differentiable: see `whole`.

        Args:
            first: >= 0.
            last: > `first`, at most H.

        Returns:
            (K, last - first, W), fp32; valid until the next call, and not to be changed.
        """

    @abstractmethod
    def whole(self) -> torch.Tensor:
        """Give all rows at once, (K, H, W), fp32: what `rows` is there to avoid."""


class HeldScores(ScoreMap):
    """Scores that are in memory."""

    def __init__(self, scores: torch.Tensor) -> None:
        """Take the scores (K, H, W), of any floating type."""
        classes, height, width = scores.shape
        super().__init__((classes, height, width), scores.device)
        # A head in bf16 may give its channels last, and planes are what is resized and compared:
        # three times as fast, and by the kernel that the bands' arithmetic is that of.
        self._scores = scores.contiguous()

    def rows(self, first: int, last: int) -> torch.Tensor:
        """See `ScoreMap.rows`."""
        return self._scores[:, first:last].float()

    def whole(self) -> torch.Tensor:
        """See `ScoreMap.whole`."""
        return self._scores.float()


class CroppedScores(ScoreMap):
    """A rectangle of other scores."""

    def __init__(self, source: ScoreMap, top: int, left: int, size: tuple[int, int]) -> None:
        """Take the scores, and where the rectangle begins and its height and width."""
        super().__init__(
            (source.shape[0], *size),
            source.device,
            row_sources=source.row_bytes,
            whole_sources=source.whole_bytes,
        )
        self._source, self._top, self._left = source, top, left

    def rows(self, first: int, last: int) -> torch.Tensor:
        """See `ScoreMap.rows`."""
        return self._cut(self._source.rows(self._top + first, self._top + last))

    def whole(self) -> torch.Tensor:
        """See `ScoreMap.whole`."""
        return self._cut(self._source.whole()[:, self._top : self._top + self.shape[1]])

    def _cut(self, rows: torch.Tensor) -> torch.Tensor:
        return rows[..., self._left : self._left + self.shape[2]]


class ResizedScores(ScoreMap):
    """Other scores resized bilinearly, by the arithmetic of `F.interpolate` (align_corners False).

    A band is made of the source's rows that it lies between: these are widened first, and then
    mixed. So does torch, in this order and with the same roundings wherever its kernels multiply
    and add at once, as on every CPU with AVX2; the values are the same to the last bit then.
    """

    def __init__(self, source: ScoreMap, size: tuple[int, int]) -> None:
        """Take the scores, and height and width to bring them to."""
        super().__init__(
            (source.shape[0], *size),
            source.device,
            row_sources=source.row_bytes * source.shape[1] / size[0],
            whole_sources=source.whole_bytes,
        )
        self._source = source
        self._upper, self._shares = _places(source.shape[1], size[0])
        self._shares = self._shares.to(source.device)
        # The latest widened rows, up to `_kept_last`: the next band begins among them.
        self._kept: torch.Tensor | None = None
        self._kept_last = 0
        self._band: torch.Tensor | None = None

    def rows(self, first: int, last: int) -> torch.Tensor:
        """See `ScoreMap.rows`."""
        _, height, width = self.shape
        if height + width > _OTHER_KERNEL:
            return self._mix(first, last)
        if self._kept is None:
            self._kept = self.whole()
        return self._kept[:, first:last]

    def whole(self) -> torch.Tensor:
        """See `ScoreMap.whole`."""
        scores, size = self._source.whole(), self.shape[1:]
        return F.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]

    def _mix(self, first: int, last: int) -> torch.Tensor:
        classes, _, width = self.shape
        lowest = self._source.shape[1] - 1
        upper = self._upper[first:last]
        start = upper[0]
        widened = self._widened(start, min(upper[-1] + 1, lowest) + 1)
        if self._band is None or self._band.shape[1] != last - first:
            # Fresh memory comes page by page, which takes longer than what is done with it.
            self._band = widened.new_empty((classes, last - first, width))
        above = [row - start for row in upper]
        below = [min(row + 1, lowest) - start for row in upper]
        shares = self._shares[:, first:last, None]
        mix = _mix_in_pieces if self.device.type == "cpu" else _mix_at_once
        mix(widened, above, below, shares, self._band)
        return self._band

    def _widened(self, first: int, last: int) -> torch.Tensor:
        """Rows of the source at the width of the result; what the latest band had is not redone."""
        classes, _, width = self.shape
        found = torch.empty((classes, last - first, width), device=self.device)
        known = 0
        if self._kept is not None:
            known = max(0, min(self._kept_last, last) - first)
            kept_first = self._kept_last - self._kept.shape[1]
            again = self._kept[:, first - kept_first : first - kept_first + known]
            for plane, old in zip(found, again, strict=True):
                plane[:known] = old
        if first + known < last:
            _widen(self._source.rows(first + known, last), found[:, known:])
        self._kept, self._kept_last = found, last
        return found


def resized(source: ScoreMap, size: tuple[int, int]) -> ScoreMap:
    """Bring scores to a height and width; the scores themselves where they have them."""
    return source if source.shape[1:] == tuple(size) else ResizedScores(source, size)


def cropped(source: ScoreMap, top: int, left: int, size: tuple[int, int]) -> ScoreMap:
    """Cut a rectangle out of scores; the scores themselves where it is all of them."""
    same = source.shape[1:] == tuple(size)
    return source if same else CroppedScores(source, top, left, size)


def _widen(rows: torch.Tensor, out: torch.Tensor) -> None:
    """Resize rows (K, n, w) along their width into `out`, (K, n, W)."""
    classes, length, width = out.shape
    if rows.device.type != "cpu":
        out.copy_(_lines_resized(rows, width))
        return
    # In pieces, for the reasons of `_mix_in_pieces`.
    several = max(1, _UNDIVIDED // (length * width))
    step = max(1, _UNDIVIDED // width)
    for label in range(0, classes, several):
        for first in range(0, length, step):
            piece = rows[label : label + several, first : first + step]
            target = out[label : label + several, first : first + step]
            target.copy_(_lines_resized(piece, width))


def _lines_resized(rows: torch.Tensor, width: int) -> torch.Tensor:
    """Resize (K, n, w) to (K, n, `width`)."""
    if rows.shape[2] == width:
        return rows
    # As one picture's channels: the lines of a resize in one dimension.
    return F.interpolate(rows, size=width, mode="linear", align_corners=False)


def _mix_at_once(
    rows: torch.Tensor,
    above: Sequence[int],
    below: Sequence[int],
    shares: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """Mix pairs of rows.

    Args:
        rows: (K, n, W).
        above: N numbers of rows.
        below: N numbers of rows.
        shares: (2, N, 1), of the rows above and of those below.
        out: (K, N, W), takes the result.
    """
    upper, lower = (torch.tensor(numbers, device=rows.device) for numbers in (above, below))
    torch.index_select(rows, 1, lower, out=out)
    out.mul_(shares[1]).addcmul_(rows.index_select(1, upper), shares[0])


def _mix_in_pieces(
    rows: torch.Tensor,
    above: Sequence[int],
    below: Sequence[int],
    shares: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """Do as `_mix_at_once`, without copies: a run of one pair of rows in a few classes at a time.

    Such a piece stays in a core's cache, and torch does not divide it among threads: waiting for
    them at each of thousands of pieces would take far longer than the work, where other processes
    use the cores too, as loaders do.
    """
    lengths = [len(list(run)) for _, run in groupby(above)]
    starts = [0, *accumulate(lengths)][:-1]
    pairs = [(above[start], below[start]) for start in starts]
    upper_shares, lower_shares = (part.split(lengths) for part in shares)
    several = max(1, _UNDIVIDED // (max(lengths) * out.shape[2]))
    for planes, target in zip(rows.split(several), out.split(several), strict=True):
        lines, pieces = planes.split(1, dim=1), target.split(lengths, dim=1)
        for (upper, lower), u, v, piece in zip(
            pairs, upper_shares, lower_shares, pieces, strict=True
        ):
            torch.mul(lines[lower], v, out=piece).addcmul_(lines[upper], u)


def _places(source: int, length: int) -> tuple[list[int], torch.Tensor]:
    """Where the rows of a resized map lie in its source, by torch's rounding.

    Args:
        source: rows of the source.
        length: rows of the result.

    Returns:
        For each row the source's row above it, and (2, length) the shares of that row and of the
        one below, fp32.
    """
    scale = torch.tensor(source, dtype=torch.float32) / torch.tensor(length, dtype=torch.float32)
    middles = torch.arange(length, dtype=torch.float64) + 0.5
    # Rounded once, as torch's kernels multiply and subtract at once.
    places = (middles * scale.double() - 0.5).float().clamp(min=0)
    upper = places.floor().clamp(max=source - 1)
    below = (places - upper).clamp(0, 1)
    return upper.long().tolist(), torch.stack([1 - below, below])
