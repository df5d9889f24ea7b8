from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import scipy.io
from pascal_part_files import CLASS_NUMBERS, EMPTY, annotation, struct_array, thing

from schnet.data.labels import PPP_LABELS
from schnet.data.preparation.pascal_part import PART_GROUPS, read_person_parts
from schnet.errors import InputError

SIZE = (9, 12)
PATH = "download/Annotations_Part/2008_000008.mat"


def box(top: int, left: int, bottom: int, right: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def save(**variables: Any) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, variables)
    return file.getvalue()


def test_the_nesting_is_pascal_parts() -> None:
    # As public readers of Pascal-Part take it apart.
    data = annotation(
        [thing("person", [("hair", box(0, 0, 2, 2))]), thing("horse", [], box(*(1,) * 4))]
    )
    anno = scipy.io.loadmat(io.BytesIO(data))["anno"][0, 0]
    first, second = anno["objects"][0, :]
    assert anno["imname"][0] == "2008_000008"
    assert first["class"][0] == "person" and first["class_ind"][0, 0] == 15
    assert first["mask"].dtype == np.uint8 and first["mask"].shape == SIZE
    part = first["parts"][0, 0]
    assert part["part_name"][0] == "hair" and part["mask"].shape == SIZE
    assert second["parts"].shape[1] == 0


def test_all_24_parts_are_merged() -> None:
    names = [name for group in PART_GROUPS.values() for name in group]
    assert len(names) == len(set(names)) == 24
    masks = {name: box(0, number, 1, number + 1, (1, 24)) for number, name in enumerate(names)}
    labels = read_person_parts(annotation([thing("person", list(masks.items()))]), PATH)
    expected = [list(PPP_LABELS).index(group) for group, own in PART_GROUPS.items() for _ in own]
    assert labels is not None and labels.dtype == np.uint8
    assert labels[0].tolist() == expected
    # By hand, so that a part in the wrong group is seen.
    by_name = dict(zip(names, labels[0].tolist(), strict=True))
    assert {by_name[n] for n in ("head", "hair", "leye", "rear", "lebrow", "nose", "mouth")} == {1}
    assert [by_name[n] for n in ("torso", "neck", "luarm", "ruarm")] == [2, 2, 3, 3]
    assert [by_name[n] for n in ("llarm", "rlarm", "lhand", "rhand")] == [4] * 4
    assert [by_name[n] for n in ("luleg", "ruleg")] == [5] * 2
    assert [by_name[n] for n in ("llleg", "rlleg", "lfoot", "rfoot")] == [6] * 4


def test_later_parts_and_persons_cover_earlier_ones() -> None:
    first = thing("person", [("torso", box(0, 0, 6, 6)), ("luarm", box(2, 2, 4, 8))])
    second = thing("person", [("head", box(3, 3, 9, 12))])
    labels = read_person_parts(annotation([first, second]), PATH)
    expected = np.zeros(SIZE, np.uint8)
    expected[0:6, 0:6] = 2
    expected[2:4, 2:8] = 3
    expected[3:9, 3:12] = 1
    assert labels is not None and np.array_equal(labels, expected)


def test_only_persons_parts_count() -> None:
    rider = thing("person", [("torso", box(0, 0, 4, 4))])
    horse = thing("horse", [("head", box(0, 0, 9, 9)), ("muzzle", box(0, 0, 1, 1))])
    # A person's silhouette without parts covers nothing either, as in mat2map.m.
    far = thing("person", [], box(0, 0, 9, 12))
    labels = read_person_parts(annotation([rider, horse, far]), PATH)
    assert labels is not None and np.array_equal(labels == 2, box(0, 0, 4, 4))
    assert set(np.unique(labels)) == {0, 2}


@pytest.mark.parametrize(
    "objects",
    [
        [],
        [thing("bicycle", [("saddle", box(0, 0, 2, 2))])],
        [thing("person", [], box(0, 0, 5, 5))],
        [thing("person", [("head", box(0, 0, 0, 0))])],
    ],
    ids=["no object", "no person", "no part", "no pixel"],
)
def test_image_without_a_part_is_none(objects: list[tuple]) -> None:
    assert read_person_parts(annotation(objects), PATH) is None


def test_no_parts_as_an_empty_struct_array() -> None:
    empty = np.empty((1, 0), [("part_name", object), ("mask", object)])
    person = ("person", CLASS_NUMBERS["person"], box(0, 0, 5, 5), empty)
    assert read_person_parts(annotation([person]), PATH) is None


def test_unknown_part_is_refused_by_name() -> None:
    data = annotation([thing("person", [("head", box(0, 0, 2, 2)), ("wing", box(2, 2, 3, 3))])])
    with pytest.raises(InputError, match=r"2008_000008\.mat names the person part 'wing'"):
        read_person_parts(data, PATH)


def test_masks_of_two_sizes_are_refused() -> None:
    person = thing("person", [("head", box(0, 0, 2, 2))])
    other = thing("person", [("torso", box(0, 0, 2, 2, (12, 9)))])
    with pytest.raises(InputError, match="holds masks of 12x9 and of 9x12 pixels"):
        read_person_parts(annotation([person, other]), PATH)


DAMAGED = {
    "no MATLAB file": (b"no MATLAB file", "cannot be read as MATLAB data"),
    "cut off": (
        annotation([thing("person", [("head", box(0, 0, 2, 2))])])[:-30],
        "cannot be read as MATLAB data",
    ),
    "no anno": (save(groundtruth=np.eye(3)), "with a variable 'anno'"),
    "a number": (save(anno=3.0), "lacks a struct of objects"),
    "empty": (save(anno=EMPTY), "holds 0 annotations instead of one"),
    "no objects": (save(anno={"imname": "a"}), "lacks a struct of objects"),
    "objects are numbers": (save(anno={"objects": np.eye(2)}), "lacks a struct of class, parts"),
    "no parts": (
        save(anno={"objects": struct_array(("class",), [("person",)])}),
        "lacks a struct of class, parts",
    ),
    "mask is text": (
        annotation([("person", 15, EMPTY, struct_array(("part_name", "mask"), [("head", "m")]))]),
        "mask is no image",
    ),
    "mask is empty": (
        annotation([("person", 15, EMPTY, struct_array(("part_name", "mask"), [("head", EMPTY)]))]),
        "mask is no image",
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_are_named(kind: str) -> None:
    data, message = DAMAGED[kind]
    with pytest.raises(InputError, match=message) as caught:
        read_person_parts(data, PATH)
    assert PATH in str(caught.value) and "fetch it again" in str(caught.value)
