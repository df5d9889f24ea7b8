"""People as label maps of Pascal-Person-Part: the paper dolls' skeletons, painted part by part."""

from __future__ import annotations

import sys

import cv2
import numpy as np
from conftest import REPOSITORY

from schnet.data.reading import UInt8Array

sys.path.insert(0, str(REPOSITORY / "datasets"))

from paper_dolls.scene import sample_doll  # noqa: E402
from paper_dolls.shapes import Points, ellipse, points, rotated, tube  # noqa: E402
from paper_dolls.skeleton import Body, Limb, build_body  # noqa: E402

HEAD, TORSO, UPPER_ARM, LOWER_ARM, UPPER_LEG, LOWER_LEG = range(1, 7)
HEIGHT, WIDTH = 250, 220
HAND, FOOT = 0.17, 0.25


def whole_person(seed: int, turn: float = 0.0) -> UInt8Array:
    """One person in a random pose, all of it in the picture; `turn` in radians."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    paint_person(labels, np.random.default_rng(seed), 36.0, points((110, 130)), turn)
    return labels


def photo(seed: int, turn: float | None = None) -> UInt8Array:
    """One to three people of different sizes who overlap and are cut off by the picture's edge."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        unit = float(rng.uniform(28, 70))
        pelvis = points((rng.uniform(40, 180), rng.uniform(100, 220)))
        angle = float(rng.normal(0, 0.2)) if turn is None else turn
        paint_person(labels, rng, unit, pelvis, angle)
    return labels


def paint_person(
    labels: UInt8Array, rng: np.random.Generator, unit: float, pelvis: Points, turn: float
) -> None:
    """Paint a random person over what is there.

    Args:
        labels: uint8 (H, W).
        rng: source of proportions and pose.
        unit: height of the head in pixels.
        pelvis: where the person is, pixels.
        turn: about the pelvis, radians.
    """
    doll = sample_doll(rng)
    body = build_body(doll.size, doll.pose, unit, pelvis)

    def fill(outline: Points, value: int) -> None:
        corners = np.round(rotated(outline, turn, pelvis) * 16).astype(np.int32)
        cv2.fillPoly(labels, [corners], value, shift=4)

    def limb(bones: Limb, upper: int, lower: int, tip: float) -> None:
        fill(tube(bones.root, bones.middle, bones.radii[:2]).outline, upper)
        fill(tube(bones.middle, bones.end + bones.tip * tip * unit, bones.radii[1:]).outline, lower)

    for arm in body.arms:
        if arm.near < 0:
            limb(arm, UPPER_ARM, LOWER_ARM, HAND)
    for leg in sorted(body.legs, key=lambda leg: leg.near):
        limb(leg, UPPER_LEG, LOWER_LEG, FOOT)
    fill(_trunk(body), TORSO)
    fill(ellipse(body.head.centre, 0.42 * unit, 0.55 * unit, body.head.tilt), HEAD)
    for arm in body.arms:
        if arm.near >= 0:
            limb(arm, UPPER_ARM, LOWER_ARM, HAND)


def _trunk(body: Body) -> Points:
    """The outline of trunk and neck."""
    torso = body.torso
    right = [torso.at(torso.half_width(y), y) for y in torso.LEVELS] + [torso.at(torso.neck, 1.05)]
    left = [torso.at(-torso.half_width(y), y) for y in torso.LEVELS] + [torso.at(-torso.neck, 1.05)]
    return np.stack([*right, *left[::-1]])
