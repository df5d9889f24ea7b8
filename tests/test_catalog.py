from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from data_helpers import FLAT_LIP, make_pairs
from detectron2.data import DatasetCatalog, MetadataCatalog

from schnet.data.catalog import (
    SPECS,
    class_frequencies,
    load_registered,
    load_split,
    register_datasets,
)
from schnet.data.index import DatasetIndex, IndexRecord, write_index
from schnet.data.labels import CCP_GROUPS, LIP_CLASSES
from schnet.errors import InputError


def lip_index(classes: tuple[str, ...] = LIP_CLASSES) -> DatasetIndex:
    counts = [0] * len(classes)
    counts[0], counts[2] = 30, 10
    records = (IndexRecord("a.b.jpg", "a.b.png", 4, 10), IndexRecord("c.jpg", "", 5, 6))
    return DatasetIndex(classes, "photos", "labels", tuple(counts), records)


@pytest.mark.parametrize(("name", "count"), [("lip", 20), ("cihp", 20), ("dolls", 20)])
def test_lip_like_lists(name: str, count: int) -> None:
    spec = SPECS[name]
    assert len(spec.classes) == count
    assert spec.classes[10] == ("Torso-skin" if name == "cihp" else "Jumpsuits")
    assert spec.palette[14] == (51, 170, 221) and spec.palette[19] == (255, 170, 0)
    assert spec.mirror_pairs == ((14, 15), (16, 17), (18, 19))


def test_other_lists_have_the_published_lengths() -> None:
    assert [len(SPECS[name].classes) for name in ("atr", "ppp", "ccp")] == [18, 7, 16]
    assert SPECS["atr"].mirror_pairs == ((9, 10), (12, 13), (14, 15))
    assert SPECS["ppp"].classes[1:4] == ("Head", "Torso", "Upper-arm")


@pytest.mark.parametrize("name", SPECS)
def test_spec_is_consistent(name: str) -> None:
    spec = SPECS[name]
    assert len(spec.palette) == len(spec.prompts) == len(spec.classes)
    assert len(set(spec.palette)) == len(spec.palette)
    assert spec.palette[0] == (0, 0, 0) and spec.classes[0].lower() == "background"
    assert all(phrases and all(phrases) for phrases in spec.prompts)
    sided = {i for i, c in enumerate(spec.classes) if c.startswith(("Left", "Right"))}
    assert {value for pair in spec.mirror_pairs for value in pair} == sided
    for left, right in spec.mirror_pairs:
        assert spec.classes[left].replace("Left", "Right") == spec.classes[right]


def test_ccp_groups_hold_the_59_names_once() -> None:
    names = [name for members in CCP_GROUPS.values() for name in members]
    assert len(names) == len(set(names)) == 59
    assert tuple(CCP_GROUPS) == SPECS["ccp"].classes


def test_importing_registers_nothing() -> None:
    code = (
        "import schnet.data.loader, schnet.data.catalog\n"
        "from detectron2.data import DatasetCatalog\n"
        "assert 'lip_train' not in DatasetCatalog.list()"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_register_again_with_another_root(tmp_path: Path) -> None:
    for root in ("one", "two", "two"):
        make_pairs(tmp_path / root / "lip", [root], **FLAT_LIP)
        register_datasets(str(tmp_path / root))
        assert [entry["image_id"] for entry in DatasetCatalog.get("lip_train")] == [root]
        metadata = MetadataCatalog.get("lip_train")
        assert metadata.index_file == str(tmp_path / root / "lip" / "train.json")
    assert metadata.evaluator_type == "parsing" and metadata.ignore_label == 255
    assert metadata.stuff_colors[1] == [128, 0, 0] and metadata.spec_name == "lip"
    assert metadata.mirror_pairs == [(14, 15), (16, 17), (18, 19)]
    assert metadata.labels_from == "the data set lip"


def test_other_ignore_labels_are_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SPECS, "lip", replace(SPECS["lip"], ignore_label=99))
    register_datasets(str(tmp_path))
    assert MetadataCatalog.get("lip_train").ignore_label == 99
    monkeypatch.undo()
    register_datasets(str(tmp_path))
    assert MetadataCatalog.get("lip_train").ignore_label == 255


def test_root_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    register_datasets()
    assert MetadataCatalog.get("ccp_val").index_file == str(tmp_path / "ccp" / "val.json")
    monkeypatch.delenv("DETECTRON2_DATASETS")
    register_datasets()
    assert MetadataCatalog.get("ccp_val").index_file == str(Path("datasets/ccp/val.json"))


LIP_TREES = [
    ("TrainVal_images/TrainVal_images/", "TrainVal_parsing_annotations/" * 2),
    ("TrainVal_images/", "TrainVal_parsing_annotations/"),
    ("", ""),
]


@pytest.mark.parametrize(("images", "labels"), LIP_TREES)
def test_lip_trees(tmp_path: Path, images: str, labels: str) -> None:
    folder = tmp_path / "lip"
    places = {"image_dir": f"{images}val_images", "label_dir": f"{labels}val_segmentations"}
    make_pairs(folder, ["10_2", "3_4", "7_7"], **places)
    (folder / f"{images}val_id.txt").write_text("3_4\n10_2.jpg\n\n")
    dicts = load_split(SPECS["lip"], "val", tmp_path)
    assert [entry["image_id"] for entry in dicts] == ["3_4", "10_2"]
    assert dicts[0]["file_name"] == str(folder / f"{images}val_images/3_4.jpg")
    assert dicts[0]["sem_seg_file_name"] == str(folder / f"{labels}val_segmentations/3_4.png")
    assert "height" not in dicts[0]


def test_tree_without_id_list_takes_all_images(tmp_path: Path) -> None:
    make_pairs(tmp_path / "lip", ["b", "a"], **FLAT_LIP)
    images = tmp_path / "lip" / "train_images"
    (images / "b.jpg").rename(images / "b.JPG")
    (images / "._a.jpg").write_bytes(b"")
    assert [e["image_id"] for e in load_split(SPECS["lip"], "train", tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("prefix", ["", "instance-level_human_parsing/"])
def test_cihp_reads_labels_not_colours(tmp_path: Path, prefix: str) -> None:
    base = f"{prefix}Training"
    for labels in ("Categories", "Category_ids"):
        places = {"image_dir": f"{base}/Images", "label_dir": f"{base}/{labels}"}
        make_pairs(tmp_path / "cihp", ["0002190"], **places)
    dicts = load_split(SPECS["cihp"], "train", tmp_path)
    assert dicts[0]["sem_seg_file_name"].endswith("Training/Category_ids/0002190.png")


def test_shared_folders_need_an_id_list(tmp_path: Path) -> None:
    folder = tmp_path / "atr" / "humanparsing"
    make_pairs(folder, ["1", "2"], image_dir="JPEGImages", label_dir="SegmentationClassAug")
    with pytest.raises(InputError, match=r"id list train_id\.txt in .*atr"):
        load_split(SPECS["atr"], "train", tmp_path)
    (folder / "train_id.txt").write_text("2\n")
    assert [e["image_id"] for e in load_split(SPECS["atr"], "train", tmp_path)] == ["2"]


def test_index_goes_before_the_tree(tmp_path: Path) -> None:
    folder = tmp_path / "lip"
    make_pairs(folder, ["other"], **FLAT_LIP)
    write_index(folder / "train.json", lip_index())
    first, second = load_split(SPECS["lip"], "train", tmp_path)
    assert first == {
        "file_name": str(folder / "photos" / "a.b.jpg"),
        "sem_seg_file_name": str(folder / "labels" / "a.b.png"),
        "image_id": "a.b",
        "height": 4,
        "width": 10,
    }
    assert "sem_seg_file_name" not in second


def test_index_is_believed_without_a_look_at_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = lip_index()
    records = tuple(IndexRecord(f"{n}.jpg", f"{n}.png", 4, 4) for n in range(30_000))
    write_index(tmp_path / "lip" / "train.json", replace(index, records=records))

    def refuse(*_: object) -> None:
        raise AssertionError("a directory was walked")

    for walk in ("scandir", "walk", "listdir"):
        monkeypatch.setattr(f"os.{walk}", refuse)
    assert len(load_split(SPECS["lip"], "train", tmp_path)) == 30_000


@pytest.mark.parametrize("prefix", ["", "Testing_images/", "Testing_images/Testing_images/"])
def test_test_split_has_no_labels(tmp_path: Path, prefix: str) -> None:
    images = tmp_path / "lip" / f"{prefix}testing_images"
    make_pairs(tmp_path, ["b", "a"], image_dir=str(images), label_dir="elsewhere")
    entries = load_split(SPECS["lip"], "test", tmp_path)
    assert [entry["image_id"] for entry in entries] == ["a", "b"]
    assert entries[0] == {"image_id": "a", "file_name": str(images / "a.jpg")}


def test_one_name_with_two_endings_is_refused(tmp_path: Path) -> None:
    make_pairs(tmp_path / "lip", ["a"], **FLAT_LIP)
    (tmp_path / "lip" / "train_images" / "a.png").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"holds a\.(jpg|png) and a\.(jpg|png), which have one name"
    ):
        load_split(SPECS["lip"], "train", tmp_path)


def test_official_counts_are_the_published_ones() -> None:
    counts = {name: dict(spec.official_counts) for name, spec in SPECS.items()}
    assert counts["lip"] == {"train": 30462, "val": 10000, "test": 10000}
    assert counts["cihp"] == {"train": 28280, "val": 5000, "test": 5000}
    assert counts["ppp"] == {"train": 1716, "val": 1817}
    assert sum(counts["atr"].values()) == 17706 and sum(counts["ccp"].values()) == 1004


def test_index_of_other_labels_is_refused(tmp_path: Path) -> None:
    register_datasets(str(tmp_path))
    for changed in (lip_index(LIP_CLASSES[:19]), replace(lip_index(), ignore_label=0)):
        write_index(tmp_path / "lip" / "train.json", changed)
        with pytest.raises(InputError, match=r"train\.json has (19|20) classes .* has 20"):
            load_split(SPECS["lip"], "train", tmp_path)
        with pytest.raises(InputError, match=r"train\.json has (19|20) classes .* has 20"):
            class_frequencies("lip_train")


def test_missing_folder_names_the_script(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder .*ccp: run datasets/prepare_ccp\.py"):
        load_split(SPECS["ccp"], "train", tmp_path)


def test_sets_of_indexes_alone_are_not_looked_for_in_folders(tmp_path: Path) -> None:
    (tmp_path / "ppp").mkdir()
    with pytest.raises(InputError, match=r"ppp has no index .*train\.json: .*prepare_pascal"):
        load_split(SPECS["ppp"], "train", tmp_path)


def test_missing_tree_names_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "lip").mkdir()
    with pytest.raises(InputError, match=r"index .*train\.json nor .* train_images in"):
        load_split(SPECS["lip"], "train", tmp_path)


@pytest.mark.parametrize("with_index", [False, True])
def test_empty_data_set(tmp_path: Path, with_index: bool) -> None:
    folder = tmp_path / "dolls"
    for name in ("train_images", "train_segmentations"):
        (folder / name).mkdir(parents=True)
    if with_index:
        empty = DatasetIndex(LIP_CLASSES, ".", ".", (0,) * 20, ())
        write_index(folder / "train.json", empty)
    with pytest.raises(InputError, match=r"dolls_train is empty.*make_paper_dolls"):
        load_split(SPECS["dolls"], "train", tmp_path)


@pytest.mark.parametrize(
    ("lost", "kind"), [("train_images/b.jpg", "image"), ("train_segmentations/b.png", "label map")]
)
def test_missing_partner_is_named(tmp_path: Path, lost: str, kind: str) -> None:
    make_pairs(tmp_path / "lip", ["a", "b"], **FLAT_LIP)
    (tmp_path / "lip" / "train_id.txt").write_text("a\nb\n")
    (tmp_path / "lip" / lost).unlink()
    with pytest.raises(InputError, match=f"the {kind} of lip image 'b' is not in"):
        load_split(SPECS["lip"], "train", tmp_path)


def test_class_frequencies(tmp_path: Path) -> None:
    register_datasets(str(tmp_path))
    with pytest.raises(InputError, match=r"no index file .*train\.json"):
        class_frequencies("lip_train")
    write_index(tmp_path / "lip" / "train.json", lip_index())
    frequencies = class_frequencies("lip_train")
    assert len(frequencies) == 20 and sum(frequencies) == pytest.approx(1)
    assert frequencies[:3] == [0.75, 0.0, 0.25]
    write_index(tmp_path / "lip" / "train.json", replace(lip_index(), pixel_counts=(0,) * 20))
    with pytest.raises(InputError, match=r"train\.json counts no labelled pixel"):
        class_frequencies("lip_train")


def test_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    register_datasets(str(tmp_path))
    for name in ("foreign_train", "silent_train"):
        DatasetCatalog.register(name, list)
    MetadataCatalog.get("foreign_train").set(evaluator_type="coco")
    try:
        with pytest.raises(
            InputError, match=r"no data set 'lip_trian': take one of .*lip_train, "
        ) as told:
            load_registered(["lip_trian"])
        assert "foreign_train" not in str(told.value) and "silent_train" not in str(told.value)
        assert "silent_train" not in MetadataCatalog.list()
    finally:
        for name in ("foreign_train", "silent_train"):
            DatasetCatalog.remove(name)
        MetadataCatalog.remove("foreign_train")


def test_sets_with_different_labels_are_not_mixed(tmp_path: Path) -> None:
    for name in ("lip", "cihp", "dolls"):
        write_index(tmp_path / name / "train.json", lip_index(SPECS[name].classes))
    register_datasets(str(tmp_path))
    assert len(load_registered(["lip_train", "dolls_train"])) == 4
    with pytest.raises(InputError, match="lip_train and cihp_train have different label lists"):
        load_registered(["lip_train", "cihp_train"])
