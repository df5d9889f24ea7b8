"""What is drawn at random for one training image: scale, place, angle and mirroring of its crop.

A crop is drawn first, as a `Geometry` in the stored image, and only what it sees is worked on.
All randomness comes from the generator that is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from schnet.data.geometry import CropGeometry, Geometry, TurnedCrop, fit_scale
from schnet.data.reading import REDUCTIONS, UInt8Array

# An image is only decoded at a reduced scale where dropping a part of a block at its far edges
# loses less than 1/32 of a side.
_MIN_BLOCKS = 32
# Angles are cut at so many standard deviations.
_MAX_SIGMAS = 2.0
_NORMAL = NormalDist()


class RandomRotation:
    """Draws angles: none, or one of a normal distribution cut at two standard deviations."""

    def __init__(self, prob: float, sigma: float) -> None:
        """Keep the distribution.

        Args:
            prob: probability of turning, in [0, 1].
            sigma: standard deviation of the angle in degrees, before it is cut; >= 0.
        """
        self.prob = prob
        self.sigma = sigma

    def draw(self, rng: np.random.Generator) -> float:
        """Draw an angle in degrees, 0 for none; two numbers are taken, none where `prob` is 0."""
        if self.prob == 0:
            return 0.0
        chance, share = rng.random(2)
        if chance >= self.prob:
            return 0.0
        # The quantile function takes one number; samplers of the normal distribution take several.
        low, high = _NORMAL.cdf(-_MAX_SIGMAS), _NORMAL.cdf(_MAX_SIGMAS)
        return self.sigma * _NORMAL.inv_cdf(min(max(share, low), high))


class RandomCrop:
    """Draws `Geometry`s: fit, random scale, crop or padding, rotation, mirroring."""

    def __init__(
        self,
        size: tuple[int, int],
        scale_range: tuple[float, float],
        mirror_prob: float,
        *,
        letterbox: bool = False,
        rotation: RandomRotation | None = None,
    ) -> None:
        """Keep the distribution.

        Args:
            size: height and width of every crop.
            scale_range: lowest and highest factor on the scale that fits an image into `size`;
                drawn log-uniformly.
            mirror_prob: probability of mirroring, in [0, 1].
            letterbox: the image's middle comes to the crop's middle, so that it is cut or padded
                evenly, to the pixel; otherwise its place is random.
            rotation: angles to turn crops by; None turns none.
        """
        self.size = size
        self.scale_range = scale_range
        self.mirror_prob = mirror_prob
        self.letterbox = letterbox
        self.rotation = rotation or RandomRotation(0.0, 0.0)

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> Geometry:
        """Draw a crop of an image.

        Args:
            size: the image's height and width as stored.
            rng: source of every random number; six are taken whatever the sizes, then those of
                the rotation.
        """
        draws = rng.random(6)
        places = np.full(4, 0.5) if self.letterbox else draws[1:5]
        low, high = np.log(self.scale_range)
        scale = fit_scale(size, self.size) * math.exp(low + (high - low) * draws[0])
        reduction = next(
            r for r in REDUCTIONS if r == 1 or (scale * r <= 1 and min(size) >= _MIN_BLOCKS * r)
        )
        rows = _draw_side(size[0], self.size[0], scale, reduction, places[0], places[1])
        columns = _draw_side(size[1], self.size[1], scale, reduction, places[2], places[3])
        upright = CropGeometry(
            box=(rows[0], columns[0], rows[1], columns[1]),
            resized=(rows[2], columns[2]),
            offset=(rows[3], columns[3]),
            canvas=self.size,
            mirror=bool(draws[5] < self.mirror_prob),
            reduction=reduction,
        )
        angle = self.rotation.draw(rng)
        if angle == 0:
            return upright
        return TurnedCrop(
            middle=upright.middle,
            step=1 / scale,
            angle=angle,
            size=size,
            canvas=self.size,
            mirror=upright.mirror,
            reduction=reduction,
        )


def _draw_side(
    length: int, wanted: int, scale: float, reduction: int, where: float, pad: float
) -> tuple[int, int, int, int]:
    """Draw one side of a crop: start and length in the image, length and offset on the canvas."""
    blocks = length // reduction
    if length * scale < wanted:
        resized = min(wanted, max(1, round(blocks * reduction * scale)))
        return 0, blocks * reduction, resized, int(pad * (wanted - resized + 1))
    taken = min(blocks, max(1, round(wanted / scale / reduction)))
    start = int(where * (blocks - taken + 1))
    return start * reduction, taken * reduction, wanted, 0


def mirror_table(pairs: Sequence[tuple[int, int]]) -> UInt8Array:
    """Give the label that each label becomes when its image is mirrored.

    Args:
        pairs: label values that change places.

    Returns:
        uint8 (256,), a lookup table.
    """
    table = np.arange(256, dtype=np.uint8)
    for left, right in pairs:
        table[left], table[right] = right, left
    return table
