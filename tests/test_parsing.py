"""What people do with a parsing: masks by name, areas, overlays, files, copies to processes."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schnet.data.labels import LIP_CLASSES, LIP_PALETTE
from schnet.errors import InputError
from schnet.parsing import Parsing, background_numbers, class_number

LABELS = np.array([[0, 14, 14], [15, 2, 0]], np.uint8)
IMAGE = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 10


def parsing(**changed: object) -> Parsing:
    values = {"labels": LABELS, "classes": LIP_CLASSES, "palette": LIP_PALETTE, "image": IMAGE}
    return Parsing(**{**values, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["Left-arm", "left arm", "LEFT_ARM", " left - arm "])
def test_masks_are_found_by_any_writing_of_a_name(name: str) -> None:
    mask = parsing().mask(name)
    assert mask.dtype == np.bool_ and mask.tolist() == [[False, True, True], [False] * 3]


def test_masks_of_several_parts_are_their_union() -> None:
    found = parsing().mask("left arm", "hair", "Right-arm")
    assert found.tolist() == [[False, True, True], [True, True, False]]
    assert not parsing().mask("scarf").any() and not parsing().mask().any()


def test_unknown_and_ambiguous_names_are_refused() -> None:
    with pytest.raises(InputError, match="no class 'arm': give one of Background, Hat"):
        parsing().mask("left arm", "arm")
    classes = ("left arm", "Left-arm")
    assert [class_number(classes, name) for name in classes] == [0, 1]
    with pytest.raises(InputError, match="'LEFT ARM' may be left arm or Left-arm"):
        class_number(classes, "LEFT ARM")


def test_areas_count_every_class_in_label_order() -> None:
    areas = parsing().areas()
    assert tuple(areas) == LIP_CLASSES and sum(areas.values()) == LABELS.size
    assert {name: n for name, n in areas.items() if n} == {
        **{"Background": 2, "Hair": 1, "Left-arm": 2, "Right-arm": 1}
    }
    assert all(type(number) is int for number in areas.values())


@pytest.mark.parametrize("background", ["Background", "background", "BACKGROUND"])
def test_overlay_draws_the_parts_and_leaves_the_background(background: str) -> None:
    classes = (background, *LIP_CLASSES[1:])
    before = IMAGE.copy()
    found = parsing(classes=classes).overlay(0.5)
    expected = IMAGE.astype(float)
    for y, x in np.argwhere(LABELS > 0):
        expected[y, x] = 0.5 * expected[y, x] + 0.5 * np.array(LIP_PALETTE[LABELS[y, x]])
    assert np.abs(found - expected).max() <= 1 and found.dtype == np.uint8
    assert np.array_equal(found[LABELS == 0], IMAGE[LABELS == 0])
    assert np.array_equal(IMAGE, before)
    full = parsing().overlay(1)
    assert full[0, 1].tolist() == list(LIP_PALETTE[14])


def test_the_background_is_known_by_name_wherever_it_is() -> None:
    assert background_numbers(("hat", "Background", "hair")) == [1]
    own = parsing(classes=("Hat", "Background", "Hair"), labels=np.array([[1, 0, 2]] * 2, np.uint8))
    assert np.array_equal(own.overlay()[:, 0], IMAGE[:, 0])
    assert not np.array_equal(own.overlay()[:, 1], IMAGE[:, 1])


def test_overlay_without_a_photo_is_refused() -> None:
    with pytest.raises(InputError, match="parse with keep_images=True"):
        parsing(image=None).overlay()


def test_png_holds_labels_and_palette(tmp_path: Path) -> None:
    path = tmp_path / "new" / "labels.png"
    parsing().save_png(path)
    with Image.open(path) as image:
        assert image.mode == "P" and np.array_equal(np.asarray(image), LABELS)
        colors = np.asarray(image.convert("RGB"))
    assert colors[0, 1].tolist() == list(LIP_PALETTE[14])
    assert [entry.name for entry in path.parent.iterdir()] == ["labels.png"]


def test_probabilities_are_made_once_and_when_asked_for() -> None:
    made = []

    def scores() -> np.ndarray:
        made.append(1)
        return np.full((20, 2, 3), 0.05, np.float32)

    own = parsing(scores=scores)
    assert not made
    assert own.probabilities is own.probabilities and len(made) == 1


def test_what_was_made_goes_to_another_process_and_the_model_stays() -> None:
    found = np.full((20, 2, 3), 0.05, np.float32)
    own = parsing(scores=lambda: found)  # no pickle takes a lambda
    copy = pickle.loads(pickle.dumps(own))
    assert np.array_equal(copy.labels, LABELS) and copy.classes == LIP_CLASSES
    assert copy.palette == LIP_PALETTE and np.array_equal(copy.image, IMAGE)
    assert np.array_equal(copy.overlay(), own.overlay())
    with pytest.raises(InputError, match="in the process where they are needed"):
        _ = copy.probabilities
    _ = own.probabilities
    assert np.array_equal(pickle.loads(pickle.dumps(own)).probabilities, found)
