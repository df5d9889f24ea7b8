"""Remaps: what goes where by the sources, what has no counterpart, and every mistake in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from schnet.data.labels import (
    ATR_LABELS,
    CCP_LABELS,
    CIHP_CLASSES,
    LIP_CLASSES,
    PPP_LABELS,
)
from schnet.data.sides import find_mirror_pairs, mirrored_name, side_of
from schnet.errors import InputError
from schnet.parsing import Parsing
from schnet.remap import Remap, load_remap
from schnet.vocabularies import VOCABULARIES

LISTS = {"lip": LIP_CLASSES, "cihp": CIHP_CLASSES, "atr": tuple(ATR_LABELS)}
# The table `labels` of VITON-HD's and HR-VITON's loaders, of CIHP's label values.
VITON_HD = [[0, 10], [1, 2], [4, 13], [5, 6, 7], [9, 12], [14], [15], [16], [17], [18], [19]]
VITON_HD += [[8], [3, 11]]
# ACGPN's author in issue 29 of DeepFashion_Try_On, of LIP's names.
ACGPN = {"Background": 0, "Hair": 1, "Upper-clothes": 4, "Left-shoe": 5, "Right-shoe": 6}
ACGPN |= {"Pants": 8, "Left-leg": 9, "Right-leg": 10, "Left-arm": 11, "Face": 12, "Right-arm": 13}


def every_label(classes: tuple[str, ...]) -> np.ndarray:
    return np.arange(len(classes), dtype=np.uint8)[None]


def meanings(remap: Remap, classes: tuple[str, ...]) -> dict[str, str]:
    found = remap.apply(every_label(classes))[0]
    return {
        name: "" if label == 255 else remap.classes[label]
        for name, label in zip(classes, found, strict=True)
    }


def test_viton_groups_cihp_as_the_loaders_do() -> None:
    remap = load_remap("viton", CIHP_CLASSES)
    found = remap.apply(every_label(CIHP_CLASSES))[0]
    expected = np.zeros(20, np.uint8)
    for label, members in enumerate(VITON_HD):
        expected[members] = label
    assert np.array_equal(found, expected)
    assert len(remap.classes) == len(remap.palette) == 13 and remap.unmapped == ()
    assert remap.describe_unmapped() == ""
    # Label 10 of LIP is something else, of which the loaders say nothing.
    assert load_remap("viton", LIP_CLASSES).unmapped == ("Jumpsuits",)


@pytest.mark.parametrize("source", ["lip", "cihp"])
def test_viton14_takes_what_acgpn_names(source: str) -> None:
    classes = LISTS[source]
    remap = load_remap("viton14", classes)
    found = remap.apply(every_label(classes))[0]
    assert len(remap.classes) == 14
    assert {name: int(found[classes.index(name)]) for name in ACGPN} == ACGPN
    assert set(remap.unmapped) == set(classes) - set(ACGPN)
    assert all(found[classes.index(name)] == 0 for name in remap.unmapped)
    told = remap.describe_unmapped()
    assert "Dress" in told and told.endswith("these pixels become 0 (background)")


@pytest.mark.parametrize("source", LISTS)
def test_atr_keeps_the_names_that_it_has(source: str) -> None:
    classes = LISTS[source]
    remap = load_remap("atr", classes)
    assert remap.classes == tuple(ATR_LABELS) and remap.palette == tuple(ATR_LABELS.values())
    for name, meant in meanings(remap, classes).items():
        assert meant == (name if name in ATR_LABELS else "Background")
    assert set(remap.unmapped) == set(classes) - set(ATR_LABELS)


def test_ppp_ignores_what_no_label_map_can_tell_apart() -> None:
    remap = load_remap("ppp", CIHP_CLASSES)
    found = meanings(remap, CIHP_CLASSES)
    assert {name for name, part in found.items() if part == "Head"} == {
        *("Hat", "Hair", "Sunglasses", "Face")
    }
    assert found["Torso-skin"] == "Torso" and found["Right-shoe"] == "Lower-leg"
    undecided = ("Coat", "Pants", "Left-arm", "Right-arm", "Left-leg", "Right-leg")
    assert remap.unmapped == undecided
    assert all(found[name] == "" for name in undecided)
    assert remap.describe_unmapped().endswith("these pixels become 255 (ignored)")
    assert load_remap("ppp", tuple(PPP_LABELS)).unmapped == ()


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize("source", LISTS)
def test_left_stays_left(name: str, source: str) -> None:
    classes = LISTS[source]
    for own, other in meanings(load_remap(name, classes), classes).items():
        assert side_of(other) in ("", side_of(own))


@pytest.mark.parametrize("name", VOCABULARIES)
def test_vocabularies_are_whole(name: str) -> None:
    known = VOCABULARIES[name]
    assert list(known.members) == list(known.colors)
    members = [member for taken in known.members.values() for member in taken]
    assert len(set(members)) == len(members)
    published = {*LIP_CLASSES, *CIHP_CLASSES, *ATR_LABELS, *PPP_LABELS}
    assert set(members) <= published
    used = [color for color in known.colors.values() if color != (255, 255, 255)]
    assert len(set(used)) == len(used) and used[0] == (0, 0, 0)


@pytest.mark.parametrize("name", ["atr", "viton", "viton14"])
@pytest.mark.parametrize("classes", [tuple(PPP_LABELS), tuple(CCP_LABELS)], ids=["ppp", "ccp"])
def test_a_list_of_sides_needs_sides(name: str, classes: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=f"{name} tells left from right .*arm.* do not"):
        load_remap(name, classes)


def test_lists_with_the_same_names_are_taken_too() -> None:
    own = ("hair", "background", "left arm", "right_arm", "zebra")
    assert meanings(load_remap("ppp", own), own) == dict(
        zip(own, ["Head", "Background", "", "", ""], strict=True)
    )
    with pytest.raises(InputError, match="ppp knows none of the labels background, zebra"):
        load_remap("ppp", ("background", "zebra"))


def test_labels_are_not_changed_in_place_and_255_stays() -> None:
    labels = np.array([[3, 255], [13, 0]], np.uint8)
    found = load_remap("viton", CIHP_CLASSES).apply(labels)
    assert found.tolist() == [[12, 255], [2, 0]] and found.dtype == np.uint8
    assert labels.tolist() == [[3, 255], [13, 0]]


def test_what_is_no_map_of_the_list_is_refused() -> None:
    remap = load_remap("viton", CIHP_CLASSES)
    with pytest.raises(ValueError, match="the label 20 is none of the 20 classes"):
        remap.apply(np.full((2, 2), 20, np.uint8))
    for wrong in (np.zeros((2, 2), np.int64), np.zeros((2, 2, 1), np.uint8)):
        with pytest.raises(ValueError, match="labels must be"):
            remap.apply(wrong)


OWN = """
classes: [background, upper, left hand]
map: {Upper-clothes: upper, coat: upper, left arm: left hand, Background: background}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = write(tmp_path, OWN + "default: background\npalette: {upper: [1, 2, 3]}\n")
    remap = load_remap(path, LIP_CLASSES)
    assert remap.classes == ("background", "upper", "left hand")
    assert remap.palette[1] == (1, 2, 3) and len(set(remap.palette)) == 3
    found = meanings(remap, LIP_CLASSES)
    assert (found["Coat"], found["Left-arm"], found["Hat"]) == ("upper", "left hand", "background")
    assert "Hat" in remap.unmapped and "Coat" not in remap.unmapped


def test_what_a_file_ignores_is_in_no_class(tmp_path: Path) -> None:
    remap = load_remap(write(tmp_path, OWN + "default: ignore\n"), LIP_CLASSES)
    labels = remap.apply(np.array([[5, 1, 0]], np.uint8))
    parsing = Parsing(labels, remap.classes, remap.palette, np.full((1, 3, 3), 90, np.uint8))
    assert labels.tolist() == [[1, 255, 0]]
    assert parsing.areas() == {"background": 1, "upper": 1, "left hand": 0}
    assert parsing.overlay()[0, 1].tolist() == [90, 90, 90]


MISTAKES = {
    "no such file": (None, "there is no label list or file .*own.yaml: give one of atr, viton"),
    "no yaml": ("a: [", "cannot be read as YAML"),
    "no mapping": ("- a", "is no mapping"),
    "unknown key": (OWN + "defaults: ignore", "has the key 'defaults': the keys are classes"),
    "twice": ("classes: [a, b]\nmap: {Hat: a, Hat: b}", "'Hat' stands twice"),
    "twice otherwise": (
        "classes: [a, b]\nmap: {Hat: a, hat: b}\ndefault: ignore",
        "map in .* has 'Hat' twice",
    ),
    "one class": ("classes: [a]\nmap: {Hat: a}", "names 1 classes: give 2 to 255"),
    "no word": ("classes: [a, no]\nmap: {Hat: a}", "classes in .* quoted where YAML"),
    "a class twice": ("classes: [a, a]\nmap: {Hat: a}", "names 'a' 2 times"),
    "no classes": ("map: {Hat: a}", "classes in .* is None"),
    "too many": (f"classes: {[f'c{i}' for i in range(256)]}\nmap: {{Hat: c1}}", "names 256"),
    "no map": ("classes: [a, b]", "map in .* is None: give the name"),
    "no name": ("classes: [a, b]\nmap: {Hat: 3}", "map in .* has 'Hat': 3: give two names"),
    "unknown source": (
        "classes: [a, b]\nmap: {Sock: a}\ndefault: ignore",
        "map in .* has 'Sock': 'a', and there is no class 'Sock': give one of Background, Hat",
    ),
    "unknown target": (
        "classes: [a, b]\nmap: {Hat: c}\ndefault: ignore",
        "map in .* has 'Hat': 'c', and there is no class 'c': give one of a, b",
    ),
    "left out": (OWN, "map in .* leaves out Hat, Hair, .*default: background"),
    "no background": (
        "classes: [a, b]\nmap: {Hat: a}\ndefault: background",
        "default in .* is background, which is none of its classes",
    ),
    "strange default": (OWN + "default: black", "default in .* is 'black': give one of background"),
    "no colour": (OWN + "default: ignore\npalette: [[0, 0, 0]]", "palette in .* for each of the 3"),
    "swapped": (
        "classes: [a, right arm]\nmap: {Left-arm: right arm}\ndefault: ignore",
        "'Left-arm' is left",
    ),
    "no side": (
        "classes: [a, left foot]\nmap: {Socks: left foot}\ndefault: ignore",
        "'Socks' tells no side",
    ),
}


@pytest.mark.parametrize(("text", "told"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence(tmp_path: Path, text: str | None, told: str) -> None:
    path = str(tmp_path / "own.yaml") if text is None else write(tmp_path, text)
    with pytest.raises(InputError, match=told) as error:
        load_remap(path, LIP_CLASSES)
    assert "\n" not in str(error.value)


def test_sides_of_names() -> None:
    assert [side_of(n) for n in ("Left-arm", "arm_right", "LeftArm", "bright", "leftover")] == [
        *("left", "right", "left", "", "")
    ]
    assert mirrored_name("arm_left") == "arm right"
    names = ("background", "right_Shoe", "Left arm", "left shoe", "RightArm", "left ear")
    assert find_mirror_pairs(names) == ((1, 3), (2, 4))
