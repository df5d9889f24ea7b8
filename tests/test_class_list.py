"""classes.yaml: names, and what follows from them where nothing else is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from schnet.data.class_list import read_class_list, voc_color
from schnet.errors import InputError


def write(folder: Path, text: str) -> Path:
    path = folder / "classes.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_names_alone_will_do(tmp_path: Path) -> None:
    found = read_class_list(write(tmp_path, "names: [background, Left-arm, trouser_leg]\n"))
    assert found.names == ("background", "Left-arm", "trouser_leg")
    assert found.palette == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    assert found.mirror_pairs == ()
    assert found.prompts[1] == ("left arm", "left hand")
    assert found.prompts[2] == ("trouser leg",)


def test_everything_given(tmp_path: Path) -> None:
    found = read_class_list(
        write(
            tmp_path,
            "names: [background, left sleeve, right sleeve, 'no']\n"
            "colors: {left sleeve: [128, 0, 0]}\n"
            "mirror_pairs: [[left sleeve, right sleeve], [0, 3]]\n"
            "prompts: {left sleeve: [left sleeve, sleeve], 'no': negation}\n",
        )
    )
    # No colour twice: VOC's second is taken.
    assert found.palette == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert found.mirror_pairs == ((1, 2), (0, 3))
    assert found.prompts[1] == ("left sleeve", "sleeve") and found.prompts[3] == ("negation",)


def test_lists_in_label_order(tmp_path: Path) -> None:
    text = "names: [a, b]\ncolors: [[1, 2, 3], [4, 5, 6]]\nprompts: [[x, y], z]\n"
    found = read_class_list(write(tmp_path, text))
    assert found.palette == ((1, 2, 3), (4, 5, 6)) and found.prompts == (("x", "y"), ("z",))


def test_voc_colors_are_the_published_ones() -> None:
    known = {0: (0, 0, 0), 1: (128, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {label: voc_color(label) for label in known} == known
    assert len({voc_color(label) for label in range(256)}) == 256
    assert voc_color(255) == (224, 224, 192)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("names: [a]\n", "names 1 classes: give 2 to 255"),
        ("names: [a, b, a]\n", "names 'a' 2 times"),
        ("names: [a, no]\n", r"names .* is \['a', False\].*quoted"),
        ("names: {a: 1}\n", "give a list of words"),
        ("colors: []\n", "names .* is None"),
        ("- a\n- b\n", "is no mapping"),
        ("names: [a, b]\ncolours: []\n", "has the key 'colours': the keys are names, colors"),
        ("names: [a, b]\ncolors: [[1, 2, 3]]\n", "one for each of the 2 names"),
        ("names: [a, b]\ncolors: {c: [1, 2, 3]}\n", "has 'c', which is none of the names"),
        ("names: [a, b]\ncolors: {b: [1, 2, 256]}\n", r"color of 'b' .* is \[1, 2, 256\]"),
        ("names: [a, b]\ncolors: {b: red}\n", r"color of 'b' .* is 'red'"),
        ("names: [a, b]\nmirror_pairs: [a, b]\n", "has 'a': give pairs"),
        ("names: [a, b]\nmirror_pairs: 3\n", "give a list of pairs"),
        ("names: [a, b]\nmirror_pairs: [[a, 2]]\n", "has 2, which is none of the names"),
        ("names: [a, b]\nmirror_pairs: [[a, a]]\n", "may be in one pair"),
        ("names: [a, b, c]\nmirror_pairs: [[a, b], [b, c]]\n", "may be in one pair"),
        ("names: [a, b]\nprompts: {a: []}\n", "prompts of 'a' .* give one or more phrases"),
        ("names: [a\n", "cannot be read as YAML"),
        ("", "is no mapping"),
        ("names: [a, '']\n", "give a list of words"),
        (f"names: [{', '.join(f'c{number}' for number in range(256))}]\n", "256 classes: give 2"),
        ("names: [a, b]\ncolors: {b: [1, true, 3]}\n", r"color of 'b' .* is \[1, True, 3\]"),
        ("names: [a, b]\ncolors: {b: [1, 2]}\n", r"color of 'b' .* is \[1, 2\]"),
        ("names: [a, b]\ncolors: {b: [1, 2, -1]}\n", r"color of 'b' .* is \[1, 2, -1\]"),
        ("names: [a, b]\nmirror_pairs: [[a, -1]]\n", "has -1, which is none of the names"),
        ("names: [a, b]\nmirror_pairs: [[a, true]]\n", "has True, which is none of the names"),
        ("names: [a, b]\nprompts: {a: ' '}\n", "prompts of 'a' .* give one or more phrases"),
        ("names: [a, b]\nprompts: {a: null}\n", "prompts of 'a' .* give one or more phrases"),
        ("names: [a, b]\nprompts: {a: [1]}\n", "prompts of 'a' .* give one or more phrases"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        read_class_list(write(tmp_path, text))
    assert "classes.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_255_classes_have_colors_of_their_own(tmp_path: Path) -> None:
    names = ", ".join(f"c{number}" for number in range(255))
    found = read_class_list(write(tmp_path, f"names: [{names}]\ncolors: {{c0: [0, 0, 64]}}\n"))
    assert len(set(found.palette)) == 255


def test_phrases_are_known_however_the_name_is_written(tmp_path: Path) -> None:
    found = read_class_list(write(tmp_path, "names: [background, Left arm, left-arm, LEFT-ARM]\n"))
    assert set(found.prompts[1:]) == {("left arm", "left hand")}


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "classes.yaml"
    path.write_bytes("names: [a, \u00e9]".encode("latin-1"))
    with pytest.raises(InputError, match=r"classes\.yaml cannot be read as YAML"):
        read_class_list(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=r"classes\.yaml cannot be read as YAML \(.*directory"):
        read_class_list(path)


def test_missing_file_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no .*classes\.yaml: write one with a line `names:"):
        read_class_list(tmp_path / "classes.yaml")
