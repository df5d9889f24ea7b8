"""Pascal-Part's annotation files, merged into the label maps of Pascal-Person-Part.

An annotation is a MATLAB file with one struct `anno`: `imname` and `objects`, a 1xN struct array
of `class`, `class_ind`, `mask` and `parts`; `parts` is a 1xM struct array of `part_name` and
`mask`, or empty. Masks have the size of the image. Source: Chen et al., "Detect what you can:
detecting and representing objects using holistic models and body parts", CVPR 2014; the person's
24 part names are those of its `part2ind.m`. They are merged into six parts as Pascal-Person-Part
does (Chen et al., "Attention to scale", CVPR 2016; Xia et al., CVPR 2017).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from schnet.data.labels import PPP_LABELS
from schnet.data.preparation.mat_files import load_mat
from schnet.data.reading import UInt8Array
from schnet.errors import InputError

PERSON = "person"

PART_GROUPS: dict[str, tuple[str, ...]] = {
    "Head": (
        *("head", "hair", "nose", "mouth"),
        *("leye", "reye", "lear", "rear", "lebrow", "rebrow"),
    ),
    "Torso": ("torso", "neck"),
    "Upper-arm": ("luarm", "ruarm"),
    "Lower-arm": ("llarm", "rlarm", "lhand", "rhand"),
    "Upper-leg": ("luleg", "ruleg"),
    "Lower-leg": ("llleg", "rlleg", "lfoot", "rfoot"),
}
"""Pascal-Part's part names of a person by the class that they become."""


def part_values() -> dict[str, int]:
    """Give the label value, 1..6, of each of a person's part names in Pascal-Part."""
    classes = list(PPP_LABELS)
    return {name: classes.index(group) for group, names in PART_GROUPS.items() for name in names}


def read_person_parts(data: bytes, path: str) -> UInt8Array | None:
    """Read one annotation file as a label map of Pascal-Person-Part.

    Only persons count. Where masks overlap, the later part of an object covers the earlier one and
    the later person the earlier person, as in Pascal-Part's own `mat2map.m` ("later objects can
    occlude previous objects"); as there, an object's `mask` by itself covers no parts.

    Args:
        data: the file's bytes.
        path: where they come from, for the messages.

    Returns:
        uint8 (H, W), values 0..6 as in `PPP_LABELS`; None where no person has a part with a pixel.

    Raises:
        InputError: the file is damaged, is no such annotation, has masks of different sizes, or
            names a part that is in no group.
    """
    values = part_values()
    labels: UInt8Array | None = None
    annotation = _only(_structs(load_mat(data, path, "anno"), ("objects",), path), path)
    for person in _structs(annotation["objects"], ("class", "parts"), path):
        if _text(person["class"]) != PERSON:
            continue
        for part in _structs(person["parts"], ("part_name", "mask"), path):
            name, mask = _text(part["part_name"]), _mask(part["mask"], path)
            if name not in values:
                raise InputError(
                    f"the file {path} names the person part {name!r}, which is in none "
                    f"of the {len(PART_GROUPS)} groups: add it to PART_GROUPS in "
                    "schnet/data/preparation/pascal_part.py"
                )
            if labels is None:
                labels = np.zeros(mask.shape, np.uint8)
            if labels.shape != mask.shape:
                raise InputError(
                    f"the file {path} holds masks of {_size(labels)} and of "
                    f"{_size(mask)} pixels (width x height): fetch it again"
                )
            labels[mask] = values[name]
    return labels if labels is not None and labels.any() else None


def _structs(value: Any, fields: tuple[str, ...], path: str) -> list[Any]:
    """Give the elements of a MATLAB struct array; an empty array of any kind has none."""
    if isinstance(value, np.ndarray):
        if value.size == 0:
            return []
        if value.dtype.names is not None and set(fields) <= set(value.dtype.names):
            # Column by column, as MATLAB numbers them.
            return list(value.ravel(order="F"))
    raise InputError(
        f"the file {path} is no Pascal-Part annotation (it lacks a struct of "
        f"{', '.join(fields)}): fetch it again"
    )


def _only(structs: list[Any], path: str) -> Any:
    if len(structs) != 1:
        raise InputError(
            f"the file {path} holds {len(structs)} annotations instead of one: fetch it again"
        )
    return structs[0]


def _text(value: Any) -> str:
    """Give a MATLAB string, which SciPy reads as an array of one string."""
    return str(value.item()) if isinstance(value, np.ndarray) and value.size == 1 else str(value)


def _mask(value: Any, path: str) -> NDArray[np.bool_]:
    numeric = isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype.kind in "biuf"
    if not numeric or not value.size:
        raise InputError(f"the file {path} holds a part whose mask is no image: fetch it again")
    return value > 0


def _size(image: NDArray[Any]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
