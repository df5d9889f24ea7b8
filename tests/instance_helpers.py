"""Part instances and persons for the tests: as arrays, as files, and matched the slow way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from schnet.evaluation.instance_maps import PartMap, PersonMap, present_ids
from schnet.evaluation.instance_writing import (
    write_predicted_parts,
    write_predicted_persons,
    write_true_parts,
)

IGNORED = 255


def part_map(
    pixels: Sequence[Sequence[int]], classes: Sequence[int], scores: Sequence[float] = ()
) -> PartMap:
    """Instances in the order of their ids; each is sure of itself where no scores are given."""
    array = np.array(pixels, np.uint8)
    ids = present_ids(array)
    given = np.array(scores or [1.0] * len(ids))
    return PartMap(array, ids, np.array(classes, np.int64), given)


def person_map(
    labels: Sequence[Sequence[int]], persons: Sequence[Sequence[int]], scores: Sequence[float] = ()
) -> PersonMap:
    array = np.array(persons, np.uint8)
    ids = present_ids(array)
    return PersonMap(np.array(labels, np.uint8), array, ids, np.array(scores or [1.0] * len(ids)))


def random_persons(
    rng: np.random.Generator, size: tuple[int, int], num_classes: int, ignored: bool = False
) -> PersonMap:
    """Some rectangles of persons 1..m over blocks of classes; each person has pixels."""
    blocks = rng.integers(0, num_classes, (3, 4))
    labels = np.kron(blocks, np.ones((size[0] // 3 + 1, size[1] // 4 + 1)))[: size[0], : size[1]]
    if ignored:
        labels[rng.random(size) < 0.05] = IGNORED
    pixels = np.zeros(size, np.uint8)
    for person in range(1, int(rng.integers(3, 6))):
        top, left = rng.integers(0, size[0]), rng.integers(0, size[1])
        pixels[top : top + size[0] // 2, left : left + size[1] // 3] = person
    _, numbered = np.unique(np.append(pixels.ravel(), 0), return_inverse=True)
    pixels = numbered[:-1].reshape(size).astype(np.uint8)
    ids = present_ids(pixels)
    return PersonMap(labels.astype(np.uint8), pixels, ids, rng.integers(1, 5, len(ids)) / 4)


def nudged(rng: np.random.Generator, persons: PersonMap, num_classes: int) -> PersonMap:
    """A prediction not far from the truth: shifted, and wrong here and there."""
    shift = tuple(rng.integers(-1, 2, 2))
    labels = np.roll(persons.labels, shift, (0, 1))
    wrong = (rng.random(labels.shape) < 0.05) | (labels == IGNORED)
    labels[wrong] = rng.integers(0, num_classes, wrong.sum())
    pixels = np.roll(persons.pixels, shift, (0, 1))
    return PersonMap(labels, pixels, persons.ids, rng.integers(1, 5, len(persons.ids)) / 4)


def save_png(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def save_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_truth(folder: Path, name: str, persons: PersonMap, num_classes: int = 20) -> None:
    """One image of a split as CIHP unpacks, with the lists of its instances."""
    write_true_parts(folder / "Instance_ids", name, persons, num_classes)
    save_png(folder / "Category_ids" / f"{name}.png", persons.labels)
    save_png(folder / "Human_ids" / f"{name}.png", persons.pixels)


def write_prediction(folder: Path, name: str, persons: PersonMap, num_classes: int = 20) -> None:
    """One image of a prediction: part instances, classes and persons."""
    write_predicted_parts(folder / "instance_parsing", name, persons, num_classes)
    save_png(folder / "global_parsing" / f"{name}.png", persons.labels)
    scores = persons.scores.tolist()
    write_predicted_persons(folder / "instance_segmentation", name, persons.pixels, scores)
