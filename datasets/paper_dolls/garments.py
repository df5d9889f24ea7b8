"""What is worn on the trunk: tops, dresses, jumpsuits, skirts and the upper part of trousers."""

from __future__ import annotations

import numpy as np
from paper_dolls import labels
from paper_dolls.canvas import Canvas
from paper_dolls.limbs import garment_label
from paper_dolls.materials import Colour, Material, mixed
from paper_dolls.shapes import Points, arc, ellipse, points, smooth, strip, tube
from paper_dolls.skeleton import Body, Torso
from paper_dolls.wardrobe import Look, Outfit

BLACK: Colour = (10.0, 10.0, 20.0)


def draw_trunk(canvas: Canvas, body: Body, look: Look, outfit: Outfit) -> None:
    """Draw neck and trunk with what is worn on it, except coat and scarf."""
    _draw_neck(canvas, body, look)
    if outfit.kind in ("pants", "jumpsuit"):
        _draw_seat(canvas, body, outfit)
    if outfit.kind == "skirt":
        _draw_top(canvas, body, outfit, 0.3)
        _draw_skirt(canvas, body, outfit, labels.SKIRT)
        _waistband(canvas, body, outfit, labels.SKIRT, 0.34)
    elif outfit.kind == "pants" and outfit.tucked:
        _draw_top(canvas, body, outfit, 0.24)
        _draw_waist(canvas, body, outfit)
    elif outfit.kind == "pants":
        _draw_top(canvas, body, outfit, 0.02 + 0.1 * outfit.flare)
    elif outfit.kind == "dress":
        _draw_skirt(canvas, body, outfit, labels.DRESS)
        _draw_top(canvas, body, outfit, 0.3, seamless=True)
    else:
        _draw_top(canvas, body, outfit, 0.1, seamless=True)
    _draw_neckline(canvas, body, look, outfit)
    _draw_closure(canvas, body, outfit)
    if outfit.kind in ("dress", "jumpsuit"):
        _waistband(canvas, body, outfit, garment_label(outfit), 0.36)


def _draw_neck(canvas: Canvas, body: Body, look: Look) -> None:
    """Draw the neck; LIP has no label for it, here it is Face like the skin in a neckline."""
    torso = body.torso
    top = body.head.at([(0.0, 0.3)])[0]
    neck = tube(torso.at(0.0, 0.88), top, (torso.neck * 1.05, torso.neck, torso.neck), True, True)
    canvas.paint(labels.FACE, [neck], look.skin)


def trunk_outline(torso: Torso, low: float, ease: float, hem: float = 0.0) -> Points:
    """Return the outline of a garment on the trunk.

    Args:
        torso: the trunk.
        low: where the garment ends, in the trunk's y (0 pelvis, 1 neck).
        ease: how much wider than the trunk, pixels.
        hem: additional half width at the lower edge, pixels.
    """
    levels = [low, *[y for y in (0.12, 0.3, 0.45, 0.6, 0.75, 0.86) if y > low + 0.05]]
    widths = [torso.half_width(max(y, 0.0)) + ease for y in levels]
    widths[0] += hem
    neck = torso.neck * 1.12
    shoulder = torso.half_width(0.94) + 0.4 * ease
    right = [torso.at(w, y) for w, y in zip(widths, levels, strict=True)]
    right += [
        torso.at(shoulder, 0.93),
        torso.at(0.5 * (shoulder + neck), 0.985),
        torso.at(neck, 1.02),
    ]
    left = [torso.at(-w, y) for w, y in zip(widths, levels, strict=True)]
    left += [
        torso.at(-shoulder, 0.93),
        torso.at(-0.5 * (shoulder + neck), 0.985),
        torso.at(-neck, 1.02),
    ]
    sides = smooth(right, closed=False), smooth(left, closed=False)[::-1]
    return np.concatenate(sides)


def _draw_top(
    canvas: Canvas, body: Body, outfit: Outfit, low: float, seamless: bool = False
) -> None:
    """Draw the garment's upper part; without a seam it continues what lies below."""
    ease = 0.03 * body.unit
    hem = 0.0 if seamless or outfit.tucked else 0.05 * body.unit * outfit.flare
    outline = trunk_outline(body.torso, low, ease, hem)
    piece = strip(outline, -(body.torso.at(0.0, 1.0) - body.torso.pelvis))
    canvas.paint(garment_label(outfit), [piece], outfit.top, 0.0 if seamless else 1.0)


def _draw_seat(canvas: Canvas, body: Body, outfit: Outfit) -> None:
    """Draw the part of trousers between the legs and the waist."""
    label = labels.PANTS if outfit.kind == "pants" else labels.JUMPSUITS
    torso, ease = body.torso, 0.028 * body.unit
    wide, waist = torso.half_width(0.1) + ease, torso.half_width(0.36) + ease
    hips = max(abs(leg.root[0] - torso.pelvis[0]) + leg.radii[0] for leg in body.legs)
    wide = max(wide, hips)
    corners = [
        torso.at(-waist, 0.4),
        torso.at(waist, 0.4),
        torso.at(wide, 0.1),
        torso.at(wide * 0.96, -0.04),
        torso.at(0.0, -0.16),
        torso.at(-wide * 0.96, -0.04),
        torso.at(-wide, 0.1),
    ]
    canvas.paint(label, [strip(points(corners))], outfit.bottom, 0.0)
    fly = points([torso.at(0.06 * body.unit * body.facing, 0.36), torso.at(0.0, -0.1)])
    canvas.stroke(fly, mixed(outfit.bottom.base, BLACK, 0.4), 0.014, 0.6, (label,))


def _draw_waist(canvas: Canvas, body: Body, outfit: Outfit) -> None:
    """Draw the waistband of trousers over a tucked top."""
    torso, ease = body.torso, 0.034 * body.unit
    rows = [(y, torso.half_width(y) + ease) for y in (0.12, 0.2, 0.28, 0.36)]
    outline = [torso.at(w, y) for y, w in rows] + [torso.at(-w, y) for y, w in reversed(rows)]
    canvas.paint(labels.PANTS, [strip(points(outline))], outfit.bottom, 0.5)
    _waistband(canvas, body, outfit, labels.PANTS, 0.33)


def _waistband(canvas: Canvas, body: Body, outfit: Outfit, label: int, y: float) -> None:
    """Draw a belt as a line; belts are part of the garment, as in LIP."""
    half = body.torso.half_width(y) + 0.1 * body.unit
    line = points([body.torso.at(-half, y), body.torso.at(half, y)])
    colour = outfit.trim if outfit.flare > 0.5 else mixed(outfit.bottom.base, BLACK, 0.45)
    canvas.stroke(line, colour, 0.06, 0.9, (label,))
    if body.is_front and outfit.flare > 0.7:
        buckle = body.torso.at(0.1 * body.unit * body.facing, y)
        canvas.detail(
            ellipse(buckle, 0.045 * body.unit, 0.04 * body.unit), (232, 196, 96), 1.0, (label,)
        )


def hem_corners(body: Body, hem: float, margin: float) -> tuple[Points, Points]:
    """Return the left and right end of a skirt's hem so that it holds both legs.

    Args:
        body: the figure.
        hem: place along the legs, 0..2.
        margin: space beside the legs, pixels.
    """
    spots = [(leg.at(hem), leg.radius(hem)) for leg in body.legs]
    low = max(float(spot[1]) for spot, _ in spots)
    left = min(float(spot[0]) - radius for spot, radius in spots) - margin
    right = max(float(spot[0]) + radius for spot, radius in spots) + margin
    return points((left, low)), points((right, low))


def skirt_outline(body: Body, hem: float, margin: float, waist: float, ease: float) -> Points:
    """Return a skirt's outline from the waist (trunk's y) to the hem (leg's 0..2)."""
    torso = body.torso
    left, right = hem_corners(body, hem, margin)
    knees = hem_corners(body, min(hem, 0.5), 0.35 * margin)
    sag = points((0.5 * (left[0] + right[0]), left[1] + 0.07 * body.unit))
    top, hips = torso.half_width(waist) + ease, torso.half_width(0.1) + ease
    edge_right = [torso.at(top, waist), torso.at(hips, 0.1), knees[1], right]
    edge_left = [left, knees[0], torso.at(-hips, 0.1), torso.at(-top, waist)]
    if hem < 0.6:
        del edge_right[2], edge_left[1]
    bottom = smooth([right, sag, left], closed=False)[1:-1]
    sides = smooth(edge_right, closed=False), bottom, smooth(edge_left, closed=False)
    return np.concatenate(sides)


def _draw_skirt(canvas: Canvas, body: Body, outfit: Outfit, label: int) -> None:
    """Draw a skirt, or the lower part of a dress, with its folds."""
    margin = (0.06 + 0.34 * outfit.flare * min(outfit.hem, 1.2)) * body.unit
    outline = skirt_outline(body, outfit.hem, margin, 0.38, 0.032 * body.unit)
    canvas.paint(label, [strip(outline)], outfit.bottom)
    left, right = hem_corners(body, outfit.hem, margin)
    waist = body.torso.half_width(0.3)
    fold = mixed(outfit.bottom.base, BLACK, 0.4)
    for share in np.linspace(0.18, 0.82, 4):
        start = body.torso.at((2 * share - 1) * waist, 0.22)
        end = left + (right - left) * share
        canvas.stroke(points([start + 0.35 * (end - start), end]), fold, 0.014, 0.4, (label,))


def _draw_neckline(canvas: Canvas, body: Body, look: Look, outfit: Outfit) -> None:
    """Draw the skin inside the neckline (Face, like the neck) and its collar."""
    torso, unit = body.torso, body.unit
    depth = outfit.neckline * (1.0 if body.is_front else 0.3)
    width = torso.neck * 1.1
    shift = 0.06 * unit * body.facing
    top = torso.at(0.0, 1.03)
    rim = arc(top + points((shift * 0.4, 0)), width, depth * unit + 0.03 * unit, 0.0, np.pi, 16)
    if outfit.closure == "collar" and body.is_front:
        tip = torso.at(shift, 1.0) + points((0.0, depth * unit))
        rim = points([torso.at(width, 1.03), tip, torso.at(-width, 1.03)])
    upper = points([torso.at(-width * 0.92, 1.12), torso.at(width * 0.92, 1.12)])
    canvas.paint(labels.FACE, [strip(np.concatenate([rim, upper]))], look.skin, 0.0)
    canvas.stroke(rim, mixed(outfit.top.base, BLACK, 0.35), 0.03, 0.8)
    if outfit.closure == "collar" and body.is_front:
        label = garment_label(outfit)
        for side in (-1.0, 1.0):
            root, tip = (
                torso.at(side * width * 1.1, 1.04),
                torso.at(shift, 1.0) + points((0, depth * unit)),
            )
            flap = points([root, tip, 0.5 * (root + tip) + points((side * 0.1, 0.14)) * unit])
            canvas.paint(label, [strip(flap)], Material(outfit.trim, gloss=0.5), 0.6)


def _draw_closure(canvas: Canvas, body: Body, outfit: Outfit) -> None:
    """Draw buttons, a zip or a pocket: they are on the front only."""
    torso, unit, label = body.torso, body.unit, garment_label(outfit)
    if not body.is_front:
        seam = points([torso.at(0.0, 0.95), torso.at(0.0, 0.4)])
        canvas.stroke(seam, mixed(outfit.top.base, BLACK, 0.3), 0.012, 0.4, (label,))
        return
    shift = 0.1 * unit * body.facing
    low = {"pants": 0.1, "skirt": 0.4, "dress": 0.05, "jumpsuit": 0.0}[outfit.kind]
    high = 0.93 - outfit.neckline * unit / torso.length
    if outfit.closure in ("buttons", "zip"):
        line = points([torso.at(shift, high), torso.at(shift, low)])
        canvas.stroke(line, mixed(outfit.top.base, BLACK, 0.45), 0.018, 0.8, (label,))
    if outfit.closure == "buttons":
        for y in np.arange(high - 0.06, low, -0.16):
            centre = torso.at(shift + 0.035 * unit, float(y))
            canvas.detail(ellipse(centre, 0.03 * unit, 0.03 * unit), outfit.trim, 1.0, (label,))
    elif outfit.closure == "zip":
        pull = torso.at(shift, high - 0.03)
        canvas.detail(ellipse(pull, 0.025 * unit, 0.05 * unit), (226, 214, 180), 1.0, (label,))
    elif outfit.closure == "pocket":
        x, size = shift + 0.2 * unit * np.sign(np.cos(body.yaw)), 0.1 * unit
        corners = points(
            [
                torso.at(x - size, 0.74),
                torso.at(x - size, 0.6),
                torso.at(x, 0.56),
                torso.at(x + size, 0.6),
                torso.at(x + size, 0.74),
                torso.at(x - size, 0.74),
            ]
        )
        canvas.stroke(corners, mixed(outfit.top.base, BLACK, 0.45), 0.016, 0.8, (label,))
