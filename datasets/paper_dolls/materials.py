"""What things are made of: colours, cloth patterns and how their colour varies over a surface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]
Field = NDArray[np.float32]
Item = TypeVar("Item")

COLOURS: dict[str, Colour] = {
    "cream": (243, 231, 207),
    "white": (241, 241, 238),
    "grey": (146, 150, 156),
    "charcoal": (66, 68, 78),
    "black": (38, 37, 43),
    "mustard": (224, 168, 54),
    "yellow": (246, 212, 92),
    "terracotta": (203, 98, 66),
    "red": (196, 52, 50),
    "wine": (124, 38, 56),
    "coral": (241, 124, 104),
    "pink": (243, 178, 190),
    "rose": (214, 106, 134),
    "plum": (112, 60, 102),
    "lilac": (176, 156, 212),
    "navy": (42, 56, 98),
    "blue": (62, 106, 184),
    "denim": (84, 118, 164),
    "sky": (144, 194, 226),
    "teal": (40, 134, 134),
    "mint": (162, 214, 188),
    "green": (70, 142, 88),
    "forest": (46, 90, 68),
    "olive": (124, 124, 66),
    "brown": (116, 78, 54),
    "camel": (194, 152, 102),
    "sand": (216, 196, 160),
}


def pick(
    rng: np.random.Generator, items: Sequence[Item], weights: Sequence[float] | None = None
) -> Item:
    """Return one of the items, with probabilities proportional to the weights."""
    if weights is None:
        return items[int(rng.integers(len(items)))]
    share = np.asarray(weights, dtype=np.float64)
    return items[int(rng.choice(len(items), p=share / share.sum()))]


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """Return the colour `share` of the way from the first to the second."""
    a, b = np.asarray(first), np.asarray(second)
    red, green, blue = a + (b - a) * share
    return float(red), float(green), float(blue)


def jittered(rng: np.random.Generator, colour: Colour, amount: float = 12.0) -> Colour:
    """Return the colour changed at random by about `amount` of 255, in brightness and in hue."""
    change = rng.normal(0.0, amount * 0.5, 3) + rng.normal(0.0, amount)
    red, green, blue = np.clip(np.asarray(colour) + change, 12.0, 250.0)
    return float(red), float(green), float(blue)


def _stripes(u: Field, v: Field, noise: Field) -> Field:
    return (np.mod(v, 1.0) < 0.45).astype(np.float32)


def _pinstripes(u: Field, v: Field, noise: Field) -> Field:
    return (np.mod(u * 1.6, 1.0) < 0.22).astype(np.float32)


def _checks(u: Field, v: Field, noise: Field) -> Field:
    across, down = np.mod(u, 1.0) < 0.5, np.mod(v, 1.0) < 0.5
    return 0.5 * (across.astype(np.float32) + down)


def _plaid(u: Field, v: Field, noise: Field) -> Field:
    a, b = np.mod(u * 0.7, 1.0), np.mod(v * 0.7, 1.0)
    bands = 0.38 * ((a < 0.4).astype(np.float32) + (b < 0.4))
    return bands + 0.6 * ((np.abs(a - 0.7) < 0.05) | (np.abs(b - 0.7) < 0.05))


def _dots(u: Field, v: Field, noise: Field) -> Field:
    row = np.floor(v)
    x = np.mod(u + 0.5 * np.mod(row, 2.0), 1.0) - 0.5
    y = np.mod(v, 1.0) - 0.5
    return (x * x + y * y < 0.075).astype(np.float32)


def _flowers(u: Field, v: Field, noise: Field) -> Field:
    row = np.floor(v * 0.7)
    x = np.mod(u * 0.7 + 0.37 * row, 1.0) - 0.5
    y = np.mod(v * 0.7, 1.0) - 0.5
    radius = np.hypot(x, y)
    petals = 0.22 + 0.11 * np.cos(5.0 * np.arctan2(y, x))
    return ((radius < petals) & (radius > 0.08)).astype(np.float32)


def _argyle(u: Field, v: Field, noise: Field) -> Field:
    x, y = np.abs(np.mod(u * 0.8, 1.0) - 0.5), np.abs(np.mod(v * 0.55, 1.0) - 0.5)
    return (x + y < 0.5).astype(np.float32)


def _knit(u: Field, v: Field, noise: Field) -> Field:
    zigzag = np.abs(np.mod(u * 2.2, 1.0) - 0.5)
    return (0.55 * (np.mod(v * 2.2 + zigzag, 1.0) < 0.4)).astype(np.float32)


def _ribs(u: Field, v: Field, noise: Field) -> Field:
    return (0.35 + 0.35 * np.sin(u * 14.0)).astype(np.float32)


def _denim(u: Field, v: Field, noise: Field) -> Field:
    twill = 0.22 * (np.mod((u + v) * 5.0, 1.0) < 0.4)
    return (twill + np.clip(0.2 + 0.22 * noise, 0.0, 0.6)).astype(np.float32)


def _wool(u: Field, v: Field, noise: Field) -> Field:
    return np.clip(0.3 + 0.42 * noise, 0.0, 1.0).astype(np.float32)


def _pleats(u: Field, v: Field, noise: Field) -> Field:
    return np.mod(u * 1.3, 1.0).astype(np.float32) * 0.6


def _ombre(u: Field, v: Field, noise: Field) -> Field:
    return np.clip(v * 0.14, 0.0, 1.0).astype(np.float32)


PATTERNS: dict[str, Callable[[Field, Field, Field], Field]] = {
    "stripes": _stripes,
    "pinstripes": _pinstripes,
    "checks": _checks,
    "plaid": _plaid,
    "dots": _dots,
    "flowers": _flowers,
    "argyle": _argyle,
    "knit": _knit,
    "ribs": _ribs,
    "denim": _denim,
    "wool": _wool,
    "pleats": _pleats,
    "ombre": _ombre,
}


@dataclass(frozen=True)
class Material:
    """A surface.

    Attributes:
        base: main colour, RGB, 0..255.
        second: the pattern's colour.
        pattern: a key of `PATTERNS`, or "plain".
        period: size of the pattern's repeat, in heads.
        gloss: how strongly the shading shows; 1 is cloth.
    """

    base: Colour
    second: Colour = (255.0, 255.0, 255.0)
    pattern: str = "plain"
    period: float = 0.2
    gloss: float = 1.0

    def colours(self, u: Field, v: Field, noise: Field) -> Field:
        """Return the surface's colour without light.

        Args:
            u: coordinate across the cloth in heads, shape (H, W).
            v: coordinate along the cloth in heads, shape (H, W).
            noise: smooth noise of mean 0 and deviation 1, shape (H, W).

        Returns:
            RGB, 0..255, shape (H, W, 3).
        """
        base = np.asarray(self.base, dtype=np.float32)
        scale = np.float32(1.0 / self.period)
        if self.pattern == "plain":
            share = np.zeros_like(noise)
        else:
            share = PATTERNS[self.pattern](u * scale, v * scale, noise)
        contrast = np.asarray(self.second, dtype=np.float32) - base
        mixing = np.stack([contrast, base], axis=1)
        return np.asarray(cv2.transform(share, mixing), dtype=np.float32)
