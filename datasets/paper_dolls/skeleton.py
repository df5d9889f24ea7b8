"""A doll's bones: proportions and pose in, the positions of torso, head, arms and legs out.

Lengths are in heads until `build_body` scales them. The person's left is +1, the right is -1; the
view's yaw turns the person about the vertical: 0 looks at us, pi shows the back. The image x of a
point `side` of the body's middle is `side * cos(yaw)`, and it is nearer to us by `side * sin(yaw)`;
so in a front view the person's left is on the image's right, in a back view on its left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from paper_dolls.poses import ArmPose, LegPose, Pose
from paper_dolls.shapes import Points, direction, points, rotated, unit_vector

LEFT, RIGHT = 1, -1


@dataclass(frozen=True)
class Proportions:
    """Size of the body's parts.

    Attributes:
        heads: height of the whole figure in heads, from 4.2 (child) to 6.2.
        build: 0.8 thin to 1.35 heavy; multiplies the widths.
        shoulders: 0.85 narrow to 1.15 wide.
        hips: likewise.
        waist: likewise.
    """

    heads: float
    build: float
    shoulders: float
    hips: float
    waist: float


@dataclass(frozen=True)
class Limb:
    """An arm or a leg.

    Attributes:
        side: LEFT or RIGHT, the person's.
        root: shoulder or hip, pixels.
        middle: elbow or knee.
        end: wrist or ankle.
        radii: at root, middle and end, pixels.
        tip: unit vector in which the hand or foot points.
        near: depth; larger is nearer to the viewer. Negative arms are behind the torso.
        outward: +1 where the limb is on the image's right of the body, else -1.
    """

    side: int
    root: Points
    middle: Points
    end: Points
    radii: tuple[float, float, float]
    tip: Points
    near: float
    outward: float

    def at(self, share: float) -> Points:
        """Return the point at 0 (root), 1 (middle) to 2 (end) along the limb."""
        if share <= 1.0:
            return self.root + (self.middle - self.root) * share
        return self.middle + (self.end - self.middle) * (share - 1.0)

    def radius(self, share: float) -> float:
        """Return the bare limb's radius at the same place."""
        return float(np.interp(share, (0.0, 1.0, 2.0), self.radii))


@dataclass(frozen=True)
class Torso:
    """The trunk in its own frame: x across (to the image's right), y from 0 (pelvis) to 1 (neck).

    Attributes:
        pelvis: position of (0, 0), pixels.
        length: from pelvis to the neck's base, pixels.
        lean: angle of the spine, radians, positive to the image's right.
        widths: half widths at `LEVELS`, pixels, as seen in this view.
        neck: half width of the neck, pixels.
    """

    LEVELS = (0.0, 0.12, 0.45, 0.75, 0.94)

    pelvis: Points
    length: float
    lean: float
    widths: tuple[float, ...]
    neck: float

    def at(self, x: float, y: float) -> Points:
        """Return the picture position of a point of the frame; below 0 things hang straight."""
        if y < 0.0:
            return self.pelvis + points((x, -y * self.length))
        return rotated(self.pelvis + points((x, -y * self.length)), self.lean, self.pelvis)

    def half_width(self, y: float) -> float:
        """Return the trunk's half width at the height y, pixels."""
        return float(np.interp(y, self.LEVELS, self.widths))


@dataclass(frozen=True)
class Head:
    """The head's frame: origin in its middle, unit = head height, tilted.

    Attributes:
        centre: pixels.
        unit: head height, pixels.
        tilt: radians, positive to the image's right.
        turn: direction of the face, radians: 0 at us, positive towards the image's right.
        is_front: whether the face is visible.
    """

    centre: Points
    unit: float
    tilt: float
    turn: float
    is_front: bool

    def at(self, rows: ArrayLike) -> Points:
        """Return picture positions of points given in heads from the centre, shape (N, 2)."""
        return rotated(self.centre + points(rows) * self.unit, self.tilt, self.centre)

    def on_face(self, angle: float, y: float, reach: float = 0.4) -> tuple[float, float]:
        """Return where a feature `angle` radians beside the nose lies, in heads from the centre."""
        return reach * float(np.sin(np.clip(angle + self.turn, -1.45, 1.45))), y

    def squeeze(self, angle: float) -> float:
        """Return how much narrower a feature at this angle looks, 0.3..1."""
        return max(float(np.cos(angle + self.turn)), 0.3)


@dataclass(frozen=True)
class Body:
    """The whole figure.

    Attributes:
        unit: head height, pixels.
        yaw: the view, radians.
        torso: the trunk.
        head: the head.
        arms: left and right.
        legs: left and right.
        sits: whether the figure sits.
    """

    unit: float
    yaw: float
    torso: Torso
    head: Head
    arms: tuple[Limb, Limb]
    legs: tuple[Limb, Limb]
    sits: bool

    @property
    def is_front(self) -> bool:
        """Whether the face is visible."""
        return self.head.is_front

    @property
    def facing(self) -> float:
        """Image x component of the direction in which the body looks, -1..1."""
        return -float(np.sin(self.yaw))


def build_body(size: Proportions, pose: Pose, unit: float, pelvis: Points) -> Body:
    """Place all joints.

    Args:
        size: the proportions.
        pose: the pose, including the view.
        unit: head height in pixels.
        pelvis: position of the pelvis, pixels.
    """
    below_chin = size.heads - 1.0
    neck = 0.13
    body = (below_chin - neck) * unit
    torso = _torso(size, pose, body, pelvis)
    is_front = float(np.cos(pose.yaw)) > 0.0
    tilt = torso.lean + pose.head_tilt
    base = torso.at(0.0, 1.0)
    centre = base - direction(-tilt) * (neck + 0.47) * unit
    turn = float(np.clip(pose.head_turn - np.sin(pose.yaw), -0.95, 0.95))
    head = Head(centre, unit, tilt, turn, is_front)
    arms = tuple(_arm(side, size, pose, body, torso) for side in (LEFT, RIGHT))
    legs = tuple(_leg(side, size, pose, body, torso) for side in (LEFT, RIGHT))
    return Body(unit, pose.yaw, torso, head, (arms[0], arms[1]), (legs[0], legs[1]), pose.sits)


def _torso(size: Proportions, pose: Pose, body: float, pelvis: Points) -> Torso:
    """Return the trunk; it is narrower seen from the side, but not as thin as a sheet."""
    view = float(np.hypot(np.cos(pose.yaw), 0.62 * np.sin(pose.yaw)))
    slim = size.build * view * body
    widths = (
        0.118 * slim * size.hips,
        0.128 * slim * size.hips,
        0.098 * slim * size.waist * size.build**0.5,
        0.122 * slim * size.shoulders,
        (0.128 * view * body + 0.012 * slim) * size.shoulders,
    )
    neck_width = 0.12 * body / (size.heads - 1.0) * size.build**0.5 * 1.05
    return Torso(pelvis, 0.42 * body, pose.lean, widths, neck_width)


def _side_view(side: int, yaw: float) -> tuple[float, float, float]:
    """Return image x factor, depth and outward sign of a body side."""
    x = side * float(np.cos(yaw))
    return x, side * float(np.sin(yaw)), 1.0 if x >= 0 else -1.0


def _arm(side: int, size: Proportions, pose: Pose, body: float, torso: Torso) -> Limb:
    """Return one arm."""
    plan: ArmPose = pose.arms[0 if side == LEFT else 1]
    x, depth, outward = _side_view(side, pose.yaw)
    shoulder_width = (0.118 * body + 0.012 * body * size.build) * size.shoulders
    root = torso.at(x * shoulder_width, 0.845)
    swing = -plan.swing * float(np.sin(pose.yaw))
    upper = direction(outward * plan.upper + swing)
    lower = direction(outward * plan.lower + 1.6 * swing)
    middle = root + upper * 0.235 * body * plan.reach
    end = middle + lower * 0.205 * body * plan.reach
    thick = body * size.build**0.6
    radii = 0.047 * thick, 0.039 * thick, 0.033 * body
    forward = plan.forward * (1.0 if np.cos(pose.yaw) > 0 else -1.0)
    near = forward if plan.forward else (-1.0 if depth < -0.3 else 0.3 + 0.1 * depth)
    return Limb(side, root, middle, end, radii, lower, near, outward)


def _leg(side: int, size: Proportions, pose: Pose, body: float, torso: Torso) -> Limb:
    """Return one leg."""
    plan: LegPose = pose.legs[0 if side == LEFT else 1]
    x, depth, outward = _side_view(side, pose.yaw)
    facing = -float(np.sin(pose.yaw))
    root = torso.at(x * 0.068 * body * size.build * size.hips, 0.02)
    upper = direction(outward * plan.upper + facing * plan.stride)
    lower = direction(outward * plan.lower + facing * plan.bend)
    middle = root + upper * 0.25 * body * plan.thigh
    end = middle + lower * 0.25 * body * plan.shin
    thick = body * size.build
    radii = 0.077 * thick, 0.06 * thick**0.7 * body**0.3, 0.045 * body
    front = float(np.cos(pose.yaw)) > 0.0
    toes = (outward * plan.splay + 0.9 * facing, 0.5 if front else 0.2)
    tip = unit_vector(points(toes)) * float(np.clip(np.hypot(*toes), 0.35, 1.0))
    near = depth + 0.2 * plan.forward * (1.0 if front else -1.0)
    return Limb(side, root, middle, end, radii, tip, near, outward)
