"""Outlines: closed polygons as float arrays of shape (N, 2), x to the right and y down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]


def points(rows: ArrayLike) -> Points:
    """Return coordinates as a float64 array."""
    return np.asarray(rows, dtype=np.float64)


def unit_vector(vector: Points) -> Points:
    """Return the vector scaled to length 1; a zero vector becomes (0, 1), straight down."""
    length = float(np.hypot(vector[0], vector[1]))
    return points((0.0, 1.0)) if length < 1e-9 else vector / length


def perpendicular(axis: Points) -> Points:
    """Return the axis turned so that 'down' (0, 1) gives 'right' (1, 0)."""
    return points((axis[1], -axis[0]))


def direction(angle: float) -> Points:
    """Return the unit vector `angle` radians away from straight down, positive to the right."""
    return points((np.sin(angle), np.cos(angle)))


def arc(centre: Points, rx: float, ry: float, start: float, end: float, count: int = 24) -> Points:
    """Return points of an ellipse's arc; angles in radians, 0 = right, pi/2 = down."""
    angle = np.linspace(start, end, count)
    return np.stack([centre[0] + rx * np.cos(angle), centre[1] + ry * np.sin(angle)], axis=1)


def ellipse(centre: Points, rx: float, ry: float, tilt: float = 0.0) -> Points:
    """Return an ellipse as a polygon, turned by `tilt` radians about its centre."""
    return rotated(arc(centre, rx, ry, 0.0, 2.0 * np.pi, 40), tilt, centre)


def rotated(outline: Points, angle: float, about: Points) -> Points:
    """Return the outline turned by `angle` radians (clockwise on the picture)."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return (outline - about) @ points([[cosine, sine], [-sine, cosine]]) + about


def smooth(corners: ArrayLike, closed: bool = True, steps: int = 7) -> Points:
    """Return a curve through the corners, closed or open: Catmull-Rom with limited tangents.

    A tangent is never longer than its side, so that a short side beside a long one makes no loop.
    """
    knots = points(corners)
    if closed:
        extended = np.concatenate([knots[-1:], knots, knots[:2]])
    else:
        extended = np.concatenate(
            [2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]]
        )
    before, start, end, after = (extended[i : len(extended) - 3 + i, None] for i in range(4))
    length = np.linalg.norm(end - start, axis=-1, keepdims=True)
    leave, arrive = _limited(0.5 * (end - before), length), _limited(0.5 * (after - start), length)
    t = np.linspace(0.0, 1.0, steps, endpoint=False)[None, :, None]
    curve = (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * leave
        + (3 * t**2 - 2 * t**3) * end
        + (t**3 - t**2) * arrive
    )
    flat = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, knots[-1:]])


def _limited(tangents: Points, length: Points) -> Points:
    """Return the tangents cut to the given lengths."""
    size = np.linalg.norm(tangents, axis=-1, keepdims=True)
    return tangents * np.minimum(1.0, length / np.maximum(size, 1e-9))


@dataclass(frozen=True)
class Strip:
    """An outline and the frame in which its cloth lies.

    Attributes:
        outline: polygon, shape (N, 2), pixels of the canvas.
        origin: point of the frame with coordinates (0, 0).
        axis: unit vector along the limb or garment, from its upper end to its lower one.
        half_width: half of the extent across the axis, pixels: where the shading falls off.
    """

    outline: Points
    origin: Points
    axis: Points
    half_width: float


def strip(outline: Points, axis: Points | None = None) -> Strip:
    """Return a strip whose frame is centred on the outline's extent; by default it hangs down."""
    along = points((0.0, 1.0)) if axis is None else unit_vector(axis)
    across = outline @ perpendicular(along)
    down = outline @ along
    middle = 0.5 * (across.min() + across.max())
    origin = perpendicular(along) * middle + along * down.min()
    return Strip(outline, origin, along, max(0.5 * float(across.max() - across.min()), 1.0))


def tube(
    start: Points,
    end: Points,
    radii: Sequence[float],
    round_start: bool = True,
    round_end: bool = True,
) -> Strip:
    """Return a limb segment: a tube about the line from start to end.

    Args:
        start: centre of the upper end, pixels.
        end: centre of the lower end, pixels.
        radii: two or more radii in pixels, evenly spaced from start to end.
        round_start: whether the upper end is a half disc (else it is cut straight).
        round_end: the same of the lower end.
    """
    axis = unit_vector(end - start)
    across = perpendicular(axis)
    shares = np.linspace(0.0, 1.0, len(radii))[:, None]
    centres = start + (end - start) * shares
    width = points(radii)[:, None]
    right, left = centres + across * width, centres - across * width
    sections = [right]
    if round_end:
        sections.append(_cap(end, axis, across, float(radii[-1])))
    sections.append(left[::-1])
    if round_start:
        sections.append(_cap(start, -axis, -across, float(radii[0])))
    return Strip(np.concatenate(sections), start, axis, max(float(max(radii)), 1.0))


def _cap(centre: Points, outward: Points, first: Points, radius: float) -> Points:
    """Return a half disc's rim from `centre + first * radius` round over `outward`."""
    angle = np.linspace(0.0, np.pi, 10)[1:-1, None]
    return centre + radius * (np.cos(angle) * first + np.sin(angle) * outward)
