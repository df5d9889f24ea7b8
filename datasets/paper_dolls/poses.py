"""Poses: angles of arms and legs, chosen at random from a repertoire."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from paper_dolls.materials import pick


@dataclass(frozen=True)
class ArmPose:
    """One arm; angles in radians from straight down, positive outwards from the body.

    Attributes:
        upper: angle of the upper arm.
        lower: angle of the lower arm.
        forward: 1 where the hand is before the chest, -1 behind the back, 0 at the side.
        swing: forward swing, seen as far as the view is from the side.
        reach: foreshortening, 1 for none.
    """

    upper: float
    lower: float
    forward: int = 0
    swing: float = 0.0
    reach: float = 1.0


@dataclass(frozen=True)
class LegPose:
    """One leg; angles as of arms.

    Attributes:
        upper: angle of the thigh outwards.
        lower: angle of the shin outwards.
        stride: angle of the thigh forwards.
        bend: angle of the shin forwards.
        thigh: foreshortening of the thigh.
        shin: foreshortening of the shin.
        splay: how far the foot points outwards.
        forward: depth offset, positive is before the other leg.
    """

    upper: float
    lower: float
    stride: float = 0.0
    bend: float = 0.0
    thigh: float = 1.0
    shin: float = 1.0
    splay: float = 0.35
    forward: float = 0.0


@dataclass(frozen=True)
class Pose:
    """A whole pose.

    Attributes:
        yaw: the view; 0 is the front, pi the back.
        lean: of the spine, radians.
        head_tilt: of the head against the spine, radians.
        head_turn: of the face against the body, radians.
        arms: left and right.
        legs: left and right.
        sits: whether the figure sits.
    """

    yaw: float
    lean: float
    head_tilt: float
    head_turn: float
    arms: tuple[ArmPose, ArmPose]
    legs: tuple[LegPose, LegPose]
    sits: bool = False


# upper angle, lower angle (degrees, from..to) and whether the hand is before or behind the body
ARM_REPERTOIRE: dict[str, tuple[tuple[float, float], tuple[float, float], int]] = {
    "relaxed": ((10, 24), (2, 16), 0),
    "akimbo": ((46, 58), (-52, -36), 0),
    "raised": ((138, 162), (150, 184), 0),
    "waving": ((78, 108), (158, 196), 0),
    "spread": ((56, 96), (48, 104), 0),
    "belly": ((16, 26), (-98, -74), 1),
    "chest": ((14, 24), (-138, -116), 1),
    "behind": ((20, 32), (-44, -28), -1),
    "offering": ((12, 26), (58, 100), 0),
}
ARM_WEIGHTS = (3.4, 1.6, 1.2, 1.2, 1.5, 0.9, 0.8, 0.6, 1.1)
SYMMETRIC_SHARE = 0.4
LEG_REPERTOIRE = ("stand", "wide", "contrapposto", "walk", "crossed", "kick", "sit")
LEG_WEIGHTS = (3.0, 1.6, 1.4, 2.4, 0.8, 0.9, 1.0)


def sample_yaw(rng: np.random.Generator) -> float:
    """Return a view: 70 % show the face, a third of all are turned by up to 45 degrees."""
    turn = (
        rng.uniform(-0.16, 0.16)
        if rng.random() < 0.67
        else rng.uniform(0.35, 0.8) * rng.choice((-1, 1))
    )
    return float(turn) if rng.random() < 0.7 else float(np.pi + turn)


def sample_pose(rng: np.random.Generator, yaw: float) -> Pose:
    """Return a random pose for the view."""
    first = _sample_arm(rng, pick(rng, list(ARM_REPERTOIRE), ARM_WEIGHTS))
    same = rng.random() < SYMMETRIC_SHARE
    second = first if same else _sample_arm(rng, pick(rng, list(ARM_REPERTOIRE), ARM_WEIGHTS))
    arms = (first, second) if rng.random() < 0.5 else (second, first)
    kind = pick(rng, LEG_REPERTOIRE, LEG_WEIGHTS)
    if kind == "sit" and np.cos(yaw) < 0:
        kind = "stand"
    legs = _sample_legs(rng, kind)
    if kind == "walk":
        swing = float(rng.uniform(0.2, 0.5))
        legs_forward = legs[0].stride > 0
        arms = (
            _swung(arms[0], -swing if legs_forward else swing),
            _swung(arms[1], swing if legs_forward else -swing),
        )
    return Pose(
        yaw=yaw,
        lean=float(rng.normal(0.0, 0.045)),
        head_tilt=float(rng.normal(0.0, 0.08)),
        head_turn=float(rng.normal(0.0, 0.12)),
        arms=arms,
        legs=legs,
        sits=kind == "sit",
    )


def _sample_arm(rng: np.random.Generator, name: str) -> ArmPose:
    """Return one arm of the repertoire with random angles."""
    upper, lower, forward = ARM_REPERTOIRE[name]
    angles = np.deg2rad((rng.uniform(*upper), rng.uniform(*lower)))
    reach = float(rng.uniform(0.9, 1.04))
    return ArmPose(float(angles[0]), float(angles[1]), forward, 0.0, reach)


def _swung(arm: ArmPose, swing: float) -> ArmPose:
    """Return a hanging arm swung forwards; other arms stay as they are."""
    if arm.forward or arm.upper > 0.5:
        return arm
    return ArmPose(arm.upper, arm.lower, 0, swing, arm.reach)


def _sample_legs(rng: np.random.Generator, kind: str) -> tuple[LegPose, LegPose]:
    """Return both legs; which of them steps, kicks or crosses is left to chance."""
    near = float(rng.choice((-1.0, 1.0)))
    a = float(rng.uniform(0.04, 0.11))
    if kind == "wide":
        a = float(rng.uniform(0.17, 0.3))
        pair = LegPose(a, 0.7 * a, forward=near), LegPose(a, 0.8 * a)
    elif kind == "contrapposto":
        pair = LegPose(0.03, 0.02), LegPose(0.2 + a, -0.06, splay=0.6, forward=0.5)
    elif kind == "walk":
        stride = float(rng.uniform(0.35, 0.6))
        front = LegPose(0.06, 0.04, stride, 0.25 * stride, 1.0, 1.0, 0.2, 1.5)
        pair = front, LegPose(0.05, 0.03, -0.7 * stride, -1.5 * stride, 0.97, 0.9, 0.2, -1.0)
    elif kind == "crossed":
        pair = LegPose(-0.1 - a, -0.16 - a, forward=2.0), LegPose(0.02, -0.05)
    elif kind == "kick":
        lift = float(rng.uniform(0.4, 0.7))
        pair = (
            LegPose(lift, lift * rng.uniform(-0.3, 0.9), splay=0.7, forward=0.5),
            LegPose(0.03, 0.03),
        )
    elif kind == "sit":
        spread = float(rng.uniform(0.2, 0.6))
        thigh = float(rng.uniform(0.5, 0.66))
        pair = (
            LegPose(spread, 0.1 * spread, 0.9, 0.0, thigh, 0.95, 0.3, near),
            LegPose(spread, 0.3 * spread, 0.9, 0.1, thigh, 0.95, 0.3, 0.0),
        )
    else:
        pair = LegPose(a, 0.3 * a, forward=near), LegPose(a, 0.5 * a)
    return pair if rng.random() < 0.5 else (pair[1], pair[0])
