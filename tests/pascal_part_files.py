"""Annotation files as Pascal-Part has them: MATLAB structs, nested as its own tools read them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.io

Part = tuple[str, npt.NDArray[np.bool_]]
CLASS_NUMBERS = {"bicycle": 2, "horse": 13, "person": 15}
# One of Pascal-Part's parts of each class of Pascal-Person-Part, by label value.
PART_OF = {1: "head", 2: "torso", 3: "luarm", 4: "rhand", 5: "ruleg", 6: "lfoot"}
EMPTY = np.zeros((0, 0))
"""What `[]` is in MATLAB: an object without parts, an annotation without objects."""


def struct_array(fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> np.ndarray:
    """A 1xN struct array; `[]` where it has no row, as MATLAB saves it."""
    if not rows:
        return EMPTY
    array = np.empty((1, len(rows)), [(field, object) for field in fields])
    for number, row in enumerate(rows):
        array[0, number] = tuple(row)
    return array


def thing(name: str, parts: Sequence[Part], mask: npt.NDArray[np.bool_] | None = None) -> tuple:
    """An object of a class; its silhouette is all its parts where none is given."""
    if mask is None:
        mask = np.any([part_mask for _, part_mask in parts], axis=0)
    return name, CLASS_NUMBERS[name], mask, struct_array(("part_name", "mask"), parts)


def annotation(objects: Sequence[tuple], name: str = "2008_000008") -> bytes:
    """A whole file."""
    fields = ("class", "class_ind", "mask", "parts")
    anno = {"imname": name, "objects": struct_array(fields, objects)}
    file = io.BytesIO()
    scipy.io.savemat(file, {"anno": anno}, do_compression=True)
    return file.getvalue()


def person_of(labels: npt.NDArray[np.uint8]) -> tuple:
    """A person whose parts give the label map."""
    values = [value for value in PART_OF if (labels == value).any()]
    return thing("person", [(PART_OF[value], labels == value) for value in values])
