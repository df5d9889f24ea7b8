"""One sample: chance in, picture and labels out."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from paper_dolls.background import draw_background, draw_ground_shadow, draw_stool
from paper_dolls.canvas import SUPERSAMPLING, Canvas, Light, noise_tile
from paper_dolls.garments import draw_trunk
from paper_dolls.hair import BARE_EARS, draw_hair_back, draw_hair_behind, draw_hair_front
from paper_dolls.hats import draw_hat
from paper_dolls.head import draw_ears, draw_glasses, draw_head
from paper_dolls.limbs import draw_arm, draw_leg
from paper_dolls.outerwear import draw_coat, draw_scarf
from paper_dolls.poses import Pose, sample_pose, sample_yaw
from paper_dolls.shapes import points
from paper_dolls.skeleton import Body, Proportions, build_body
from paper_dolls.wardrobe import Look, Outfit, sample_look, sample_outfit

HALF_BODY_SHARE = 0.2
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Doll:
    """One person: size, pose, look and clothes."""

    size: Proportions
    pose: Pose
    look: Look
    outfit: Outfit


@dataclass(frozen=True)
class Sample:
    """One pair of the data set.

    Attributes:
        picture: RGB, uint8, shape (H, W, 3).
        labels: label indices, uint8, shape (H, W).
    """

    picture: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def render_sample(seed: int, split: str, number: int, height: int, width: int) -> Sample:
    """Render one sample; it depends on nothing but the arguments.

    Args:
        seed: of the data set.
        split: "train" or "val".
        number: position in the split, from 0.
        height: usual height of the pictures, pixels; each differs by up to 12 %.
        width: usual width of the pictures; each is 0.65 to 1.4 times that, as the pose needs.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), number])
    doll = sample_doll(rng)
    rows = int(round(height * rng.uniform(0.88, 1.12)))
    return render_doll(doll, rng, rows, width)


def sample_doll(rng: np.random.Generator) -> Doll:
    """Return a random person in a random pose."""
    heads = float(rng.uniform(4.3, 5.0) if rng.random() < 0.3 else rng.uniform(5.0, 6.0))
    size = Proportions(
        heads=heads,
        build=float(np.clip(rng.normal(1.0, 0.15), 0.78, 1.4)),
        shoulders=float(rng.uniform(0.88, 1.12)),
        hips=float(rng.uniform(0.9, 1.12)),
        waist=float(rng.uniform(0.9, 1.1)),
    )
    return Doll(size, sample_pose(rng, sample_yaw(rng)), sample_look(rng), sample_outfit(rng))


def render_doll(doll: Doll, rng: np.random.Generator, height: int, usual_width: int) -> Sample:
    """Render a person before a random background.

    Args:
        doll: who.
        rng: source of chance for background, light, position and camera.
        height: of the picture, pixels.
        usual_width: the picture's width is 0.65 to 1.4 times that.
    """
    body, width = _place(doll, rng, height, usual_width)
    light = Light(float(rng.uniform(0.25, 1.0) * rng.choice((-1, 1))), float(rng.uniform(0.4, 1.0)))
    canvas = Canvas(height, width, light, noise_tile(rng))
    canvas.unit = body.unit
    floor = max(float(leg.end[1]) for leg in body.legs) + 0.17 * body.unit
    draw_background(canvas, rng, floor)
    ankles = 0.5 * (body.legs[0].end + body.legs[1].end)
    spread = abs(float(body.legs[0].end[0] - body.legs[1].end[0]))
    draw_ground_shadow(
        canvas, points((ankles[0], floor - 0.03 * body.unit)), 0.5 * spread + 0.5 * body.unit
    )
    if body.sits:
        seat = body.torso.pelvis + points((0.0, 0.02 * body.unit))
        draw_stool(canvas, rng, seat, body.torso.half_width(0.1) * 1.25, floor)
    draw_figure(canvas, body, doll.look, doll.outfit)
    picture, label_map = canvas.finish()
    return Sample(_photograph(picture, rng), label_map)


def draw_figure(canvas: Canvas, body: Body, look: Look, outfit: Outfit) -> None:
    """Draw all pieces from the farthest to the nearest."""
    arms = sorted(body.arms, key=lambda arm: arm.near)
    front = body.is_front
    if front:
        draw_hair_behind(canvas, body.head, look)
    for arm in arms:
        if arm.near < 0.0:
            draw_arm(canvas, body, arm, look, outfit)
    for leg in sorted(body.legs, key=lambda leg: leg.near):
        draw_leg(canvas, body, leg, look, outfit)
    draw_trunk(canvas, body, look, outfit)
    if outfit.coat is not None:
        draw_coat(canvas, body, outfit.coat)
    draw_head(canvas, body.head, look)
    if outfit.scarf is not None:
        draw_scarf(canvas, body, outfit.scarf)
    if front:
        draw_hair_front(canvas, body.head, look)
        if look.hair_style in BARE_EARS:
            draw_ears(canvas, body.head, look)
    else:
        draw_hair_back(canvas, body.head, look)
    if front and outfit.glasses is not None:
        draw_glasses(canvas, body.head, outfit.glasses)
    if outfit.hat is not None:
        draw_hat(canvas, body.head, outfit.hat)
    for arm in arms:
        if arm.near >= 0.0:
            draw_arm(canvas, body, arm, look, outfit)


def _extent(body: Body) -> tuple[float, float, float, float]:
    """Return left, right, top and bottom of the figure, roughly."""
    unit, centre = body.unit, body.head.centre
    spots = [(centre - 0.65 * unit), (centre + 0.65 * unit), centre - points((0.0, 0.78 * unit))]
    for arm in body.arms:
        hand = arm.end + arm.tip * 0.28 * unit
        reach = 0.14 * unit
        spots += [hand - reach, hand + reach, arm.middle - reach, arm.middle + reach]
    for leg in body.legs:
        spots += [leg.end + points((x * unit, 0.2 * unit)) for x in (-0.22, 0.22)]
        spots += [leg.end + leg.tip * 0.34 * unit, leg.middle - 0.2 * unit, leg.middle + 0.2 * unit]
    rows = np.stack(spots)
    return (
        float(rows[:, 0].min()),
        float(rows[:, 0].max()),
        float(rows[:, 1].min()),
        float(rows[:, 1].max()),
    )


def _place(doll: Doll, rng: np.random.Generator, height: int, usual_width: int) -> tuple[Body, int]:
    """Choose the picture's width and put the doll into it, large, as in LIP's crops.

    Returns:
        The body in canvas pixels and the picture's width in pixels.
    """
    left, right, top, bottom = _extent(build_body(doll.size, doll.pose, 1.0, points((0.0, 0.0))))
    shown = bottom - top
    if rng.random() < HALF_BODY_SHARE:
        shown *= float(rng.uniform(0.62, 0.85))
    margin = 1.0 + float(rng.uniform(0.0, 0.07))
    narrow, wide = int(0.65 * usual_width), int(1.4 * usual_width)
    needed = (right - left) / shown * height
    width = int(np.clip(needed * rng.uniform(0.96, 1.1), narrow, wide))
    unit = min(height / (shown * margin), width / (0.98 * (right - left)))
    slack = height - shown * unit
    x = 0.5 * width - 0.5 * (left + right) * unit + rng.normal(0.0, 0.02) * width
    y = slack * float(rng.uniform(0.35, 0.65)) - top * unit
    origin = points((x, y)) * SUPERSAMPLING
    return build_body(doll.size, doll.pose, unit * SUPERSAMPLING, origin), width


def _photograph(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the picture as a camera would take it: light falling off, colour cast, blur, noise."""
    rows, columns = picture.shape[:2]
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0.0, 0.12) * (x * np.cos(angle) + y * np.sin(angle)).astype(np.float32)
    warmth = float(rng.normal(0.0, 0.05))
    cast = np.asarray((1 + warmth, 1.0, 1 - warmth), dtype=np.float32) * np.float32(
        rng.uniform(0.8, 1.0)
    )
    result = picture.astype(np.float32) * light[..., None].astype(np.float32) * cast
    if rng.random() < 0.4:
        result = cv2.GaussianBlur(result, (0, 0), float(rng.uniform(0.3, 0.7)))
    grain = rng.standard_normal(picture.shape).astype(np.float32) * np.float32(
        rng.uniform(0.5, 4.0)
    )
    return np.clip(result + grain + 0.5, 0, 255).astype(np.uint8)
