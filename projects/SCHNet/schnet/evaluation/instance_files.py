"""The official files of part instances and persons: index PNGs with text lists beside them.

What the pixels and lines mean (CIHP's page of the LIP challenge, `mparsing_challenge.php`;
its video challenge's page for persons; CIHP_PGN `evaluation/` and `instance_tool/`; QANet
`parsing_eval.py`; the challenges' pages call the folders `instance_parsing` and
`instance_segmentation`):

- Ground truth of parts, `Instance_ids/NAME.png`: the id of each pixel's part instance, 0 for none.
  `NAME.txt` has a line `id class person` for each. The archive may come without these lists; the
  ids tell the same, being class + 20 x (person - 1) with CIHP's 20 classes.
- Ground truth of persons, `Human_ids/NAME.png`: the id of each pixel's person; `Category_ids`: its
  class. Neither has lists.
- Predicted parts: a PNG of ids 1..n and a list whose line i is `class score` of id i.
- Predicted persons: a PNG of ids 1..n and a list whose line i is the score of id i, alone, before
  the box (`score y1 x1 y2 x2`: QANet, SCHP), or after the class (`1, score`: CIHP_PGN).

A true id that is listed and has no pixel is no instance, as in the official script (an 8-bit file
cannot hold all ids of a 13th person). Everything else that does not fit together is refused.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from schnet.data.label_maps import read_label
from schnet.data.labels import IGNORE_LABEL
from schnet.data.reading import PILLOW_ERRORS, read_bytes
from schnet.errors import InputError
from schnet.evaluation.instance_maps import (
    Counts,
    Floats,
    IdMap,
    PartMap,
    PersonMap,
    class_and_person,
    ground_truth_persons,
    present_ids,
)

_PERSON_CLASS = "1"
_OFFICIAL_TRUTH = "take CIHP's own files, or --gt-from-maps, which needs none"


def read_ids(path: Path) -> IdMap:
    """Read a map of ids: the indices of a palette PNG, the values of a grey one of 8 or 16 bits.

    Returns:
        uint8, uint16 or int32 (H, W), values >= 0.

    Raises:
        InputError: the file is missing, damaged, or a colour picture.
    """
    data = read_bytes(path, "id map")
    try:
        with Image.open(io.BytesIO(data)) as image:
            values = np.asarray(image)
    except PILLOW_ERRORS as error:
        raise InputError(
            f"the id map {path} cannot be read ({error}): write or download it again"
        ) from None
    if values.ndim == 3:
        # Colours stand for ids in CIHP's `Instances` and `Humans`, and nobody can tell for which.
        bands = values[:, :, :3] if values.shape[2] >= 3 else values[:, :, :1]  # others: alpha
        if (bands != values[:, :, :1]).any():
            raise InputError(
                f"the id map {path} is a colour picture, which does not tell the ids: give the "
                "grey or palette PNG of ids (CIHP's Instance_ids and Human_ids, not Instances and "
                "Humans)"
            )
        values = values[:, :, 0]
    if values.dtype.kind not in "biu" or (values.size and values.min() < 0):
        raise InputError(
            f"the id map {path} holds {values.dtype} values: write it as a PNG of 8 or 16 bits"
        )
    return values.astype(np.uint8) if values.dtype == bool else values


def read_true_parts(path: Path, list_path: Path | None, num_classes: int) -> tuple[PartMap, int]:
    """Read the true part instances of one image.

    Args:
        path: its PNG.
        list_path: its list; None reads the classes off the ids.
        num_classes: K.

    Returns:
        The instances, and how many ids the list holds that no pixel has.

    Raises:
        InputError: a file is unreadable, or an id has no class.
    """
    pixels = read_ids(path)
    ids = present_ids(pixels)
    if list_path is None:
        classes, _ = class_and_person(ids, num_classes)
        if not classes.all():
            raise InputError(
                f"the id map {path} holds the id {ids[classes == 0][0]}, which is not class + "
                f"{num_classes} x (person - 1): put the lists (.txt) of the instances beside the "
                "PNGs"
            )
        return PartMap(pixels, ids, classes, np.ones(len(ids))), 0
    class_of = _true_classes(list_path, num_classes)
    unlisted = [int(one) for one in ids if int(one) not in class_of]
    if unlisted:
        raise InputError(
            f"the id map {path} holds the id {unlisted[0]}, which {list_path} does not list: "
            f"{_OFFICIAL_TRUTH}"
        )
    classes = np.array([class_of[int(one)] for one in ids], np.int64)
    return PartMap(pixels, ids, classes, np.ones(len(ids))), len(class_of) - len(ids)


def read_true_persons(
    label_path: Path, path: Path, num_classes: int, ignore_label: int = IGNORE_LABEL
) -> PersonMap:
    """Read the true persons of one image: `Category_ids` and `Human_ids`.

    Raises:
        InputError: a file is unreadable, a label is no class's, or the sizes differ.
    """
    persons = ground_truth_persons(
        read_label(label_path, num_classes, ignore_label), read_ids(path)
    )
    check_same_shape(persons.labels, label_path, persons.pixels, path)
    return persons


def read_predicted_parts(path: Path, list_path: Path, num_classes: int) -> PartMap:
    """Read the predicted part instances of one image.

    Raises:
        InputError: a file is unreadable, a line is not `class score`, or lines and ids do not
            match.
    """
    classes, scores = [], []
    for number, fields in enumerate(_read_lines(list_path), start=1):
        if len(fields) != 2:
            raise _bad_line(list_path, number, fields, "`class score`")
        classes.append(_part_class(fields[0], list_path, number, num_classes))
        scores.append(_score(fields[1], list_path, number))
    pixels = read_ids(path)
    ids = _listed_ids(pixels, path, list_path, len(scores))
    return PartMap(pixels, ids, np.array(classes, np.int64), np.array(scores, np.float64))


def read_predicted_persons(path: Path, list_path: Path) -> tuple[IdMap, Counts, Floats]:
    """Read the predicted persons of one image.

    Returns:
        The map of ids, the ids, and a score for each.

    Raises:
        InputError: a file is unreadable, a line holds no score, or lines and ids do not match.
    """
    scores = []
    for number, fields in enumerate(_read_lines(list_path, separators=","), start=1):
        values = [_score(field, list_path, number) for field in fields]
        if len(values) not in (1, 2, 5) or (len(values) == 2 and fields[0] != _PERSON_CLASS):
            raise _bad_line(list_path, number, fields, "`score`, `score y1 x1 y2 x2` or `1, score`")
        scores.append(values[1] if len(values) == 2 else values[0])
    pixels = read_ids(path)
    return pixels, _listed_ids(pixels, path, list_path, len(scores)), np.array(scores, np.float64)


def read_predicted_labels(path: Path, num_classes: int) -> np.ndarray:
    """Read a predicted label map; uint8 (H, W), values 0..K-1.

    Raises:
        InputError: the file is unreadable or holds another value.
    """
    labels = read_label(path, num_classes)
    if labels.max(initial=0) >= num_classes:
        raise InputError(
            f"the predicted label map {path} holds the value {labels.max()}, but a prediction has "
            f"a class 0..{num_classes - 1} everywhere: correct the file"
        )
    return labels


def check_same_shape(first: IdMap, first_path: Path, second: IdMap, second_path: Path) -> None:
    """Refuse two maps of one image that differ in size.

    Raises:
        InputError: names both files with their sizes.
    """
    if first.shape != second.shape:
        raise InputError(
            f"{second_path} is {second.shape[1]}x{second.shape[0]} pixels (width x height) but "
            f"{first_path} is {first.shape[1]}x{first.shape[0]}: both belong to one image and "
            "must have its original size"
        )


def _true_classes(path: Path, num_classes: int) -> dict[int, int]:
    class_of: dict[int, int] = {}
    for number, fields in enumerate(_read_lines(path), start=1):
        if len(fields) not in (2, 3) or not fields[0].isdecimal():
            raise _bad_line(path, number, fields, "`id class person`")
        one = int(fields[0])
        if one == 0 or one in class_of:
            found = "0, which is background" if one == 0 else f"{one} a second time"
            raise InputError(f"line {number} of {path} lists the id {found}: {_OFFICIAL_TRUTH}")
        class_of[one] = _part_class(fields[1], path, number, num_classes)
    return class_of


def _read_lines(path: Path, separators: str = "") -> list[list[str]]:
    """Split a list into lines and fields; blank lines at the end do not count."""
    try:
        text = read_bytes(path, "list of instances").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text ({error}): write it again") from None
    for separator in separators:
        text = text.replace(separator, " ")
    return [line.split() for line in text.rstrip().splitlines()]


def _part_class(text: str, path: Path, number: int, num_classes: int) -> int:
    if not text.isdecimal() or not 1 <= int(text) < num_classes:
        raise InputError(
            f"line {number} of {path} has the class {text!r}, but parts have a class 1.."
            f"{num_classes - 1}: correct the line, or name the data set that the files are of"
        )
    return int(text)


def _score(text: str, path: Path, number: int) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise InputError(
            f"line {number} of {path} holds {text!r} where a number is due: write a finite score"
        )
    return score


def _listed_ids(pixels: IdMap, path: Path, list_path: Path, lines: int) -> Counts:
    """Give 1..lines, which must be just the ids that a predicted map holds."""
    ids = present_ids(pixels)
    listed = np.arange(1, lines + 1)
    if np.array_equal(ids, listed):
        return ids
    unlisted, unseen = np.setdiff1d(ids, listed), np.setdiff1d(listed, ids)
    if unlisted.size:
        raise InputError(
            f"the id map {path} holds the id {unlisted[0]}, but {list_path} has {lines} lines: "
            "number the instances 1..n and write one line for each"
        )
    raise InputError(
        f"line {unseen[0]} of {list_path} stands for the id {unseen[0]}, which {path} does not "
        "hold: leave out instances without pixels and number the others 1..n (as a 16-bit PNG "
        "beyond 255)"
    )


def _bad_line(path: Path, number: int, fields: list[str], wanted: str) -> InputError:
    return InputError(
        f"line {number} of {path} is {' '.join(fields)!r}, but it must be {wanted}: write it so"
    )
