"""What stands behind the doll: rooms, gardens, streets, studios and their clutter."""

from __future__ import annotations

import cv2
import numpy as np
from paper_dolls import labels
from paper_dolls.canvas import Canvas, patch
from paper_dolls.materials import COLOURS, Colour, Material, jittered, mixed, pick
from paper_dolls.shapes import Points, ellipse, points, smooth, tube
from paper_dolls.wardrobe import SKINS

IN_FOCUS_SHARE = 0.15
HAZE = 225.0
SCENES = ("room", "garden", "street", "studio", "wallpaper")
SOFT_WALLS = (
    "cream",
    "sky",
    "mint",
    "sand",
    "pink",
    "lilac",
    "grey",
    "white",
    "yellow",
    "camel",
    "teal",
)


def draw_background(canvas: Canvas, rng: np.random.Generator, ground: float) -> None:
    """Fill the canvas.

    Args:
        canvas: an empty canvas.
        rng: source of chance.
        ground: y at which the doll stands, canvas pixels.
    """
    rows, columns = canvas.labels.shape
    horizon = float(np.clip(ground - rng.uniform(0.04, 0.3) * rows, 0.35 * rows, 0.97 * rows))
    scene = pick(rng, SCENES)
    {
        "room": _draw_room,
        "garden": _draw_garden,
        "street": _draw_street,
        "studio": _draw_studio,
        "wallpaper": _draw_room,
    }[scene](canvas, rng, horizon, scene == "wallpaper")
    for _ in range(int(rng.integers(1, 5))):
        _draw_clutter(canvas, rng, horizon)
    _set_back(canvas, rng)


def _set_back(canvas: Canvas, rng: np.random.Generator) -> None:
    """Push the scene behind the doll: out of focus in most pictures, and paler as by haze."""
    if rng.random() < IN_FOCUS_SHARE:
        return
    sigma = float(rng.uniform(2.0, 6.0))
    cv2.GaussianBlur(canvas.image, (0, 0), sigma, dst=canvas.image)
    haze = float(rng.uniform(0.1, 0.45))
    canvas.image[...] = canvas.image * (1.0 - haze) + HAZE * haze


def draw_ground_shadow(canvas: Canvas, centre: Points, width: float) -> None:
    """Draw the doll's shadow on the ground: a soft ellipse in three steps."""
    for scale, opacity in ((1.25, 0.12), (1.0, 0.16), (0.75, 0.2)):
        canvas.detail(ellipse(centre, width * scale, 0.2 * width * scale), (18, 16, 24), opacity)


def draw_stool(
    canvas: Canvas, rng: np.random.Generator, seat: Points, width: float, floor: float
) -> None:
    """Draw a stool or box below a sitting doll."""
    material = _thing(rng)
    x, y = float(seat[0]), float(seat[1])
    if rng.random() < 0.5:
        for side in (-0.75, 0.0, 0.75):
            leg = tube(
                points((x + 0.7 * side * width, y)),
                points((x + side * width, floor)),
                (0.1 * width, 0.08 * width),
            )
            canvas.paint(
                labels.BACKGROUND, [leg], Material(mixed(material.base, (20, 16, 16), 0.3))
            )
        top = ellipse(points((x, y + 0.1 * width)), width, 0.22 * width)
        canvas.paint(labels.BACKGROUND, [patch(top)], material)
    else:
        canvas.paint(
            labels.BACKGROUND, [patch(_rectangle(x - width, y, x + width, floor))], material
        )


def _rectangle(left: float, top: float, right: float, bottom: float) -> Points:
    return points([(left, top), (right, top), (right, bottom), (left, bottom)])


def _thing(rng: np.random.Generator) -> Material:
    """Return a material of a thing: any colour of cloth or skin, sometimes patterned."""
    palette: list[Colour] = [*COLOURS.values(), *SKINS]
    base = jittered(rng, pick(rng, palette))
    patterns = ("plain", "plain", "plain", "stripes", "checks", "dots", "wool", "plaid", "ribs")
    return Material(
        base, jittered(rng, pick(rng, palette)), pick(rng, patterns), float(rng.uniform(0.15, 0.5))
    )


def _fill(canvas: Canvas, top: float, bottom: float, material: Material) -> None:
    """Cover the canvas between two heights."""
    columns = canvas.labels.shape[1]
    canvas.paint(
        labels.BACKGROUND, [patch(_rectangle(-2, top, columns + 2, bottom))], material, 0.0
    )


def _draw_room(canvas: Canvas, rng: np.random.Generator, horizon: float, papered: bool) -> None:
    """Draw a wall, plain or papered, with skirting board and floor."""
    rows, columns = canvas.labels.shape
    wall = jittered(rng, COLOURS[pick(rng, SOFT_WALLS)], 14)
    paper = (
        pick(rng, ("stripes", "dots", "flowers", "argyle", "pinstripes", "plaid"))
        if papered
        else "plain"
    )
    second = mixed(wall, pick(rng, list(COLOURS.values())), rng.uniform(0.12, 0.4))
    _fill(
        canvas, -2, horizon + 2, Material(wall, second, paper, float(rng.uniform(0.25, 0.6)), 0.5)
    )
    floor = jittered(
        rng, COLOURS[pick(rng, ("camel", "brown", "sand", "grey", "terracotta", "charcoal"))]
    )
    pattern = pick(rng, ("plain", "checks", "wool", "pinstripes"))
    _fill(
        canvas,
        horizon,
        rows + 2,
        Material(floor, mixed(floor, (20, 16, 16), 0.25), pattern, 0.5, 0.4),
    )
    board = _rectangle(-9, horizon - 0.16 * canvas.unit, columns + 9, horizon)
    canvas.paint(
        labels.BACKGROUND, [patch(board)], Material(mixed(wall, (255, 255, 255), 0.6)), 0.6
    )
    for _ in range(int(rng.integers(0, 4))):
        _draw_frame(canvas, rng, horizon)


def _draw_frame(canvas: Canvas, rng: np.random.Generator, horizon: float) -> None:
    """Draw a picture or a window on the wall."""
    columns = canvas.labels.shape[1]
    wide, tall = rng.uniform(0.5, 1.5, 2) * canvas.unit
    x, y = rng.uniform(-0.1, 0.9) * columns, rng.uniform(0.0, 0.6) * horizon
    canvas.paint(labels.BACKGROUND, [patch(_rectangle(x, y, x + wide, y + tall))], _thing(rng))
    rim = 0.1 * canvas.unit
    inner = _rectangle(x + rim, y + rim, x + wide - rim, y + tall - rim)
    canvas.paint(labels.BACKGROUND, [patch(inner)], _thing(rng), 0.4)


def _draw_garden(canvas: Canvas, rng: np.random.Generator, horizon: float, _: bool) -> None:
    """Draw sky, clouds, trees, hedges and grass."""
    rows, columns = canvas.labels.shape
    unit = canvas.unit
    sky = jittered(
        rng, pick(rng, ((170, 212, 238), (206, 226, 236), (250, 214, 176), (150, 190, 226))), 8
    )
    _fill(
        canvas, -2, horizon + 2, Material(sky, mixed(sky, (255, 255, 255), 0.6), "ombre", 0.6, 0.3)
    )
    for _n in range(int(rng.integers(0, 4))):
        centre = points((rng.uniform(0, columns), rng.uniform(0.0, 0.5) * horizon))
        for _m in range(3):
            puff = ellipse(
                centre + rng.normal(0, 0.3, 2) * unit * points((1, 0.3)), 0.5 * unit, 0.22 * unit
            )
            canvas.detail(puff, (255, 255, 255), 0.75)
    for _n in range(int(rng.integers(2, 7))):
        green = jittered(rng, COLOURS[pick(rng, ("green", "forest", "olive", "mint"))])
        leaf = Material(green, mixed(green, (20, 40, 20), 0.5), "wool")
        x, radius = rng.uniform(-0.1, 1.1) * columns, rng.uniform(0.4, 1.1) * unit
        y = horizon - rng.uniform(-0.2, 2.2) * unit
        if y < horizon - 0.6 * unit:
            trunk = tube(
                points((x, y)), points((x, horizon + 0.1 * unit)), (0.12 * unit, 0.16 * unit)
            )
            canvas.paint(labels.BACKGROUND, [trunk], Material(jittered(rng, COLOURS["brown"])))
        canvas.paint(labels.BACKGROUND, [patch(_bush(rng, x, y, radius))], leaf, 0.8)
    grass = jittered(rng, COLOURS[pick(rng, ("green", "olive", "sand", "forest"))])
    _fill(
        canvas,
        horizon,
        rows + 2,
        Material(grass, mixed(grass, (20, 30, 10), 0.4), "wool", 0.2, 0.5),
    )


def _bush(rng: np.random.Generator, x: float, y: float, radius: float) -> Points:
    """Return a bumpy blob."""
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    lobes = float(rng.integers(5, 9))
    size = radius * (1 + 0.12 * np.abs(np.sin(lobes * angle * 0.5 + rng.uniform(0, 3))))
    return np.stack([x + size * np.cos(angle), y + 0.9 * size * np.sin(angle)], axis=1)


def _draw_street(canvas: Canvas, rng: np.random.Generator, horizon: float, _: bool) -> None:
    """Draw a row of houses with windows, a pavement and poles."""
    rows, columns = canvas.labels.shape
    unit = canvas.unit
    _fill(
        canvas,
        -2,
        horizon + 2,
        Material(jittered(rng, (196, 216, 230)), (255, 255, 255), "ombre", 0.6, 0.3),
    )
    x = -rng.uniform(0, 1) * unit
    while x < columns:
        wide, top = rng.uniform(1.2, 2.6) * unit, rng.uniform(-0.2, 0.55) * horizon
        names = ("terracotta", "sand", "camel", "grey", "wine", "cream", "sky", "coral", "charcoal")
        wall = jittered(rng, COLOURS[pick(rng, names)])
        house = Material(
            wall, mixed(wall, (30, 20, 20), 0.3), pick(rng, ("plain", "checks", "wool")), 0.25, 0.5
        )
        canvas.paint(labels.BACKGROUND, [patch(_rectangle(x, top, x + wide, horizon))], house)
        _draw_windows(canvas, rng, x, top, wide, horizon)
        x += wide
    stone = jittered(rng, COLOURS[pick(rng, ("grey", "sand", "charcoal"))])
    _fill(
        canvas,
        horizon,
        rows + 2,
        Material(stone, mixed(stone, (20, 20, 20), 0.3), "checks", 0.6, 0.4),
    )
    if rng.random() < 0.6:
        x = rng.uniform(0, columns)
        pole = tube(points((x, -10)), points((x, horizon + 0.3 * unit)), (0.07 * unit, 0.09 * unit))
        canvas.paint(labels.BACKGROUND, [pole], _thing(rng))


def _draw_windows(
    canvas: Canvas, rng: np.random.Generator, x: float, top: float, wide: float, horizon: float
) -> None:
    """Draw the windows of one house in a grid."""
    unit = canvas.unit
    glass = Material(jittered(rng, pick(rng, ((70, 90, 110), (246, 222, 150), (150, 180, 200)))))
    size, gap = 0.32 * unit, 0.62 * unit
    for y in np.arange(top + 0.3 * unit, horizon - 0.8 * unit, 1.3 * gap):
        for left in np.arange(x + 0.25 * unit, x + wide - size, gap):
            window = _rectangle(left, float(y), left + size, float(y) + 1.4 * size)
            canvas.paint(labels.BACKGROUND, [patch(window)], glass, 0.5)


def _draw_studio(canvas: Canvas, rng: np.random.Generator, horizon: float, _: bool) -> None:
    """Draw a plain gradient with large soft shapes."""
    rows, columns = canvas.labels.shape
    base = jittered(rng, pick(rng, list(COLOURS.values())), 16)
    light = mixed(base, (255, 255, 255), rng.uniform(0.2, 0.6))
    _fill(canvas, -2, rows + 2, Material(light, base, "ombre", float(rng.uniform(0.6, 1.4)), 0.3))
    for _n in range(int(rng.integers(0, 5))):
        centre = points((rng.uniform(0, columns), rng.uniform(0, rows)))
        size = rng.uniform(0.5, 1.8) * canvas.unit
        colour = jittered(rng, pick(rng, list(COLOURS.values())))
        canvas.detail(ellipse(centre, size, size), colour, rng.uniform(0.25, 0.7))


def _draw_clutter(canvas: Canvas, rng: np.random.Generator, horizon: float) -> None:
    """Draw one thing that stands or hangs about; none of them is a person."""
    rows, columns = canvas.labels.shape
    unit = canvas.unit
    x = rng.uniform(-0.05, 1.05) * columns
    foot = horizon + rng.uniform(0.0, 0.5) * unit
    kind = pick(rng, ("box", "ball", "lamp", "plant", "blob", "shelf", "pole"))
    if kind == "box":
        wide, tall = rng.uniform(0.4, 1.4, 2) * unit
        shape = _rectangle(x - wide / 2, foot - tall, x + wide / 2, foot)
    elif kind == "ball":
        radius = rng.uniform(0.2, 0.5) * unit
        shape = ellipse(points((x, foot - radius)), radius, radius)
    elif kind == "shelf":
        wide, y = rng.uniform(0.8, 2.0) * unit, rng.uniform(0.1, 0.8) * horizon
        shape = _rectangle(x - wide / 2, y, x + wide / 2, y + 0.13 * unit)
    elif kind == "pole":
        half = rng.uniform(0.05, 0.14) * unit
        shape = _rectangle(x - half, foot - rng.uniform(1.5, 5.0) * unit, x + half, foot)
    elif kind == "blob":
        y = rng.uniform(0.1, 0.9) * rows
        knots = rng.uniform(0.25, 0.7, 7) * unit
        angle = np.linspace(0, 2 * np.pi, 7, endpoint=False)
        shape = smooth(np.stack([x + knots * np.cos(angle), y + knots * np.sin(angle)], axis=1))
    else:
        _draw_standing(canvas, rng, x, foot, kind)
        return
    canvas.paint(labels.BACKGROUND, [patch(shape)], _thing(rng), 0.9)


def _draw_standing(
    canvas: Canvas, rng: np.random.Generator, x: float, foot: float, kind: str
) -> None:
    """Draw a lamp or a potted plant."""
    unit = canvas.unit
    top = foot - rng.uniform(0.9, 2.6) * unit
    if kind == "lamp":
        rod = tube(points((x, top)), points((x, foot)), (0.04 * unit, 0.05 * unit))
        canvas.paint(labels.BACKGROUND, [rod], Material((70, 64, 62)))
        shade = points(
            [
                (x - 0.2, top / unit),
                (x + 0.2, top / unit),
                (x + 0.42, top / unit + 0.5),
                (x - 0.42, top / unit + 0.5),
            ]
        )
        shade[:, 0] = x + (shade[:, 0] - x) * unit
        shade[:, 1] *= unit
        canvas.paint(labels.BACKGROUND, [patch(shade)], _thing(rng))
        return
    pot = points([(-0.25, -0.5), (0.25, -0.5), (0.18, 0.0), (-0.18, 0.0)]) * unit + points(
        (x, foot)
    )
    green = Material(jittered(rng, COLOURS[pick(rng, ("green", "forest", "olive"))]))
    for angle in np.linspace(-1.0, 1.0, 7) + rng.normal(0, 0.1, 7):
        length = rng.uniform(0.5, 1.1) * unit
        start = points((x, foot - 0.45 * unit))
        tip = start + points((np.sin(angle), -np.cos(angle))) * length
        canvas.paint(
            labels.BACKGROUND,
            [tube(start, tip, (0.05 * unit, 0.13 * unit, 0.02 * unit))],
            green,
            0.6,
        )
    canvas.paint(labels.BACKGROUND, [patch(pot)], _thing(rng))
