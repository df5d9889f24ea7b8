"""The head: face, ears, sunglasses. All positions are in heads from the head's middle."""

from __future__ import annotations

import numpy as np
from paper_dolls import labels
from paper_dolls.canvas import Canvas
from paper_dolls.materials import Colour, Material, mixed
from paper_dolls.shapes import Points, arc, ellipse, points, smooth, strip
from paper_dolls.skeleton import Head
from paper_dolls.wardrobe import Accessory, Look

FACE = (labels.FACE,)
EYE_ANGLE = 0.44
EYE_HEIGHT = 0.06


def draw_head(canvas: Canvas, head: Head, look: Look) -> None:
    """Draw the head: from the front with its features, from behind with its ears."""
    if not head.is_front:
        for side in (-1.0, 1.0):
            _draw_ear(canvas, head, look, side * 0.4 + 0.16 * head.turn)
    canvas.paint(labels.FACE, [strip(head.at(face_outline(head, look.jaw)))], look.skin)
    if head.is_front:
        _draw_features(canvas, head, look)


def draw_ears(canvas: Canvas, head: Head, look: Look) -> None:
    """Draw the visible ears of a head seen from the front, over the hair beside them."""
    for side in (-1.0, 1.0):
        angle = side * 1.5 + head.turn
        if np.cos(angle) > -0.1:
            _draw_ear(canvas, head, look, 0.41 * float(np.sin(angle)))


def _draw_ear(canvas: Canvas, head: Head, look: Look, x: float) -> None:
    """Draw one ear at x heads beside the head's middle."""
    centre = head.at([(x, 0.07)])[0]
    ear = ellipse(centre, 0.075 * head.unit, 0.1 * head.unit, head.tilt)
    canvas.paint(labels.FACE, [strip(ear)], look.skin, 0.7)
    inner = ellipse(centre, 0.035 * head.unit, 0.055 * head.unit, head.tilt)
    canvas.detail(inner, mixed(look.skin.base, (150, 60, 50), 0.35), 0.6, FACE)


def face_outline(head: Head, jaw: float) -> Points:
    """Return the head's outline in heads from its middle; the chin follows the turn."""
    chin = 0.12 * head.turn if head.is_front else 0.0
    right = [(0.0, -0.5), (0.24, -0.45), (0.38, -0.25), (0.41, 0.0)]
    right += [(0.36 * jaw + 0.02, 0.25), (0.22 * jaw, 0.42), (0.0, 0.5)]
    left = [(-x, y) for x, y in right[-2:0:-1]]
    outline = points(right + left)
    outline[:, 0] += chin * np.clip((outline[:, 1] - 0.05) / 0.45, 0.0, 1.0)
    return smooth(outline)


def _draw_features(canvas: Canvas, head: Head, look: Look) -> None:
    """Draw cheeks, eyes, brows, nose and mouth."""
    skin = look.skin.base
    dark = mixed(skin, (60, 20, 20), 0.55)
    for side in (-1.0, 1.0):
        _draw_eye(canvas, head, look, side)
        cheek = head.at([head.on_face(side * 0.62, 0.2)])[0]
        size = 0.085 * head.unit
        blush = ellipse(cheek, size * head.squeeze(side * 0.62), 0.8 * size)
        canvas.detail(blush, mixed(skin, (236, 88, 84), 0.5), 0.42, FACE)
    nose = points([head.on_face(0.0, 0.1), head.on_face(0.1, 0.18), head.on_face(-0.02, 0.19)])
    canvas.stroke(head.at(nose), dark, 0.022, 0.7, FACE)
    if look.freckles:
        for x, y in (
            (-0.5, 0.14),
            (-0.38, 0.17),
            (-0.3, 0.13),
            (0.3, 0.13),
            (0.38, 0.17),
            (0.5, 0.14),
        ):
            spot = head.at([head.on_face(x, y)])[0]
            canvas.detail(ellipse(spot, 0.012 * head.unit, 0.012 * head.unit), dark, 0.7, FACE)
    _draw_mouth(canvas, head, look, dark)


def _draw_eye(canvas: Canvas, head: Head, look: Look, side: float) -> None:
    """Draw one eye with its brow."""
    angle = side * EYE_ANGLE
    narrow = head.squeeze(angle)
    centre = head.at([head.on_face(angle, EYE_HEIGHT)])[0]
    unit = head.unit
    canvas.detail(
        ellipse(centre, 0.082 * narrow * unit, 0.072 * unit, head.tilt), (250, 250, 248), 1, FACE
    )
    gaze = centre + points(
        (0.025 * np.sign(head.turn) * min(abs(head.turn), 1.0) * unit, 0.008 * unit)
    )
    canvas.detail(ellipse(gaze, 0.052 * narrow * unit, 0.058 * unit), look.eyes, 1.0, FACE)
    canvas.detail(ellipse(gaze, 0.028 * narrow * unit, 0.034 * unit), (18, 16, 20), 1.0, FACE)
    glint = gaze + points((-0.018, -0.022)) * unit
    canvas.detail(ellipse(glint, 0.015 * unit, 0.015 * unit), (255, 255, 255), 1.0, FACE)
    lid = arc(centre, 0.088 * narrow * unit, 0.078 * unit, np.pi * 1.02, np.pi * 1.98, 10)
    canvas.stroke(lid, (44, 28, 28), 0.024, 0.95, FACE)
    brow = points(
        [
            head.on_face(side * 0.24, -0.07),
            head.on_face(side * 0.46, -0.1),
            head.on_face(side * 0.66, -0.06),
        ]
    )
    canvas.stroke(
        head.at(smooth(brow, False)), mixed(look.hair.base, (30, 20, 20), 0.4), 0.03, 0.9, FACE
    )


def _draw_mouth(canvas: Canvas, head: Head, look: Look, dark: Colour) -> None:
    """Draw one of four mouths."""
    lips = mixed(look.skin.base, (190, 40, 60), 0.7)
    spread = (0.3, 0.32, 0.16, 0.22)[look.mouth]
    depth = (0.05, 0.09, 0.02, 0.0)[look.mouth]
    left, right = head.on_face(-spread, 0.3), head.on_face(spread, 0.3)
    low = head.on_face(0.0, 0.3 + 2.0 * depth)
    curve = smooth(
        [
            left,
            (0.5 * (left[0] + low[0]), 0.3 + 1.3 * depth),
            low,
            (0.5 * (right[0] + low[0]), 0.3 + 1.3 * depth),
            right,
        ],
        False,
    )
    if look.mouth == 1:
        canvas.detail(head.at(curve), (120, 34, 44), 1.0, FACE)
        teeth = points([left, right, head.on_face(0.2, 0.34), head.on_face(-0.2, 0.34)])
        canvas.detail(head.at(teeth), (250, 248, 244), 1.0, FACE)
    elif look.mouth == 2:
        centre = head.at([head.on_face(0.0, 0.31)])[0]
        canvas.detail(ellipse(centre, 0.05 * head.unit, 0.03 * head.unit), lips, 1.0, FACE)
    canvas.stroke(head.at(curve), mixed(lips, dark, 0.4), 0.026, 0.95, FACE)


def draw_glasses(canvas: Canvas, head: Head, glasses: Accessory) -> None:
    """Draw sunglasses: two large lenses, bridge and temples; all of it has their label."""
    unit = head.unit
    frame = Material(glasses.trim, gloss=0.4)
    strips, lenses = [], []
    for side in (-1.0, 1.0):
        angle = side * 0.5
        narrow = head.squeeze(angle)
        x, y = head.on_face(angle, EYE_HEIGHT + 0.01, 0.4)
        rx, ry = (0.155 + 0.02 * glasses.size) * narrow, 0.125 + 0.02 * glasses.size
        outline = points((x, y)) + lens_shape(glasses.style, side) * points((rx, ry))
        lenses.append(head.at(outline))
        strips.append(strip(head.at(points((x, y)) + (outline - points((x, y))) * 1.16)))
        edge = 0.4 * side - 0.05 * head.turn
        temple = points(
            [
                (x + 0.8 * side * rx, y - 0.06),
                (edge, y - 0.05),
                (edge, y),
                (x + 0.8 * side * rx, y + 0.01),
            ]
        )
        strips.append(strip(head.at(temple)))
    bridge = points(
        [
            head.on_face(-0.3, 0.02),
            head.on_face(0.3, 0.02),
            head.on_face(0.3, 0.08),
            head.on_face(-0.3, 0.08),
        ]
    )
    strips.append(strip(head.at(bridge)))
    canvas.paint(labels.SUNGLASSES, strips, frame, 0.8)
    for lens in lenses:
        canvas.paint(labels.SUNGLASSES, [strip(lens)], glasses.material, 0.0)
        left, top = lens.min(axis=0)
        right, bottom = lens.max(axis=0)
        a, b = left + 0.28 * (right - left), left + 0.5 * (right - left)
        glint = points(
            [(b, top), (b + 0.1 * unit, top), (a + 0.02 * unit, bottom), (a - 0.06 * unit, bottom)]
        )
        _glint(canvas, glint, lens)


def _glint(canvas: Canvas, band: Points, lens: Points) -> None:
    """Draw a reflection inside the lens: the band's middle part only."""
    middle = lens.mean(axis=0)
    canvas.detail(
        middle + (band - middle) * points((0.8, 0.62)), (255, 255, 255), 0.28, (labels.SUNGLASSES,)
    )


def lens_shape(style: str, side: float) -> Points:
    """Return a lens' outline within -1..1 in both directions."""
    if style == "square":
        return smooth(
            [
                (-0.95, -0.8),
                (0, -0.9),
                (0.95, -0.8),
                (0.98, 0.3),
                (0.7, 0.9),
                (-0.7, 0.9),
                (-0.98, 0.3),
            ]
        )
    if style == "cat":
        corners = [
            (1.15, -1.0),
            (0.2, -0.8),
            (-0.85, -0.7),
            (-0.95, 0.1),
            (-0.4, 0.85),
            (0.5, 0.8),
            (0.95, 0.1),
        ]
        return smooth(points(corners) * points((side, 1.0)))
    if style == "aviator":
        corners = [
            (1.0, -0.85),
            (0.0, -0.95),
            (-0.95, -0.8),
            (-0.75, 0.2),
            (-0.1, 1.0),
            (0.7, 0.9),
            (1.05, 0.0),
        ]
        return smooth(points(corners) * points((side, 1.0)))
    return ellipse(points((0.0, 0.0)), 1.0, 1.0)
