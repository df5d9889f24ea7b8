"""Hats; positions in heads from the head's middle."""

from __future__ import annotations

import numpy as np
from paper_dolls import labels
from paper_dolls.canvas import Canvas
from paper_dolls.materials import Material, mixed
from paper_dolls.shapes import Points, arc, ellipse, points, smooth, strip
from paper_dolls.skeleton import Head
from paper_dolls.wardrobe import Accessory

HAT = (labels.HAT,)


def draw_hat(canvas: Canvas, head: Head, hat: Accessory) -> None:
    """Draw a hat of the accessory's style."""
    {
        "beanie": _draw_beanie,
        "cap": _draw_cap,
        "sunhat": _draw_brimmed,
        "bowler": _draw_brimmed,
        "beret": _draw_beret,
    }[hat.style](canvas, head, hat)


def _dome(height: float, low: float, width: float) -> Points:
    """Return a half ellipse that stands on y = low."""
    top = arc(points((0.0, low)), width, height, np.pi, 2 * np.pi, 20)
    base = arc(points((0.0, low)), width, 0.06, 0.0, np.pi, 10)
    return np.concatenate([top, base[1:-1]])


def _draw_beanie(canvas: Canvas, head: Head, hat: Accessory) -> None:
    """Draw a knitted hat with a rolled edge and perhaps a bobble."""
    tall = 0.44 + 0.14 * hat.size
    if hat.size > 0.4:
        bobble = head.at([(0.0, -0.22 - tall)])[0]
        angle = np.linspace(0.0, 2 * np.pi, 60, endpoint=False)
        radius = (0.13 + 0.012 * np.sin(9 * angle)) * head.unit
        ball = bobble + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        canvas.paint(labels.HAT, [strip(ball)], Material(hat.trim))
    canvas.paint(labels.HAT, [strip(head.at(_dome(tall, -0.2, 0.47)))], hat.material)
    upper = arc(points((0.0, -0.28)), 0.49, 0.07, np.pi, 0.0, 12)
    lower = arc(points((0.0, -0.12)), 0.5, 0.08, 0.0, np.pi, 12)
    cuff = Material(mixed(hat.material.base, hat.trim, 0.35), hat.material.base, "ribs", 0.2)
    canvas.paint(labels.HAT, [strip(head.at(np.concatenate([upper, lower])))], cuff)


def _draw_cap(canvas: Canvas, head: Head, hat: Accessory) -> None:
    """Draw a peaked cap; from behind it shows its strap."""
    canvas.paint(labels.HAT, [strip(head.at(_dome(0.4, -0.17, 0.47)))], hat.material)
    dark = mixed(hat.material.base, (10, 10, 20), 0.4)
    for side in (-0.5, 0.0, 0.5):
        seam = points([(0.0, -0.57), (0.25 * side, -0.5), (0.5 * side + 0.1 * head.turn, -0.18)])
        canvas.stroke(head.at(smooth(seam, False)), dark, 0.012, 0.5, HAT)
    if head.is_front:
        x = 0.34 * head.turn
        wide = 0.36 + 0.08 * abs(head.turn)
        upper = arc(points((x, -0.16)), wide, 0.1, np.pi, 2 * np.pi, 14)
        lower = arc(points((x, -0.16)), wide, 0.13 + 0.04 * hat.size, 0.0, np.pi, 14)
        peak = Material(hat.trim if hat.size > 0.5 else mixed(hat.material.base, (10, 10, 20), 0.2))
        canvas.paint(labels.HAT, [strip(head.at(np.concatenate([upper, lower])))], peak)
        badge = head.at([(0.22 * head.turn, -0.37)])[0]
        canvas.detail(ellipse(badge, 0.08 * head.unit, 0.08 * head.unit), hat.trim, 0.9, HAT)
    else:
        strap = head.at(arc(points((0.0, -0.2)), 0.2, 0.1, np.pi, 2 * np.pi, 10))
        canvas.stroke(strap, dark, 0.04, 0.8, HAT)
    button = head.at([(0.0, -0.57)])[0]
    canvas.paint(
        labels.HAT, [strip(ellipse(button, 0.04 * head.unit, 0.03 * head.unit))], Material(hat.trim)
    )


def _draw_brimmed(canvas: Canvas, head: Head, hat: Accessory) -> None:
    """Draw a sun hat or a bowler: brim, crown, ribbon."""
    wide = 0.82 + 0.12 * hat.size if hat.style == "sunhat" else 0.62
    brim = ellipse(points((0.0, -0.24)), wide, 0.15 if hat.style == "sunhat" else 0.11)
    tall = 0.34 if hat.style == "sunhat" else 0.44
    canvas.paint(labels.HAT, [strip(head.at(brim))], hat.material)
    crown = smooth(
        [
            (-0.42, -0.22),
            (-0.4, -0.3 - 0.55 * tall),
            (-0.22, -0.3 - tall),
            (0.0, -0.28 - tall),
            (0.22, -0.3 - tall),
            (0.4, -0.3 - 0.55 * tall),
            (0.42, -0.22),
            (0.0, -0.16),
        ]
    )
    canvas.paint(labels.HAT, [strip(head.at(crown))], hat.material)
    ribbon = np.concatenate(
        [
            arc(points((0.0, -0.36)), 0.42, 0.06, np.pi, 0.0, 12),
            arc(points((0.0, -0.25)), 0.425, 0.07, 0.0, np.pi, 12),
        ]
    )
    canvas.paint(labels.HAT, [strip(head.at(ribbon))], Material(hat.trim), 0.4)


def _draw_beret(canvas: Canvas, head: Head, hat: Accessory) -> None:
    """Draw a beret that leans to one side."""
    side = 1.0 if hat.size > 0.5 else -1.0
    blob = smooth(
        [
            (-0.42 * side, -0.2),
            (-0.46 * side, -0.38),
            (-0.15 * side, -0.6),
            (0.3 * side, -0.62),
            (0.62 * side, -0.42),
            (0.56 * side, -0.24),
            (0.2 * side, -0.2),
        ]
    )
    canvas.paint(labels.HAT, [strip(head.at(blob))], hat.material)
    rim = smooth(
        [
            (-0.44 * side, -0.22),
            (0.0, -0.26),
            (0.44 * side, -0.18),
            (0.42 * side, -0.1),
            (0.0, -0.18),
            (-0.43 * side, -0.13),
        ]
    )
    canvas.paint(
        labels.HAT,
        [strip(head.at(rim))],
        Material(mixed(hat.material.base, (10, 10, 20), 0.3)),
        0.5,
    )
    stalk = head.at([(0.1 * side, -0.6), (0.13 * side, -0.69)])
    canvas.stroke(stalk, mixed(hat.material.base, (10, 10, 20), 0.4), 0.05, 1.0)
