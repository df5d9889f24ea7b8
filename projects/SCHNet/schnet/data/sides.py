"""Left and right in the names of labels."""

from __future__ import annotations

import re
from collections.abc import Sequence

# A whole word, also at a hump: `left arm`, `arm_left`, `LeftArm`; not `bright`.
_SIDES = re.compile(r"(?<![a-z])(left|right)(?![a-z])")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_GAPS = re.compile(r"[\s_-]+")
_OTHER = {"left": "right", "right": "left"}


def side_of(name: str) -> str:
    """Give the side that a label's name tells: `left`, `right`, or "" where it tells none."""
    found = _SIDES.search(_words(name))
    return found.group() if found else ""


def mirrored_name(name: str) -> str:
    """Give a name with left and right in each other's place, in plain writing: `right arm`."""
    return plain_name(_SIDES.sub(lambda side: _OTHER[side.group()], _words(name)))


def plain_name(name: str) -> str:
    """Give what two writings of a name share: lower case, spaces for hyphens and underscores."""
    return _GAPS.sub(" ", name).strip().casefold()


def find_mirror_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pair the labels whose names are each other's with left and right in each other's place.

    Args:
        names: in label order, different ones.

    Returns:
        Pairs of label values, the smaller one first.
    """
    labels = {plain_name(_words(name)): label for label, name in enumerate(names)}
    partners = [labels.get(mirrored_name(name), label) for label, name in enumerate(names)]
    return tuple((label, partner) for label, partner in enumerate(partners) if label < partner)


def _words(name: str) -> str:
    return _HUMP.sub(" ", name).lower()
