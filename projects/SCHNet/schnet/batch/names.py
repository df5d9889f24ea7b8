"""The plan of names: which base name each photo's results have, once and for all.

It is written before any result, so that neither a restart, nor more photos, nor several processes
change a name; a photo's number in it tells which process parses it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from schnet.batch.layout import RESULTS_FILE, RUN_FILE, SUFFIXES, own_folder
from schnet.data.files import atomic_path
from schnet.errors import InputError
from schnet.image_files import output_names, real_path

PLAN_FILE = "names.jsonl"


@dataclass(frozen=True)
class Planned:
    """A photo's place in the plan.

    Attributes:
        number: 0, 1, ... in the order of planning.
        name: the base name of its results.
    """

    number: int
    name: str


def plan_names(images: Sequence[Path], folder: Path) -> Mapping[str, Planned]:
    """Give photos without a name one; the others keep theirs. One process at a time may do this.

    Args:
        images: different photos.
        folder: of the results; photos in it keep their own names from being taken.

    Returns:
        By resolved path, also photos that are not among `images`.

    Raises:
        InputError: the plan on the disk cannot be read.
    """
    file = own_folder(folder) / PLAN_FILE
    names = _read_plan(file)
    real = [real_path(image) for image in images]
    new = [path for path in real if str(path) not in names]
    if new:
        reserved = [name + suffix for name in names.values() for suffix in SUFFIXES]
        reserved += [RESULTS_FILE, RUN_FILE]
        home = real_path(folder)
        reserved += [
            image.name for image, path in zip(images, real, strict=True) if path.parent == home
        ]
        chosen = output_names(new, SUFFIXES, sorted(set(reserved)))
        names.update((str(path), name) for path, name in zip(new, chosen, strict=True))
        with atomic_path(file) as temporary, open(temporary, "w", encoding="utf-8") as lines:
            for path, name in names.items():
                lines.write(json.dumps({"input": path, "name": name}) + "\n")
    return {path: Planned(number, name) for number, (path, name) in enumerate(names.items())}


def _read_plan(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    names = {}
    try:
        with open(file, encoding="utf-8") as lines:
            for line in lines:
                content = json.loads(line)
                names[str(content["input"])] = str(content["name"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the plan of names {file} is damaged: give another --output folder"
        ) from error
    return names
