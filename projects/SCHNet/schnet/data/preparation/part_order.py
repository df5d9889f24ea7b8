"""Which order the six parts are numbered in, in others' label maps of Pascal-Person-Part.

Two orders are in use. One label map does not say which it has, but anatomy does: whatever the pose
and the crop, thighs lie nearer to the torso than shins do, and upper arms nearer to the head than
thighs. How often such statements hold is counted over many maps, for all 720 ways to number six
parts: the best must be one of the two in use and lead clearly, else nothing is decided. Where
Pascal-Part's own annotation of the same image is at hand, the two are compared pixel by pixel
instead, which is stronger. The statements are ours; `tests/test_part_order.py` holds them to
jointed figures that stand, sit, lie, hang upside down, overlap and are cut off.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from schnet.data.labels import PPP_LABELS
from schnet.data.reading import UInt8Array
from schnet.errors import InputError

Counts = NDArray[np.int64]

PARTS = tuple(PPP_LABELS)[1:]

ORDERS: dict[str, tuple[str, ...]] = {
    "ours": PARTS,
    "redistributed": ("Lower-arm", "Head", "Upper-leg", "Torso", "Lower-leg", "Upper-arm"),
}
"""The parts of the label values 1..6 in the two orders in use."""

NEARER: tuple[tuple[str, str, str], ...] = (
    ("Torso", "Upper-leg", "Head"),
    ("Torso", "Lower-leg", "Head"),
    ("Upper-arm", "Lower-arm", "Head"),
    ("Upper-arm", "Upper-leg", "Head"),
    ("Upper-arm", "Lower-leg", "Head"),
    ("Lower-arm", "Lower-leg", "Head"),
    ("Upper-leg", "Lower-leg", "Head"),
    ("Upper-arm", "Lower-arm", "Torso"),
    ("Upper-arm", "Lower-leg", "Torso"),
    ("Upper-leg", "Lower-leg", "Torso"),
    ("Head", "Lower-leg", "Torso"),
    ("Lower-arm", "Upper-leg", "Upper-arm"),
    ("Lower-arm", "Lower-leg", "Upper-arm"),
    ("Torso", "Upper-leg", "Upper-arm"),
    ("Torso", "Lower-leg", "Upper-arm"),
    ("Head", "Upper-leg", "Upper-arm"),
    ("Head", "Lower-leg", "Upper-arm"),
    ("Upper-arm", "Head", "Lower-arm"),
    ("Upper-arm", "Lower-leg", "Lower-arm"),
    ("Torso", "Head", "Lower-arm"),
    ("Torso", "Lower-leg", "Lower-arm"),
    ("Torso", "Head", "Upper-leg"),
    ("Lower-arm", "Head", "Upper-leg"),
    ("Lower-leg", "Head", "Upper-leg"),
    ("Lower-leg", "Upper-arm", "Upper-leg"),
    ("Upper-leg", "Head", "Lower-leg"),
    ("Upper-leg", "Torso", "Lower-leg"),
    ("Upper-leg", "Upper-arm", "Lower-leg"),
    ("Upper-leg", "Lower-arm", "Lower-leg"),
    ("Torso", "Head", "Lower-leg"),
)
"""Anatomy in any pose: the first part lies nearer to the third than the second part does."""

MIN_MAPS = 10
"""Maps in which any three of the values must be seen together."""
MIN_SHARE = 0.75
"""Share of the statements, or of the compared pixels, that must hold for the order decided on."""
MIN_LEAD = 0.015
"""How much less of them must hold for every other numbering."""

# Distances are compared, not measured: a map of this many pixels a side is fine enough.
_SIDE = 192


@dataclass(frozen=True)
class OrderEvidence:
    """Counts over label maps, by label value less one; those of two sets of maps add up.

    Attributes:
        maps: label maps with at least one part.
        nearer: int64 (6, 6, 6); [a, b, c] counts the maps in which a lies nearer to c than b does.
        agreement: int64 (6, 6); [a, p] counts the pixels of value a whose annotation says part p.
    """

    maps: int
    nearer: Counts
    agreement: Counts

    def __add__(self, other: OrderEvidence) -> OrderEvidence:
        """Give the counts over both sets of maps."""
        return OrderEvidence(
            self.maps + other.maps, self.nearer + other.nearer, self.agreement + other.agreement
        )


NO_EVIDENCE = OrderEvidence(0, np.zeros((6, 6, 6), np.int64), np.zeros((6, 6), np.int64))


@dataclass(frozen=True)
class OrderDecision:
    """The order that label maps were found to have.

    Attributes:
        order: a key of `ORDERS`.
        shares: for each of the orders, the share of statements or pixels that hold, in [0, 1].
        reason: one sentence for the report.
    """

    order: str
    shares: dict[str, float]
    reason: str


def collect_evidence(labels: UInt8Array, annotation: UInt8Array | None = None) -> OrderEvidence:
    """Count what one label map says about its order.

    Args:
        labels: uint8 (H, W), values 0..6 or 255 (ignored), in the unknown order.
        annotation: the same image's map in our order, where there is one; another size counts as
            none.

    Returns:
        The counts of this map; add them up.
    """
    agreement = np.zeros((6, 6), np.int64)
    if annotation is not None and annotation.shape == labels.shape:
        both = (labels > 0) & (labels <= 6) & (annotation > 0) & (annotation <= 6)
        np.add.at(agreement, (labels[both] - 1, annotation[both] - 1), 1)
    step = -(-max(labels.shape) // _SIDE)
    distance = _distances(labels[::step, ::step])
    # Comparing with NaN, where a part is not seen, is never true.
    nearer = distance[:, None, :] < distance[None, :, :]
    seen = int(not np.isnan(distance).all())
    return OrderEvidence(seen, nearer.astype(np.int64), agreement)


def _distances(labels: UInt8Array) -> NDArray[np.float64]:
    """Give the mean distance of a's pixels to the nearest pixel of c as [a, c], NaN if unseen."""
    distance = np.full((6, 6), np.nan)
    regions = [labels == value for value in range(1, 7)]
    seen = [part for part, region in enumerate(regions) if region.any()]
    for c in seen:
        to_c = cv2.distanceTransform((~regions[c]).astype(np.uint8), cv2.DIST_L2, 3)
        for a in seen:
            distance[a, c] = to_c[regions[a]].mean()
    return distance


def decide_order(evidence: OrderEvidence, source: str) -> OrderDecision:
    """Decide which order label maps have, from the annotations where they cover every value.

    Args:
        evidence: summed up over the maps.
        source: where the maps lie, for the messages.

    Raises:
        InputError: too few maps show the parts together, or no order in use leads clearly; names
            the shares and the flag that settles it.
    """
    compared = evidence.agreement.sum(axis=1)
    # Values with fewer pixels than the lead that is asked for could not be told apart.
    if compared.min() > MIN_LEAD * compared.sum():
        return _decide_by_agreement(evidence, source)
    return _decide_by_anatomy(evidence, source)


def order_table(order: str) -> UInt8Array:
    """Give our label value for each value of an order: uint8 (256,), others as they are."""
    table = np.arange(256, dtype=np.uint8)
    table[1:7] = [PARTS.index(part) + 1 for part in ORDERS[order]]
    return table


def _decide_by_anatomy(evidence: OrderEvidence, source: str) -> OrderDecision:
    compared = evidence.nearer + evidence.nearer.transpose(1, 0, 2)
    fewest = min(int(compared[triple]) for triple in itertools.permutations(range(6), 3))
    if fewest < MIN_MAPS:
        raise InputError(
            f"the label maps in {source} are too few to tell their label order (three of the "
            f"values are seen together in {fewest} of {evidence.maps} maps, {MIN_MAPS} are "
            f"needed): {_remedy()}"
        )
    numberings = np.array(list(itertools.permutations(range(6))))
    first, second, third = (
        numberings[:, [PARTS.index(statement[place]) for statement in NEARER]] for place in range(3)
    )
    holds = evidence.nearer / np.maximum(compared, 1)
    shares = holds[first, second, third].mean(axis=1)
    return _decide(
        {tuple(n): float(s) for n, s in zip(numberings.tolist(), shares, strict=True)},
        f"statements of anatomy over {evidence.maps} label maps",
        source,
    )


def _decide_by_agreement(evidence: OrderEvidence, source: str) -> OrderDecision:
    counts = evidence.agreement
    candidates = {_numbering(order) for order in ORDERS.values()}
    best_values, best_parts = linear_sum_assignment(counts, maximize=True)
    best = np.empty(6, np.int64)
    best[best_parts] = best_values
    candidates.add(tuple(best.tolist()))
    shares = {n: float(counts[list(n), range(6)].sum() / counts.sum()) for n in candidates}
    return _decide(shares, f"{counts.sum():,} pixels that Pascal-Part annotates too", source)


def _decide(shares: dict[tuple[int, ...], float], what: str, source: str) -> OrderDecision:
    """Take the numbering with the largest share, if it is in use and leads clearly.

    Args:
        shares: by numbering, which gives the value less one of each part of `PARTS`.
        what: the share is of.
        source: where the maps lie.
    """
    best, *others = sorted(shares, key=shares.__getitem__, reverse=True)
    lead = shares[best] - max((shares[other] for other in others), default=0.0)
    known = {_numbering(order): name for name, order in ORDERS.items()}
    by_name = {name: shares[numbering] for numbering, name in known.items()}
    told = ", ".join(f"{share:.1%} hold for {name!r}" for name, share in by_name.items())
    if best in known and shares[best] >= MIN_SHARE and lead >= MIN_LEAD:
        reason = f"{known[best]!r}, detected: of {what} {told}"
        return OrderDecision(known[best], by_name, reason)
    numbers = ", ".join(f"{value + 1} {PARTS[best.index(value)]}" for value in range(6))
    raise InputError(
        f"the label maps in {source} do not tell their label order: of {what} {told}, and "
        f"{shares[best]:.1%} for the best numbering ({numbers}), which must be one of the two, "
        f"reach {MIN_SHARE:.0%} and lead by {MIN_LEAD:.1%} (it leads by {lead:.2%}): {_remedy()}"
    )


def _numbering(order: Sequence[str]) -> tuple[int, ...]:
    """Give the label value less one of each part of `PARTS` in an order."""
    return tuple(order.index(part) for part in PARTS)


def _remedy() -> str:
    names = " or ".join(f"--label-order {name}" for name in ORDERS)
    return f"look at some and give {names}, or renumber them"
