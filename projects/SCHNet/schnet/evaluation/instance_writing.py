"""Writing part instances and persons in the official PNG + txt layout, from maps of both.

`schnet.evaluation.instance_files` describes the layout and reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from schnet.data.files import atomic_path
from schnet.evaluation.instance_maps import (
    IdMap,
    PersonMap,
    class_and_person,
    part_instances,
    renumber,
)

MAX_ID = 2**16 - 1


def write_true_parts(folder: Path, name: str, persons: PersonMap, num_classes: int) -> None:
    """Write one image's part instances as ground truth: `id class person` lines.

    Args:
        folder: such as CIHP's `Instance_ids`; made where it is missing.
        name: of the image, without ending.
        persons: map of classes and persons.
        num_classes: K; ids are class + K x (person - 1).

    Raises:
        ValueError: an id does not fit into 16 bits.
    """
    parts = part_instances(persons, num_classes)
    _, owners = class_and_person(parts.ids, num_classes)
    lines = [
        f"{one} {value} {owner}"
        for one, value, owner in zip(parts.ids, parts.classes, owners, strict=True)
    ]
    _write(folder, name, parts.pixels, lines)


def write_predicted_parts(folder: Path, name: str, persons: PersonMap, num_classes: int) -> None:
    """Write one image's part instances as a prediction: `class score` lines.

    Args:
        folder: such as `instance_parsing`; made where it is missing.
        name: of the image, without ending.
        persons: map of classes and persons; each part gets its person's score.
        num_classes: K.

    Raises:
        ValueError: there are too many instances for 16 bits.
    """
    parts = renumber(part_instances(persons, num_classes))
    lines = [
        f"{value} {float(score)!r}"
        for value, score in zip(parts.classes, parts.scores, strict=True)
    ]
    _write(folder, name, parts.pixels, lines)


def write_predicted_persons(
    folder: Path, name: str, pixels: IdMap, scores: Sequence[float]
) -> None:
    """Write one image's persons as a prediction: a score a line.

    Args:
        folder: such as `instance_segmentation`; made where it is missing.
        name: of the image, without ending.
        pixels: (H, W) ids 1..m of the persons, 0 for none.
        scores: one for each of the m persons.

    Raises:
        ValueError: there are too many persons for 16 bits.
    """
    _write(folder, name, pixels, [repr(float(score)) for score in scores])


def _write(folder: Path, name: str, pixels: IdMap, lines: Sequence[str]) -> None:
    highest = int(pixels.max(initial=0))
    if highest > MAX_ID:
        raise ValueError(f"{name} has the id {highest}, which a 16-bit PNG cannot hold")
    image = Image.fromarray(pixels.astype(np.uint8 if highest < 256 else np.uint16))
    with atomic_path(folder / f"{name}.txt") as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    with atomic_path(folder / f"{name}.png") as temporary:
        image.save(temporary, format="PNG")
