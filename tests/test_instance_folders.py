from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from instance_helpers import save_png, save_text

from schnet.errors import InputError
from schnet.evaluation.instance_folders import (
    InstanceFolders,
    find_prediction,
    find_truth,
    pair_images,
)

TRUTH = ("Instance_ids", "Human_ids", "Category_ids")
PREDICTION = ("instance_parsing", "instance_segmentation")


def make(root: Path, folders: Sequence[str], names: Sequence[str] = ("a", "b")) -> Path:
    for folder in folders:
        for name in names:
            save_png(root / folder / f"{name}.png", np.zeros((2, 2), np.uint8))
            if folder in (*PREDICTION, "cihp_human_maps", "cihp_instance_part_maps", "global_tag"):
                save_text(root / folder / f"{name}.txt", "")
    return root


@pytest.mark.parametrize(
    "place",
    [
        "",
        "Validation",
        "instance-level_human_parsing/Validation",
        "instance-level_human_parsing/instance-level_human_parsing/Validation",
    ],
)
def test_truth_is_found_as_the_archive_unpacks(tmp_path: Path, place: str) -> None:
    split = tmp_path / place
    make(split, TRUTH)
    # Colours to look at, and the other split.
    make(split, ["Instances", "Humans", "Categories"])
    make(tmp_path / "Training", TRUTH, ["c"])
    expected = InstanceFolders(*(split / name for name in TRUTH))
    assert find_truth(tmp_path) == expected
    assert find_truth(tmp_path, from_maps=True) == InstanceFolders(
        None, expected.persons, expected.labels
    )


def test_truth_may_be_part_instances_or_maps_alone(tmp_path: Path) -> None:
    parts = make(tmp_path / "parts", ["Instance_ids", "Category_ids"])
    assert find_truth(parts) == InstanceFolders(parts / "Instance_ids")
    maps = make(tmp_path / "maps", ["Human_ids", "Category_ids"])
    assert find_truth(maps) == InstanceFolders(None, maps / "Human_ids", maps / "Category_ids")
    plain = make(tmp_path, ["plain"]) / "plain"
    assert find_truth(plain) == InstanceFolders(plain)


def test_truth_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--gt .*nowhere is not a folder"):
        find_truth(tmp_path / "nowhere")
    with pytest.raises(InputError, match="neither Instance_ids/ nor both Category_ids/ and Human"):
        find_truth(make(tmp_path / "half", ["Category_ids"]))
    with pytest.raises(InputError, match="not both Category_ids/ and Human_ids/: give --gt"):
        find_truth(make(tmp_path / "parts", ["Instance_ids"]), from_maps=True)


@pytest.mark.parametrize(
    ("parts", "persons", "labels"),
    [
        ("instance_parsing", "instance_segmentation", "global_parsing"),
        ("cihp_instance_part_maps", "cihp_human_maps", "cihp_parsing_maps"),
        ("Instance_ids", "Human_ids", "Category_ids"),
        ("instance_parsing", "global_tag", "global_parsing"),
    ],
)
def test_predictions_are_found_as_public_parsers_write_them(
    tmp_path: Path, parts: str, persons: str, labels: str
) -> None:
    make(tmp_path, [persons, labels])
    maps = InstanceFolders(None, tmp_path / persons, tmp_path / labels)
    assert find_prediction(tmp_path) == maps
    # The lists of the part instances tell the classes: the maps of classes are not needed.
    make(tmp_path, [parts])
    assert find_prediction(tmp_path) == InstanceFolders(tmp_path / parts, tmp_path / persons)
    assert find_prediction(tmp_path / parts) == InstanceFolders(tmp_path / parts)


def test_a_submission_has_no_persons(tmp_path: Path) -> None:
    make(tmp_path, ["global_parsing", "instance_parsing"])
    assert find_prediction(tmp_path) == InstanceFolders(tmp_path / "instance_parsing")


def test_predictions_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--pred .*nowhere is not a folder"):
        find_prediction(tmp_path / "nowhere")
    with pytest.raises(InputError, match="neither instance_parsing/ nor both global_parsing/"):
        find_prediction(make(tmp_path / "labels", ["global_parsing"]))
    make(tmp_path / "both", ["global_tag", "instance_segmentation", "instance_parsing"])
    with pytest.raises(InputError, match="instance_segmentation and .*global_tag may both be"):
        find_prediction(tmp_path / "both")


def pairing(folder: Path) -> tuple[InstanceFolders, InstanceFolders]:
    make(folder / "gt", TRUTH)
    make(folder / "pred", PREDICTION)
    return find_truth(folder / "gt"), find_prediction(folder / "pred")


def test_images_are_paired_by_name(tmp_path: Path) -> None:
    truth, prediction = pairing(tmp_path)
    for name in ("b", "a"):
        save_text(tmp_path / "gt" / "Instance_ids" / f"{name}.txt", "")
    save_text(tmp_path / "gt" / "Instance_ids" / ".hidden.txt", "")
    save_text(tmp_path / "gt" / "Instance_ids" / "Thumbs.db", "")
    (tmp_path / "pred" / "instance_parsing" / "a.png").rename(
        tmp_path / "pred" / "instance_parsing" / "a.PNG"
    )
    first, second = pair_images(truth, prediction)
    assert first.truth.parts == tmp_path / "gt" / "Instance_ids" / "a.png"
    assert first.truth.part_list == tmp_path / "gt" / "Instance_ids" / "a.txt"
    assert first.truth.persons == tmp_path / "gt" / "Human_ids" / "a.png"
    assert first.truth.labels == tmp_path / "gt" / "Category_ids" / "a.png"
    assert first.prediction.parts == tmp_path / "pred" / "instance_parsing" / "a.PNG"
    assert first.prediction.part_list == tmp_path / "pred" / "instance_parsing" / "a.txt"
    assert first.prediction.persons == tmp_path / "pred" / "instance_segmentation" / "a.png"
    assert first.prediction.person_list == tmp_path / "pred" / "instance_segmentation" / "a.txt"
    assert first.prediction.labels is None
    assert second.truth.parts == tmp_path / "gt" / "Instance_ids" / "b.png"


def test_true_parts_may_have_no_lists(tmp_path: Path) -> None:
    assert pair_images(*pairing(tmp_path))[0].truth.part_list is None


@pytest.mark.parametrize(
    "path",
    [
        "gt/Human_ids/b.png",
        "gt/Category_ids/b.png",
        "gt/Instance_ids/b.txt",
        "pred/instance_parsing/b.png",
        "pred/instance_parsing/b.txt",
        "pred/instance_segmentation/b.png",
        "pred/instance_segmentation/b.txt",
    ],
)
def test_a_missing_file_is_named_and_so_is_one_too_many(tmp_path: Path, path: str) -> None:
    folders = pairing(tmp_path)
    file = tmp_path / path
    save_text(tmp_path / "gt" / "Instance_ids" / "a.txt", "")
    save_text(tmp_path / "gt" / "Instance_ids" / "b.txt", "")
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(InputError, match=f"{re.escape(str(file.parent))} lacks {file.name}, "):
        pair_images(*folders)
    file.write_bytes(content)
    file.with_stem("c").write_bytes(content)
    with pytest.raises(InputError, match=rf"{re.escape(str(file.parent))} holds c\.\w+, but"):
        pair_images(*folders)


def test_many_missing_files_are_counted(tmp_path: Path) -> None:
    make(tmp_path / "gt", TRUTH, [f"{index:02d}" for index in range(10)])
    make(tmp_path / "pred", PREDICTION, ["04"])
    with pytest.raises(InputError, match=r"lacks 00.png, 01.png, 02.png and 6 more, whose PNGs"):
        pair_images(find_truth(tmp_path / "gt"), find_prediction(tmp_path / "pred"))


def test_files_of_one_image_twice_are_refused(tmp_path: Path) -> None:
    folders = pairing(tmp_path)
    save_png(tmp_path / "gt" / "Human_ids" / "a.PNG", np.zeros((2, 2), np.uint8))
    with pytest.raises(InputError, match="a.PNG and .*a.png are of one image: remove one"):
        pair_images(*folders)


def test_truth_without_images_is_refused(tmp_path: Path) -> None:
    for name in TRUTH:
        (tmp_path / "gt" / name).mkdir(parents=True)
    make(tmp_path / "pred", PREDICTION)
    with pytest.raises(InputError, match="Instance_ids holds no PNG"):
        pair_images(find_truth(tmp_path / "gt"), find_prediction(tmp_path / "pred"))
