"""Label maps in the label lists that other pipelines read; needs NumPy and a YAML reader alone.

One's own list is a YAML file:

    classes: [background, upper, lower, left_arm, right_arm]   # label 0, 1, 2, ...
    map: {Upper-clothes: upper, Coat: upper, Pants: lower, Left-arm: left_arm, Right-arm: right_arm}
    default: background          # of the labels that the map leaves out; or ignore (255), or error
    palette: [[0, 0, 0], [255, 85, 0], [0, 85, 85], [51, 170, 221], [0, 255, 255]]   # if you like

What has no counterpart is said, in `Remap.unmapped`, and never guessed; left stays left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from schnet.data.labels import IGNORE_LABEL
from schnet.data.sides import plain_name, side_of
from schnet.errors import InputError
from schnet.parsing import ByteArray, Color, Parsing, class_number
from schnet.photo_parser import PhotoParser
from schnet.remap_file import BACKGROUND, ERROR, IGNORE, read_remap_file
from schnet.vocabularies import VOCABULARIES, Vocabulary


@dataclass(frozen=True, eq=False)
class Remap:
    """From one label list to another.

    Attributes:
        classes: names of the other list, in label order.
        palette: their colours (r, g, b) in 0..255.
        unmapped: names of the first list that have no counterpart; their pixels get `default`.
        default: the label of those: that of the background, or 255, which is no class.
        table: (256,) uint8, the label that each label becomes; 255 stays.
    """

    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    unmapped: tuple[str, ...]
    default: int
    table: ByteArray = field(repr=False)
    _known: int = field(repr=False)

    def apply(self, labels: ByteArray) -> ByteArray:
        """Bring a label map into the other list.

        Args:
            labels: (H, W) uint8 of the first list, 255 for pixels without a label.

        Returns:
            (H, W) uint8, a new array.

        Raises:
            ValueError: it is no such map, or holds a label that the first list has not.
        """
        if labels.dtype != np.uint8 or labels.ndim != 2:
            raise ValueError(f"labels must be (H, W) uint8, not {labels.shape} {labels.dtype}")
        strange = labels[(labels >= self._known) & (labels != IGNORE_LABEL)]
        if strange.size:
            raise ValueError(f"the label {strange.max()} is none of the {self._known} classes")
        return self.table[labels]

    def remapped(self, parsing: Parsing) -> Parsing:
        """Bring a parsing into the other list; it has no probabilities then."""
        labels = self.apply(parsing.labels)
        return replace(
            parsing, labels=labels, classes=self.classes, palette=self.palette, scores=None
        )

    def describe_unmapped(self) -> str:
        """Say in one sentence what has no counterpart; "" where everything has one."""
        if not self.unmapped:
            return ""
        becomes = "255 (ignored)"
        if self.default != IGNORE_LABEL:
            becomes = f"{self.default} ({self.classes[self.default]})"
        return f"no counterpart for {', '.join(self.unmapped)}: these pixels become {becomes}"


class RemappedParser(PhotoParser):
    """A parser whose label maps are in another label list."""

    def __init__(self, parser: PhotoParser, remap: Remap) -> None:
        """Take the parser, and the way from its labels to the others."""
        super().__init__(remap.classes, remap.palette, parser.batch_size)
        self._parser, self._remap = parser, remap

    def parse_arrays(
        self, images: Sequence[ByteArray], probabilities: bool = False
    ) -> list[Parsing]:
        """See `PhotoParser.parse_arrays`; there are no probabilities."""
        return [self._remap.remapped(found) for found in self._parser.parse_arrays(images)]


def load_remap(name_or_yaml: str, classes: Sequence[str]) -> Remap:
    """Find the way from a label list to another one.

    Args:
        name_or_yaml: `atr`, `viton`, `viton14` or `ppp` (see `schnet.vocabularies`), or the path
            of a YAML file as above.
        classes: names of the label list that the maps are in, in label order.

    Raises:
        InputError: there is no such list or file; the file is wrong; the list tells left from
            right and `classes` do not; or it knows none of them.
    """
    classes = tuple(classes)
    if name_or_yaml in VOCABULARIES:
        return _from_vocabulary(name_or_yaml, VOCABULARIES[name_or_yaml], classes)
    path = Path(name_or_yaml)
    if not path.is_file():
        raise InputError(
            f"there is no label list or file {name_or_yaml}: give one of "
            f"{', '.join(VOCABULARIES)}, or the path of a YAML file with classes, map and default"
        )
    return _from_file(path, classes)


def _from_vocabulary(name: str, known: Vocabulary, classes: tuple[str, ...]) -> Remap:
    targets = tuple(known.colors)
    label_of = {
        member: targets.index(target)
        for target, members in known.members.items()
        for member in members
    }
    published = tuple(label_of)
    chosen = {}
    for own in classes:
        meant = [other for other in published if plain_name(other) == plain_name(own)]
        if meant:
            chosen[own] = label_of[meant[0]]
    lacking = [t for n, t in enumerate(targets) if side_of(t) and n not in chosen.values()]
    if lacking:
        raise InputError(
            f"the label list {name} tells left from right ({', '.join(lacking)}), and the labels "
            f"{', '.join(classes)} do not: take another one, or write a YAML file of your own"
        )
    if not {label for label in chosen.values() if label > 0}:
        raise InputError(
            f"the label list {name} knows none of the labels {', '.join(classes)}: write a YAML "
            "file of your own"
        )
    return _remap(targets, tuple(known.colors.values()), chosen, known.default, classes)


def _from_file(path: Path, classes: tuple[str, ...]) -> Remap:
    content = read_remap_file(path)
    chosen: dict[str, int] = {}
    for source, target in content.map.items():
        try:
            own = classes[class_number(classes, source)]
            label = class_number(content.classes, target)
        except InputError as error:
            raise InputError(f"map in {path} has {source!r}: {target!r}, and {error}") from None
        if own in chosen:
            raise InputError(f"map in {path} has {own!r} twice: leave one of them out")
        _require_side(path, own, content.classes[label])
        chosen[own] = label
    left_out = [name for name in classes if name not in chosen]
    if content.default == ERROR and left_out:
        raise InputError(
            f"map in {path} leaves out {', '.join(left_out)}: add them, or give `default: "
            f"{BACKGROUND}` or `default: {IGNORE}`"
        )
    default = IGNORE_LABEL
    if content.default == BACKGROUND and left_out:
        default = _background(path, content.classes)
    return _remap(content.classes, content.palette, chosen, default, classes)


def _require_side(path: Path, source: str, target: str) -> None:
    if not side_of(target) or side_of(source) == side_of(target):
        return
    told = f"is {side_of(source)}" if side_of(source) else "tells no side"
    raise InputError(
        f"map in {path} has {source!r}: {target!r}, and {source!r} {told}: left and right are the "
        "person's own in both lists; map each to its own side, or name the target without one"
    )


def _background(path: Path, targets: tuple[str, ...]) -> int:
    try:
        return class_number(targets, BACKGROUND)
    except InputError:
        raise InputError(
            f"default in {path} is {BACKGROUND}, which is none of its classes: add it there, or "
            f"give `default: {IGNORE}`"
        ) from None


def _remap(
    targets: tuple[str, ...],
    palette: tuple[Color, ...],
    chosen: Mapping[str, int],
    default: int,
    classes: tuple[str, ...],
) -> Remap:
    table = np.full(256, IGNORE_LABEL, np.uint8)
    for label, name in enumerate(classes):
        table[label] = chosen.get(name, default)
    unmapped = tuple(name for name in classes if name not in chosen)
    return Remap(targets, palette, unmapped, default, table, len(classes))
