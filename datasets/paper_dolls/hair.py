"""Hair styles: the mass behind the head, the cap with its fringe, and the back view."""

from __future__ import annotations

import numpy as np
from paper_dolls import labels
from paper_dolls.canvas import Canvas
from paper_dolls.materials import Material, mixed
from paper_dolls.shapes import Points, Strip, arc, ellipse, points, smooth, strip
from paper_dolls.skeleton import Head
from paper_dolls.wardrobe import Look

HAIR = (labels.HAIR,)
BARE_EARS = ("short", "crop", "ponytail", "bun", "pigtails")
# How far down the hair reaches behind (front view) or over the back, heads from the middle.
LENGTHS = {
    "short": 0.3,
    "crop": 0.2,
    "bob": 0.52,
    "long": 1.15,
    "wavy": 0.95,
    "curly": 0.35,
    "ponytail": 0.3,
    "bun": 0.3,
    "pigtails": 0.3,
}


def draw_hair_behind(canvas: Canvas, head: Head, look: Look) -> None:
    """Draw what hangs behind neck and shoulders in a front view."""
    style, x = look.hair_style, -0.1 * head.turn
    strips: list[Strip] = []
    if style in ("bob", "long", "wavy"):
        strips.append(strip(head.at(_curtain(x, LENGTHS[style], style))))
    elif style == "curly":
        strips.append(strip(head.at(_cloud(x, -0.08, 0.62, 0.6))))
    elif style == "ponytail":
        side = -1.0 if head.turn > 0 else 1.0
        strips.append(strip(head.at(_tail(side * 0.34 + x, -0.2, side * 0.62, 0.7))))
    elif style == "pigtails":
        strips += [strip(head.at(_tail(s * 0.38 + x, 0.02, s * 0.62, 0.75))) for s in (-1.0, 1.0)]
    elif style == "bun":
        strips.append(strip(head.at(ellipse(points((x, -0.6)), 0.2, 0.18))))
    if strips:
        canvas.paint(labels.HAIR, strips, _darker(look.hair))
        for piece in strips:
            _strands(canvas, piece.outline, look, 5)


def draw_hair_front(canvas: Canvas, head: Head, look: Look) -> None:
    """Draw the hair cap round the face, with its fringe."""
    outline = head.at(_cap(head, look))
    canvas.paint(labels.HAIR, [strip(outline)], look.hair)
    _shine(canvas, head, look)


def draw_hair_back(canvas: Canvas, head: Head, look: Look) -> None:
    """Draw the head's back, covered by hair."""
    style, x = look.hair_style, 0.06 * head.turn
    low = LENGTHS[style]
    strips: list[Strip] = []
    if style == "curly":
        strips.append(strip(head.at(_cloud(x, -0.04, 0.62, 0.6))))
    elif style in ("long", "wavy", "bob"):
        strips.append(strip(head.at(_curtain(x, low, style))))
    else:
        nape = [(0.43, 0.0), (0.4, low * 0.8), (0.2, low + 0.1), (0.0, low + 0.13)]
        mirrored = [(-a, b) for a, b in nape[2::-1]]
        top = arc(points((0.0, -0.06)), 0.45, 0.5, np.pi, 2 * np.pi, 16)
        strips.append(strip(head.at(np.concatenate([top, smooth(nape + mirrored, False)]))))
    canvas.paint(labels.HAIR, strips, look.hair)
    for piece in strips:
        _strands(canvas, piece.outline, look, 8)
    extra: list[Strip] = []
    if style == "ponytail":
        extra.append(strip(head.at(_tail(0.0, -0.05, 0.04, 1.0, 0.17))))
    elif style == "bun":
        extra.append(strip(head.at(ellipse(points((0.0, -0.28)), 0.22, 0.2))))
    elif style == "pigtails":
        extra += [strip(head.at(_tail(s * 0.36, 0.0, s * 0.6, 0.75))) for s in (-1.0, 1.0)]
    if extra:
        canvas.paint(labels.HAIR, extra, look.hair)
        for piece in extra:
            _strands(canvas, piece.outline, look, 3)


def _darker(hair: Material) -> Material:
    """Return the hair in the shadow behind the head."""
    return Material(mixed(hair.base, (16, 12, 16), 0.22), gloss=hair.gloss)


def _curtain(x: float, low: float, style: str) -> Points:
    """Return hair that falls from the head's top down to `low`."""
    wide = 0.5 if style == "bob" else 0.53
    right = [
        (0.0, -0.56),
        (0.3, -0.5),
        (0.46, -0.25),
        (wide, 0.1),
        (wide + 0.02, 0.5 * (low + 0.1)),
    ]
    right += [(wide - 0.02, low - 0.06), (0.3, low + 0.02)]
    if style == "wavy":
        right = right[:4] + [
            (wide - 0.05, 0.32),
            (wide + 0.06, 0.55),
            (wide - 0.04, 0.78),
            (0.3, low),
        ]
    outline = smooth(right + [(0.0, low)] + [(-a, b) for a, b in right[:0:-1]])
    return outline + points((x, 0.0))


def _cloud(x: float, y: float, rx: float, ry: float) -> Points:
    """Return a curly outline: an ellipse with bumps."""
    angle = np.linspace(0.0, 2 * np.pi, 120, endpoint=False)
    bump = 1.0 + 0.045 * np.abs(np.sin(angle * 8.0))
    return np.stack([x + rx * bump * np.cos(angle), y + ry * bump * np.sin(angle)], axis=1)


def _tail(x: float, y: float, end: float, length: float, width: float = 0.13) -> Points:
    """Return a bunch of hair from (x, y) that swings out to `end` and hangs down."""
    return smooth(
        [
            (x, y - 0.07),
            (0.5 * (x + end) + 0.6 * width, y),
            (end + width, y + 0.35 * length),
            (end + 0.6 * width, y + 0.8 * length),
            (end, y + length),
            (end - 0.8 * width, y + 0.75 * length),
            (end - width, y + 0.35 * length),
            (0.5 * (x + end) - 0.7 * width, y + 0.1),
            (x, y + 0.06),
        ]
    )


def _cap(head: Head, look: Look) -> Points:
    """Return the cap's outline: over the top, then back along the hairline."""
    style, turn = look.hair_style, head.turn
    lift = 0.02 if style == "crop" else 0.07
    sides = {"bob": 0.42, "long": 0.5, "wavy": 0.46, "short": 0.08, "crop": -0.02, "curly": 0.16}
    low = sides.get(style, 0.1)
    top = arc(points((-0.05 * turn, -0.06)), 0.43 + 0.6 * lift, 0.46 + lift, np.pi, 2 * np.pi, 22)
    lows = [low + 0.24 * max(-side * turn, 0.0) for side in (-1.0, 1.0)]
    left_end, right_end = (top[0][0], lows[0]), (top[-1][0], lows[1])
    left = max(-0.37 + 0.18 * turn, -0.42), lows[0]
    right = min(0.37 + 0.18 * turn, 0.42), lows[1]
    inner = _hairline(look.fringe, turn, left[0], right[0])
    path = [right_end, right, *inner, left, left_end]
    return np.concatenate([top, points(path)])


def _hairline(fringe: str, turn: float, left: float, right: float) -> list[tuple[float, float]]:
    """Return the hairline from the right temple to the left one."""
    middle, brow = 0.24 * turn, -0.06
    if fringe == "bangs":
        inner = [
            (right, -0.02),
            (right - 0.04, -0.12),
            (middle, -0.15),
            (left + 0.04, -0.12),
            (left, -0.02),
        ]
    elif fringe == "side":
        part = middle + 0.16
        inner = [
            (right, 0.0),
            (right - 0.03, -0.18),
            (part, -0.34),
            (middle - 0.06, -0.18),
            (left + 0.02, brow),
            (left, 0.05),
        ]
    elif fringe == "centre":
        inner = [
            (right, 0.05),
            (right - 0.05, -0.14),
            (middle, -0.38),
            (left + 0.05, -0.14),
            (left, 0.05),
        ]
    elif fringe == "spiky":
        xs = np.linspace(right - 0.02, left + 0.02, 9)
        ys = [-0.1 if i % 2 else -0.24 for i in range(9)]
        return [(right, 0.0), *zip(xs.tolist(), ys, strict=True), (left, 0.0)]
    else:
        inner = [
            (right, 0.02),
            (right - 0.04, -0.22),
            (middle, -0.31),
            (left + 0.04, -0.22),
            (left, 0.02),
        ]
    return [(float(x), float(y)) for x, y in smooth(inner, False)]


def _shine(canvas: Canvas, head: Head, look: Look) -> None:
    """Draw a highlight and a few strands on the cap."""
    light, dark = (
        mixed(look.hair.base, (255, 250, 235), 0.35),
        mixed(look.hair.base, (10, 8, 12), 0.45),
    )
    gloss = arc(points((0.0, -0.04)), 0.36, 0.4, np.pi * 1.2, np.pi * 1.5, 12)
    canvas.stroke(head.at(gloss), light, 0.03, 0.5, HAIR)
    for share in (-0.7, -0.35, 0.35, 0.7):
        line = points([(0.16 * share, -0.5), (0.4 * share, -0.36), (0.56 * share, -0.12)])
        canvas.stroke(head.at(smooth(line, False)), dark, 0.012, 0.4, HAIR)


def _strands(canvas: Canvas, outline: Points, look: Look, count: int) -> None:
    """Draw strands down the outline."""
    left, top = outline.min(axis=0)
    right, bottom = outline.max(axis=0)
    dark = mixed(look.hair.base, (10, 8, 12), 0.45)
    light = mixed(look.hair.base, (255, 250, 235), 0.3)
    middle = 0.5 * (left + right)
    for number, share in enumerate(np.linspace(-0.78, 0.78, count)):
        reach = 0.5 * (right - left) * share
        line = points(
            [
                (middle + 0.35 * reach, top + 0.12 * (bottom - top)),
                (middle + 0.9 * reach, top + 0.45 * (bottom - top)),
                (middle + reach, bottom - 0.06 * (bottom - top)),
            ]
        )
        canvas.stroke(smooth(line, False), light if number % 3 == 1 else dark, 0.014, 0.45, HAIR)
