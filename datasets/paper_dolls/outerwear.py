"""What is worn over the clothes: open coats and scarves."""

from __future__ import annotations

import numpy as np
from paper_dolls import labels
from paper_dolls.canvas import Canvas
from paper_dolls.garments import BLACK, skirt_outline, trunk_outline
from paper_dolls.materials import mixed
from paper_dolls.shapes import Points, arc, direction, points, smooth, strip, tube
from paper_dolls.skeleton import Body
from paper_dolls.wardrobe import Accessory, Coat


def draw_coat(canvas: Canvas, body: Body, coat: Coat) -> None:
    """Draw an open coat: two panels from the front, one whole from the back."""
    torso, unit = body.torso, body.unit
    ease = 0.075 * unit
    upper = trunk_outline(torso, 0.1, ease)
    lower = skirt_outline(body, coat.length, 0.1 * unit, 0.25, ease)
    waist = len(lower) // 2
    whole = [strip(upper), strip(lower)]
    if not body.is_front:
        canvas.paint(labels.COAT, whole, coat.material)
        low = lower[waist]
        seam = points([torso.at(0.0, 0.98), torso.at(0.0, 0.1), low])
        canvas.stroke(seam, mixed(coat.material.base, BLACK, 0.4), 0.016, 0.6, (labels.COAT,))
        return
    _draw_panels(canvas, body, coat, upper, lower)


def _draw_panels(canvas: Canvas, body: Body, coat: Coat, upper: Points, lower: Points) -> None:
    """Draw the two halves of an open coat: the whole outline without the gap in the middle."""
    torso, unit = body.torso, body.unit
    shift = 0.22 * unit * body.facing
    bottom = float(lower[:, 1].max())
    low = torso.at(shift, 0.0)
    for side in (-1.0, 1.0):
        neck = torso.at(side * torso.neck * 0.95, 1.04)
        chest = torso.at(shift + side * coat.gap * unit, 0.55)
        edge = smooth(
            [
                neck,
                chest,
                low + points((side * coat.gap * unit, 0.0)),
                points((low[0] + side * (coat.gap + 0.06) * unit, bottom)),
            ],
            closed=False,
        )
        strips = [strip(clip_to_side(piece, edge, side)) for piece in (upper, lower)]
        strips = [piece for piece in strips if len(piece.outline) > 2]
        canvas.paint(labels.COAT, strips, coat.material)
        lapel = points(
            [
                neck,
                chest,
                chest + points((side * 0.2, -0.3)) * unit,
                neck + points((side * 0.16, 0.1)) * unit,
            ]
        )
        canvas.detail(lapel, coat.lapel, 0.75, (labels.COAT,))


def clip_to_side(outline: Points, edge: Points, side: float) -> Points:
    """Return the outline with every point on the wrong side of the edge moved onto it.

    Args:
        outline: polygon, pixels.
        edge: line from top to bottom, pixels.
        side: +1 to keep what is right of the edge, -1 what is left.
    """
    dense = _dense(outline)
    limit = np.interp(dense[:, 1], edge[:, 1], edge[:, 0])
    x = np.maximum(dense[:, 0], limit) if side > 0 else np.minimum(dense[:, 0], limit)
    return np.stack([x, dense[:, 1]], axis=1)


def _dense(outline: Points, steps: int = 6) -> Points:
    """Return the closed outline with every side divided."""
    following = np.roll(outline, -1, axis=0)
    share = np.linspace(0.0, 1.0, steps, endpoint=False)[None, :, None]
    return (outline[:, None] + (following - outline)[:, None] * share).reshape(-1, 2)


def draw_scarf(canvas: Canvas, body: Body, scarf: Accessory) -> None:
    """Draw a thick band round the neck and its hanging ends."""
    unit, torso = body.unit, body.torso
    base = torso.at(0.0, 1.0) + points((0.0, -0.02 * unit))
    shift = 0.05 * unit * body.facing
    if body.is_front or scarf.style != "loop":
        ends = {"two": (-0.13, 0.14), "one": (0.12,), "loop": ()}[scarf.style]
        for number, offset in enumerate(ends if body.is_front else ends[:1]):
            length = (0.62 + 0.5 * scarf.size - 0.14 * number) * unit
            top = base + points((offset * unit + shift, 0.06 * unit))
            end = top + direction(0.25 * offset) * length
            half = 0.125 * unit
            tail = tube(top, end, (0.8 * half, half, 1.08 * half), True, False)
            canvas.paint(labels.SCARF, [tail], scarf.material)
            for x in np.linspace(-0.8, 0.8, 5):
                start = end + points((x * half, -0.07 * unit))
                fringe = points([start, start + points((0.0, 0.07 * unit))])
                canvas.stroke(
                    fringe, mixed(scarf.material.base, BLACK, 0.4), 0.012, 0.8, (labels.SCARF,)
                )
    width = torso.neck + 0.2 * unit
    rise = 0.1 * unit
    lower = arc(base + points((shift * 0.5, -rise * 0.3)), width, 0.24 * unit, np.pi, 0.0, 18)
    upper = arc(base + points((shift * 0.5, -rise)), width * 0.9, 0.05 * unit, 0.0, np.pi, 10)
    band = strip(np.concatenate([lower, upper]), points((1.0, 0.0)))
    canvas.paint(labels.SCARF, [band], scarf.material, 1.2)
    fold = arc(
        base + points((shift * 0.5, -rise)), width * 0.8, 0.2 * unit, np.pi * 0.9, np.pi * 0.1, 12
    )
    canvas.stroke(fold, mixed(scarf.material.base, BLACK, 0.5), 0.016, 0.6, (labels.SCARF,))
