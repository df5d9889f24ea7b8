"""The sheet on which a doll is put together: picture and labels drawn by the same masks.

Everything is drawn `SUPERSAMPLING` times larger and reduced at the end: the picture by area
averaging, the labels by taking the middle sample of each pixel, so that both agree to a pixel and
only the picture has soft edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from paper_dolls.materials import Colour, Field, Material
from paper_dolls.shapes import Points, Strip, perpendicular, points, strip

SUPERSAMPLING = 3
SUBPIXEL_BITS = 4
NOISE_TILE = 256


@dataclass(frozen=True)
class Light:
    """Where the light comes from.

    Attributes:
        side: -1 from the left to 1 from the right.
        contrast: 0 flat to 1 hard; how much the shading shows.
    """

    side: float = -0.5
    contrast: float = 0.6


@dataclass(frozen=True)
class _Box:
    """A region of the canvas; the bounds are clipped to it."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def shape(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left


class Canvas:
    """A picture and its label map under construction.

    Attributes:
        image: RGB, 0..255, float32, shape (height * 3, width * 3, 3).
        labels: uint8, shape (height * 3, width * 3).
        unit: the doll's head height in canvas pixels: the measure of patterns, shadows and lines.
    """

    def __init__(self, height: int, width: int, light: Light, noise: Field) -> None:
        """Make an empty canvas.

        Args:
            height: of the finished picture, pixels.
            width: of the finished picture, pixels.
            light: the light of all pieces.
            noise: smooth noise tile of mean 0 and deviation 1, see `noise_tile`.
        """
        rows, columns = height * SUPERSAMPLING, width * SUPERSAMPLING
        self.image: Field = np.zeros((rows, columns, 3), dtype=np.float32)
        self.labels: NDArray[np.uint8] = np.zeros((rows, columns), dtype=np.uint8)
        self.unit = rows / 6.0
        self.light = light
        repeats = -(-rows // NOISE_TILE), -(-columns // NOISE_TILE)
        self._noise = np.tile(noise, repeats)[:rows, :columns]

    def paint(
        self, label: int, strips: Sequence[Strip], material: Material, relief: float = 1.0
    ) -> None:
        """Lay one piece of paper on top: its strips together have one edge and one shadow.

        Args:
            label: value written into the label map.
            strips: the outlines, later ones over earlier ones.
            material: surface of the piece.
            relief: strength of the edge and of the shadow on what lies below; 0 for none.
        """
        pad = int(0.09 * self.unit) + 1 if relief > 0 else 1
        box = self._box([piece.outline for piece in strips], pad)
        if box is None:
            return
        mask = np.zeros(box.shape, dtype=np.uint8)
        colours = np.zeros((*box.shape, 3), dtype=np.float32)
        for piece in strips:
            self._lay(piece, material, box, mask, colours)
        if relief > 0:
            self._emboss(box, mask, colours, relief)
        cv2.copyTo(colours, mask, self.image[box.slices])
        self.labels[box.slices][mask > 0] = label

    def detail(
        self,
        outline: Points,
        colour: Colour,
        opacity: float = 1.0,
        within: Sequence[int] | None = None,
    ) -> None:
        """Colour a region without changing labels.

        Args:
            outline: polygon, canvas pixels.
            colour: RGB, 0..255.
            opacity: 0..1.
            within: labels that may be coloured; None for all.
        """
        box = self._box([outline], 1)
        if box is not None:
            mask = np.zeros(box.shape, dtype=np.uint8)
            cv2.fillPoly(mask, [_fixed(outline, box)], 255, cv2.LINE_AA, SUBPIXEL_BITS)
            self._blend(box, mask, colour, opacity, within)

    def stroke(
        self,
        line: Points,
        colour: Colour,
        width: float,
        opacity: float = 1.0,
        within: Sequence[int] | None = None,
    ) -> None:
        """Draw an open line without changing labels.

        Args:
            line: points of the line, canvas pixels.
            colour: RGB, 0..255.
            width: in heads.
            opacity: 0..1.
            within: labels that may be coloured; None for all.
        """
        thickness = max(int(round(width * self.unit)), 1)
        box = self._box([line], thickness + 1)
        if box is not None:
            mask = np.zeros(box.shape, dtype=np.uint8)
            fixed = [_fixed(line, box)]
            cv2.polylines(mask, fixed, False, 255, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
            self._blend(box, mask, colour, opacity, within)

    def finish(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the picture (H, W, 3; RGB) and the labels (H, W), both uint8."""
        rows, columns = self.labels.shape
        size = columns // SUPERSAMPLING, rows // SUPERSAMPLING
        small = cv2.resize(self.image, size, interpolation=cv2.INTER_AREA)
        middle = SUPERSAMPLING // 2
        labels = self.labels[middle::SUPERSAMPLING, middle::SUPERSAMPLING]
        return np.clip(small + 0.5, 0, 255).astype(np.uint8), np.ascontiguousarray(labels)

    def _box(self, outlines: Sequence[Points], pad: int) -> _Box | None:
        """Return the padded bounds of the outlines, or None where nothing is on the canvas."""
        corners = np.concatenate(outlines)
        left, top = np.floor(corners.min(axis=0)).astype(int) - pad
        right, bottom = np.ceil(corners.max(axis=0)).astype(int) + pad + 1
        rows, columns = self.labels.shape
        box = _Box(max(top, 0), min(bottom, rows), max(left, 0), min(right, columns))
        return box if box.top < box.bottom and box.left < box.right else None

    def _lay(
        self, piece: Strip, material: Material, box: _Box, mask: NDArray[np.uint8], colours: Field
    ) -> None:
        """Draw one strip into the piece's mask and colours (both of the box's size)."""
        own = self._box([piece.outline], 1)
        if own is None:
            return
        inside = np.zeros(own.shape, dtype=np.uint8)
        cv2.fillPoly(inside, [_fixed(piece.outline, own)], 255, cv2.LINE_8, SUBPIXEL_BITS)
        y, x = np.ogrid[own.top : own.bottom, own.left : own.right]
        x = (x - piece.origin[0]).astype(np.float32)
        y = (y - piece.origin[1]).astype(np.float32)
        across, axis = perpendicular(piece.axis).astype(np.float32), piece.axis.astype(np.float32)
        u = x * across[0] + y * across[1]
        per_head = np.float32(1.0 / self.unit)
        v = (x * axis[0] + y * axis[1]) * per_head
        noise = self._noise[own.slices]
        shade = self._shade(u / np.float32(piece.half_width), float(across[0]), material.gloss)
        shade += np.float32(0.012 * material.gloss) * noise
        colour = material.colours(u * per_head, v, noise) * _rgb(shade)
        rows = slice(own.top - box.top, own.bottom - box.top)
        columns = slice(own.left - box.left, own.right - box.left)
        cv2.copyTo(colour, inside, colours[rows, columns])
        np.maximum(mask[rows, columns], inside, out=mask[rows, columns])

    def _shade(self, s: Field, facing: float, gloss: float) -> Field:
        """Return the brightness over a rounded surface; s is -1..1 across it."""
        strength = np.float32(self.light.contrast * gloss)
        slope = np.float32(0.2 * self.light.side * np.sign(facing or 1.0)) * strength
        bulge = np.float32(0.22) * strength
        return np.clip(np.float32(1.04) + slope * s - bulge * s * s, 0.55, 1.25)

    def _emboss(self, box: _Box, mask: NDArray[np.uint8], colours: Field, relief: float) -> None:
        """Darken the piece's rim and drop its shadow on what lies below."""
        size = 2 * int(0.03 * self.unit) + 1
        soft = cv2.blur(mask, (size, size)).astype(np.float32) * np.float32(1 / 255)
        rim = np.clip(np.float32(2.0) - 2 * soft, 0.0, 1.0)
        colours *= _rgb(1 - np.float32(0.3 * relief) * rim)
        shift = 0.035 * self.unit
        move = np.asarray([[1, 0, -self.light.side * shift], [0, 1, shift]], dtype=np.float64)
        shadow = cv2.warpAffine(soft, move, (box.shape[1], box.shape[0]))
        self.image[box.slices] *= _rgb(1 - np.float32(0.34 * relief) * shadow)

    def _blend(
        self,
        box: _Box,
        mask: NDArray[np.uint8],
        colour: Colour,
        opacity: float,
        within: Sequence[int] | None,
    ) -> None:
        """Mix a colour into the picture where the mask is set and the label is allowed."""
        share = mask.astype(np.float32) * np.float32(opacity / 255.0)
        if within is not None:
            share *= np.isin(self.labels[box.slices], within)
        region = self.image[box.slices]
        region += share[..., None] * (np.asarray(colour, dtype=np.float32) - region)


def _rgb(field: Field) -> Field:
    """Return the field three times over, (H, W, 3): faster than broadcasting over the last axis."""
    return np.asarray(cv2.cvtColor(field, cv2.COLOR_GRAY2RGB), dtype=np.float32)


def noise_tile(rng: np.random.Generator) -> Field:
    """Return a smooth noise tile of mean 0 and deviation 1, shape (256, 256)."""
    grain = rng.standard_normal((NOISE_TILE, NOISE_TILE)).astype(np.float32)
    smooth = cv2.GaussianBlur(grain, (0, 0), 2.0)
    coarse = cv2.GaussianBlur(grain, (0, 0), 9.0)
    tile = smooth / smooth.std() + coarse / coarse.std()
    return (tile - tile.mean()) / tile.std()


def patch(outline: Points) -> Strip:
    """Return a strip without a direction of its own: for flat things such as backgrounds."""
    return strip(outline, points((0.0, 1.0)))


def _fixed(outline: Points, box: _Box) -> NDArray[np.int32]:
    """Return the outline in the box's fixed-point pixel-centre coordinates, as OpenCV wants it."""
    moved = outline - points((box.left + 0.5, box.top + 0.5))
    return np.round(moved * (1 << SUBPIXEL_BITS)).astype(np.int32)
