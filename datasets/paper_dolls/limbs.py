"""Arms with sleeves and gloves, legs with trousers, socks and shoes."""

from __future__ import annotations

import numpy as np
from paper_dolls import labels
from paper_dolls.canvas import Canvas
from paper_dolls.materials import Material, mixed
from paper_dolls.shapes import Points, Strip, perpendicular, points, strip, tube, unit_vector
from paper_dolls.skeleton import LEFT, Body, Limb
from paper_dolls.wardrobe import Accessory, Look, Outfit

HAND_LENGTH, HAND_WIDTH = 0.17, 0.105
COAT_SLEEVE = 1.84


def arm_label(limb: Limb) -> int:
    """Return Left-arm or Right-arm, from the person's own side."""
    return labels.LEFT_ARM if limb.side == LEFT else labels.RIGHT_ARM


def leg_label(limb: Limb) -> int:
    """Return Left-leg or Right-leg."""
    return labels.LEFT_LEG if limb.side == LEFT else labels.RIGHT_LEG


def shoe_label(limb: Limb) -> int:
    """Return Left-shoe or Right-shoe."""
    return labels.LEFT_SHOE if limb.side == LEFT else labels.RIGHT_SHOE


def garment_label(outfit: Outfit) -> int:
    """Return the label of what is worn on the trunk, and of its sleeves."""
    one_piece = {"dress": labels.DRESS, "jumpsuit": labels.JUMPSUITS}
    return one_piece.get(outfit.kind, labels.UPPER_CLOTHES)


def draw_arm(canvas: Canvas, body: Body, limb: Limb, look: Look, outfit: Outfit) -> None:
    """Draw one arm: skin and hand, sleeve, coat sleeve, glove."""
    label = arm_label(limb)
    upper, lower = _segments(limb, 0.0, 2.0, 0.0)
    canvas.paint(label, [upper, lower, *_hand(body, limb, 1.0)], look.skin)
    _fingers(canvas, body, limb, label, mixed(look.skin.base, (90, 30, 20), 0.4), 1.0)
    if outfit.gloves is not None and outfit.gloves.size < 0.6:
        _draw_glove(canvas, body, limb, outfit.gloves)
    sleeve = outfit.sleeve
    if sleeve > 0.0:
        flare = 0.03 if sleeve < 1.2 else 0.022
        cloth = _segments(limb, 0.0, sleeve, flare * body.unit, flare * body.unit)
        canvas.paint(garment_label(outfit), cloth, outfit.top)
        _cuff(canvas, limb, sleeve, flare * body.unit, garment_label(outfit), outfit)
    if outfit.coat is not None:
        cloth = _segments(limb, 0.0, COAT_SLEEVE, 0.04 * body.unit, 0.05 * body.unit)
        canvas.paint(labels.COAT, cloth, outfit.coat.material)
    if outfit.gloves is not None and outfit.gloves.size >= 0.6:
        _draw_glove(canvas, body, limb, outfit.gloves)


def draw_leg(canvas: Canvas, body: Body, limb: Limb, look: Look, outfit: Outfit) -> None:
    """Draw one leg: skin, sock, shoe and trouser leg."""
    canvas.paint(leg_label(limb), _segments(limb, 0.0, 2.0, 0.0), look.skin)
    if outfit.socks is not None:
        top = 1.16 if outfit.socks.style == "knee" else 1.5
        sock = _segments(limb, top, 2.0, 0.014 * body.unit, 0.014 * body.unit, False)
        canvas.paint(labels.SOCKS, sock, outfit.socks.material, 0.7)
        band = _segments(limb, top, top + 0.09, 0.022 * body.unit, 0.022 * body.unit, False)
        plain = Material(mixed(outfit.socks.material.base, outfit.socks.trim, 0.5))
        canvas.paint(labels.SOCKS, band, plain, 0.5)
    trousers = outfit.kind in ("pants", "jumpsuit")
    over = trousers and outfit.hem > 1.7
    if not over and trousers:
        _trouser_leg(canvas, body, limb, outfit)
    _draw_shoe(canvas, body, limb, outfit.shoes, covered=over)
    if over:
        _trouser_leg(canvas, body, limb, outfit)


def _trouser_leg(canvas: Canvas, body: Body, limb: Limb, outfit: Outfit) -> None:
    """Draw one trouser leg, down to the outfit's hem."""
    label = labels.PANTS if outfit.kind == "pants" else labels.JUMPSUITS
    ease = 0.025 * body.unit
    wide = ease + (0.015 + 0.075 * outfit.flare) * body.unit
    canvas.paint(label, _segments(limb, 0.0, outfit.hem, ease, wide), outfit.bottom)
    axis = (
        unit_vector(limb.end - limb.middle)
        if outfit.hem > 1.0
        else unit_vector(limb.middle - limb.root)
    )
    across = perpendicular(axis) * (limb.radius(outfit.hem) + wide)
    hem = limb.at(outfit.hem) - axis * 0.05 * body.unit
    line = points([hem - across, hem + across])
    canvas.stroke(line, mixed(outfit.bottom.base, (10, 10, 20), 0.35), 0.014, 0.8, (label,))


def _segments(
    limb: Limb,
    start: float,
    end: float,
    ease: float,
    end_ease: float = 0.0,
    round_start: bool = True,
) -> list[Strip]:
    """Return the tube strips of a limb between two of its positions (0..2).

    Args:
        limb: arm or leg.
        start: first position.
        end: last position; an open end is cut straight unless it is the limb's own end.
        ease: how much wider than the limb, pixels, at the start.
        end_ease: the same at the end.
        round_start: whether the start is a half disc.
    """

    def radius(at: float) -> float:
        share = (at - start) / max(end - start, 1e-6)
        return limb.radius(at) + ease + (end_ease - ease) * share

    round_end = end >= 2.0
    strips = []
    if start < 1.0:
        stop = min(end, 1.0)
        radii = [radius(at) for at in np.linspace(start, stop, 4)]
        open_end = round_end or end > 1.0
        strips.append(tube(limb.at(start), limb.at(stop), radii, round_start, open_end))
    if end > 1.0:
        first = max(start, 1.0)
        radii = [radius(at) for at in np.linspace(first, end, 4)]
        strips.append(
            tube(limb.at(first), limb.at(end), radii, round_start or start < 1.0, round_end)
        )
    return strips


def _hand(body: Body, limb: Limb, scale: float) -> list[Strip]:
    """Return palm with fingers, and thumb; the thumb points to the body's middle."""
    axis = limb.tip
    across = perpendicular(axis)
    length, width = HAND_LENGTH * body.unit * scale, HAND_WIDTH * body.unit * scale
    palm = tube(limb.end, limb.end + axis * length, (0.8 * width, 1.08 * width, 0.78 * width))
    inward = across if float(across[0]) * limb.outward < 0 else -across
    root = limb.end + axis * 0.2 * length + inward * 0.45 * width
    tip = root + (axis * 0.55 + inward * 0.6) * length * 0.85
    return [tube(root, tip, (0.4 * width, 0.33 * width)), palm]


def _fingers(
    canvas: Canvas,
    body: Body,
    limb: Limb,
    label: int,
    colour: tuple[float, float, float],
    scale: float,
) -> None:
    """Draw the lines between the fingers."""
    axis, across = limb.tip, perpendicular(limb.tip)
    width = HAND_WIDTH * body.unit * scale
    for offset in (-0.42, 0.02, 0.46):
        start = limb.end + axis * (0.14 * scale * body.unit) + across * offset * width
        end = limb.end + axis * (0.235 * scale * body.unit) + across * offset * 0.9 * width
        canvas.stroke(points([start, end]), colour, 0.012, 0.55, (label,))


def _draw_glove(canvas: Canvas, body: Body, limb: Limb, glove: Accessory) -> None:
    """Draw a chunky glove or mitten with its cuff."""
    scale = 1.42 if glove.style == "mitten" else 1.32
    length = 0.22 + 0.3 * glove.size
    cuff = _segments(limb, 2.0 - length, 2.0, 0.05 * body.unit, 0.03 * body.unit, False)
    canvas.paint(labels.GLOVE, [*cuff, *_hand(body, limb, scale)], glove.material)
    rim = _segments(
        limb, 2.0 - length, 2.0 - length + 0.14, 0.062 * body.unit, 0.056 * body.unit, False
    )
    canvas.paint(labels.GLOVE, rim, Material(mixed(glove.material.base, glove.trim, 0.6)), 0.7)
    if glove.style == "glove":
        dark = mixed(glove.material.base, (10, 10, 15), 0.45)
        _fingers(canvas, body, limb, labels.GLOVE, dark, scale)


def _cuff(canvas: Canvas, limb: Limb, at: float, ease: float, label: int, outfit: Outfit) -> None:
    """Draw the seam near a sleeve's end."""
    axis = unit_vector(limb.end - limb.middle) if at > 1.0 else unit_vector(limb.middle - limb.root)
    across = perpendicular(axis) * (limb.radius(at) + ease)
    end = limb.at(at) - axis * 0.05 * canvas.unit
    dark = mixed(outfit.top.base, (10, 10, 20), 0.35)
    canvas.stroke(points([end - across, end + across]), dark, 0.014, 0.7, (label,))


def _draw_shoe(canvas: Canvas, body: Body, limb: Limb, shoe: Accessory, covered: bool) -> None:
    """Draw a shoe on the foot; boots have a shaft unless trousers cover it."""
    unit, label = body.unit, shoe_label(limb)
    reach = 0.23 * unit
    heel = limb.end + points((0.0, 0.05 * unit))
    toe = heel + limb.tip * reach
    strips = [tube(heel, toe, (0.14 * unit, 0.16 * unit, 0.15 * unit))]
    if shoe.style == "boot" and not covered:
        strips.insert(0, _boot_shaft(limb, unit, 1.4 + 0.3 * (1.0 - shoe.size)))
    else:
        strips.insert(0, tube(limb.at(1.93), heel, (limb.radius(2) * 1.25, 0.135 * unit), False))
    if shoe.style in ("flat", "pump"):
        strips = strips[1:]
    canvas.paint(label, strips, shoe.material)
    _finish_shoe(canvas, body, shoe, label, heel, toe)


def _boot_shaft(limb: Limb, unit: float, top: float) -> Strip:
    """Return the shaft of a boot from `top` (1 knee .. 2 ankle) down."""
    radii = (limb.radius(top) + 0.05 * unit, limb.radius(2) + 0.045 * unit, 0.14 * unit)
    return tube(limb.at(top), limb.at(2.0), radii, False, True)


def _finish_shoe(
    canvas: Canvas, body: Body, shoe: Accessory, label: int, heel: Points, toe: Points
) -> None:
    """Draw sole, laces or a strap."""
    unit = body.unit
    dark = mixed(shoe.material.base, (8, 8, 12), 0.5)
    sole = shoe.trim if shoe.style == "sneaker" else dark
    low = max(heel[1] + 0.14 * unit, toe[1] + 0.15 * unit)
    left, right = min(heel[0], toe[0]) - 0.2 * unit, max(heel[0], toe[0]) + 0.2 * unit
    top = low - 0.06 * unit
    band = points([(left, top), (right, top), (right, low + unit), (left, low + unit)])
    canvas.detail(band, sole, 0.9, (label,))
    if not body.is_front:
        return
    middle = 0.5 * (heel + toe)
    if shoe.style == "sneaker":
        for step in (-0.05, 0.02):
            line = middle + points([(-0.06 * unit, step * unit), (0.06 * unit, step * unit)])
            canvas.stroke(line, shoe.trim, 0.022, 0.95, (label,))
    elif shoe.style == "pump":
        canvas.detail(
            strip(middle + points([(-0.03, -0.02), (0.03, -0.02), (0, 0.03)]) * unit).outline,
            shoe.trim,
            0.9,
            (label,),
        )
