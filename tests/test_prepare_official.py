"""prepare_lip.py, prepare_cihp.py and prepare_atr.py on miniatures of the official downloads."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, SHARED_DATA
from data_helpers import patchwork, save_image
from official_trees import plant_damage, plant_traps, row, snapshot, write_pair, zip_tree
from parsing_fakes import load_script

from schnet.data.catalog import class_frequencies, load_registered, register_datasets
from schnet.data.index import read_index
from schnet.data.label_maps import read_label
from schnet.data.mapper import TestMapper
from schnet.data.preparation.official import prepare_official, split_by_name
from schnet.data.specs import SPECS
from schnet.errors import InputError

CIHP = SHARED_DATA / "cihp"
TRAPS = 7
LIP_PREFIXES = {
    "nested": ("TrainVal_images/TrainVal_images/", "TrainVal_parsing_annotations/" * 2),
    "flattened": ("", ""),
}


def make_lip(folder: Path, images: str = "", labels: str = "") -> Path:
    """LIP with traps in train, two pairs in val of which one is listed, and test photos."""
    for split, names in (("train", ()), ("val", ("v1", "v2"))):
        places = folder / f"{images}{split}_images", folder / f"{labels}{split}_segmentations"
        for place in places:
            place.mkdir(parents=True)
        for number, name in enumerate(names):
            write_pair(*places, name, seed=number)
        # Mirrored already; in real downloads beside the label maps.
        mirrored = folder / f"{labels}{split}_segmentations_reversed"
        save_image(mirrored / "grey_label.png", patchwork((9, 9)))
    plant_traps(folder / f"{images}train_images", folder / f"{labels}train_segmentations")
    (folder / f"{images}val_id.txt").write_text("v2\n")
    save_image(
        folder / "Testing_images" / "testing_images" / "t.jpg", np.zeros((9, 8, 3), np.uint8)
    )
    return folder


def make_cihp(folder: Path) -> Path:
    """CIHP as its archive unpacks, with colours and person ids beside the labels."""
    for split in ("Training", "Validation"):
        home = folder / "instance-level_human_parsing" / split
        for place in ("Images", "Category_ids", "Categories", "Human_ids", "Instance_ids"):
            (home / place).mkdir(parents=True)
        plant_traps(home / "Images", home / "Category_ids")
        for other in ("Categories", "Human_ids", "Instance_ids"):
            save_image(home / other / "cmyk.png", np.full((9, 9), 3, np.uint8))
    return folder


def make_atr(folder: Path, lists: tuple[str, ...] = ()) -> Path:
    """ATR with eight pairs, mirrored labels beside them, and perhaps id lists."""
    home = folder / "humanparsing"
    for number in range(8):
        images, labels = home / "JPEGImages", home / "SegmentationClassAug"
        write_pair(images, labels, f"dataset10k_{number}", seed=number, num_classes=18)
    save_image(home / "SegmentationClassAug_rev" / "dataset10k_0.png", patchwork((9, 9)))
    for split in lists:
        (home / f"{split}_id.txt").write_text(f"dataset10k_{len(split)}\n")
    return folder


def prepare(name: str, output: Path, *sources: Path) -> str:
    arguments = ["--source", *map(str, sources), "--output", str(output), "--jobs", "1"]
    return prepare_official(SPECS[name], "Test.", [*arguments, "--max-damaged", "0.5"])


@pytest.mark.parametrize("tree", LIP_PREFIXES)
def test_lip_folders(tmp_path: Path, tree: str) -> None:
    source = make_lip(tmp_path / "source", *LIP_PREFIXES[tree])
    before = snapshot(source)
    summary = prepare("lip", tmp_path / "root" / "lip", source)
    assert snapshot(source) == before
    assert row(summary, "pairs to use") == [str(TRAPS), "1", "1"]
    assert row(summary, "official number of images") == ["30,462", "10,000", "10,000"]
    assert "val: photos outside the id list: 1, not used" in summary
    assert not list((tmp_path / "root" / "lip").glob("*/"))
    register_datasets(str(tmp_path / "root"))
    assert [entry["image_id"] for entry in load_registered(["lip_val"])] == ["v2"]
    assert len(load_registered(["lip_train"])) == TRAPS
    assert sum(class_frequencies("lip_train")) == pytest.approx(1)
    (test,) = load_registered(["lip_test"])
    assert "sem_seg_file_name" not in test and (test["height"], test["width"]) == (9, 8)


def test_lip_trees_are_the_same_data(tmp_path: Path) -> None:
    indexes = []
    for tree, prefixes in LIP_PREFIXES.items():
        prepare("lip", tmp_path / f"{tree}_out", make_lip(tmp_path / tree, *prefixes))
        index = read_index(tmp_path / f"{tree}_out" / "train.json")
        indexes.append((index.records, index.pixel_counts))
    assert indexes[0] == indexes[1]


def test_lip_zip_files(tmp_path: Path) -> None:
    source = make_lip(tmp_path / "source", "photos/", "labels/")
    prepare("lip", tmp_path / "from_folder", source)
    archives = []
    for part in ("photos", "labels", "Testing_images"):
        below = f"{part}/{part}/" if part != "Testing_images" else "Testing_images/"
        archives.append(zip_tree(source / part, tmp_path / "zips" / f"{part}.zip", below=below))
    # The zip files by name, and the folder that they lie in.
    for output, sources in (("a", archives), ("b", [tmp_path / "zips"])):
        before = snapshot(tmp_path / "zips")
        summary = prepare("lip", tmp_path / output, *sources)
        assert snapshot(tmp_path / "zips") == before
        assert row(summary, "pairs to use") == [str(TRAPS), "1", "1"]
        for split in ("train", "val", "test"):
            index = read_index(tmp_path / output / f"{split}.json")
            expected = read_index(tmp_path / "from_folder" / f"{split}.json")
            assert (index.records, index.pixel_counts) == (expected.records, expected.pixel_counts)
            for record in index.records:
                copied = Path(index.image_root, record.image)
                assert copied.read_bytes() == Path(expected.image_root, copied.name).read_bytes()


def test_damage_is_named_and_left_out(tmp_path: Path) -> None:
    source = make_lip(tmp_path / "source")
    told = plant_damage(source / "train_images", source / "train_segmentations")
    summary = prepare("lip", tmp_path / "out", source)
    left_out = [line for line in summary.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == len(told)
    assert all(any(problem in line for line in left_out) for problem in told.values())
    assert row(summary, "images") == ["12", "1", "1"]
    assert row(summary, "label maps") == ["12", "1", "0"]
    assert row(summary, "missing partners") == ["2", "0", "0"]
    assert row(summary, "unreadable files") == ["2", "0", "0"]
    assert row(summary, "size mismatches") == ["1", "0", "0"]
    assert row(summary, "impossible labels") == ["1", "0", "0"]
    assert row(summary, "photos turned by their EXIF") == ["1", "0", "0"]
    assert row(summary, "photos of mode CMYK") == ["1", "0", "0"]
    assert row(summary, "255 ignored")[0] == "96"
    assert len(read_index(tmp_path / "out" / "train.json").records) == TRAPS


def test_summary_counts_labels(tmp_path: Path) -> None:
    source = make_lip(tmp_path / "source")
    summary = prepare("lip", tmp_path / "out", source)
    labels = read_label(source / "val_segmentations" / "v2.png", 20)
    cells = row(summary, "1 Hat")
    assert cells[4:8] == [
        str((labels == 1).sum()),
        f"{100 * (labels == 1).mean():.3f}",
        "%",
        "1" if (labels == 1).any() else "0",
    ]


def test_cihp(tmp_path: Path) -> None:
    source = make_cihp(tmp_path / "source")
    summary = prepare("cihp", tmp_path / "root" / "cihp", source)
    assert row(summary, "pairs to use") == [str(TRAPS), str(TRAPS)]
    assert "test: not in the source: no folder Testing/Images/" in summary
    assert summary.count("not in the source") == 1
    register_datasets(str(tmp_path / "root"))
    entry = next(e for e in load_registered(["cihp_val"]) if e["image_id"] == "turned")
    assert "Category_ids" in entry["sem_seg_file_name"]
    mapped = TestMapper(box=(64, 64))(entry)
    assert mapped["image"].shape == (3, 64, 51)
    # Given as one split's own folder, as two names of a zip, and as the doubled folder.
    inner = source / "instance-level_human_parsing"
    zipped = zip_tree(inner, tmp_path / "cihp.zip", below="instance-level_human_parsing/" * 2)
    for number, given in enumerate((inner, zipped)):
        again = prepare("cihp", tmp_path / str(number), given)
        assert row(again, "pairs to use") == [str(TRAPS), str(TRAPS)]
    # Names occur in both splits: their copies must not meet.
    for split in ("train", "val"):
        index = read_index(tmp_path / "1" / f"{split}.json")
        assert index.image_root == str(tmp_path / "1" / "images" / split)
        assert index.label_root == str(tmp_path / "1" / "labels" / split)
    assert row(prepare("cihp", tmp_path / "x", inner / "Training"), "images") == [str(TRAPS)]


def test_missing_labels_are_refused(tmp_path: Path) -> None:
    source = make_cihp(tmp_path / "source")
    shutil.rmtree(source / "instance-level_human_parsing" / "Training" / "Category_ids")
    with pytest.raises(InputError, match=r"no folder Training/Category_ids/ with cihp's train lab"):
        prepare("cihp", tmp_path / "out", source)
    with pytest.raises(InputError, match=r"holds none of lip's folders train_images/ or val"):
        prepare("lip", tmp_path / "out", source)
    assert not (tmp_path / "out").exists()


def test_id_list_in_another_encoding_is_named(tmp_path: Path) -> None:
    source = make_lip(tmp_path / "source")
    (source / "val_id.txt").write_bytes("v2\n".encode("utf-16"))
    with pytest.raises(InputError, match=r"val_id\.txt is no UTF-8 text"):
        prepare("lip", tmp_path / "out", source)
    (source / "val_id.txt").write_bytes(b"\r\n")
    with pytest.raises(InputError, match=r"val_id\.txt names no image"):
        prepare("lip", tmp_path / "out", source)
    (source / "val_id.txt").write_bytes(b"\xef\xbb\xbfv2\r\n")
    assert row(prepare("lip", tmp_path / "out", source), "images")[1] == "1"


@pytest.fixture
def prepare_atr() -> Callable[..., str]:
    module = load_script("datasets/prepare_atr.py")

    def run(source: Path, output: Path) -> str:
        return str(module.prepare_atr([source], module.PrepareOptions(output, 1, 0.1)))

    return run


def test_atr_by_its_lists(prepare_atr: Callable[..., str], tmp_path: Path) -> None:
    source = make_atr(tmp_path / "source", ("train", "val"))
    summary = prepare_atr(source, tmp_path / "root" / "atr")
    assert row(summary, "pairs to use") == ["1", "1"]
    assert "split: the source's id lists" in summary
    assert "train: photos outside the id list: 7, not used" in summary
    register_datasets(str(tmp_path / "root"))
    assert [e["image_id"] for e in load_registered(["atr_train"])] == ["dataset10k_5"]


def test_atr_without_lists_is_split_by_name(
    prepare_atr: Callable[..., str], tmp_path: Path
) -> None:
    summary = prepare_atr(make_atr(tmp_path / "source"), tmp_path / "root" / "atr")
    assert "split: ours, by the SHA-256 of the names: no published number" in summary
    assert "outside the id list" not in summary
    found = {s: read_index(tmp_path / "root" / "atr" / f"{s}.json") for s in ("train", "val")}
    assert [len(index.records) for index in found.values()] == [7, 1]
    # Eight images do not go round.
    assert not (tmp_path / "root" / "atr" / "test.json").exists()


def test_atr_with_half_its_lists_is_refused(
    prepare_atr: Callable[..., str], tmp_path: Path
) -> None:
    for split in ("train", "val", "test"):
        source = make_atr(tmp_path / split, (split,))
        with pytest.raises(
            InputError, match=f"the id list of {split} but not those of train and v"
        ):
            prepare_atr(source, tmp_path / "out")


def test_split_by_name_depends_on_the_names_alone() -> None:
    names = [f"dataset10k_{number}" for number in range(17706)]
    sizes = SPECS["atr"].official_counts
    splits = split_by_name(names, sizes)
    assert {split: len(ids) for split, ids in splits.items()} == dict(sizes)
    assert split_by_name(names[::-1], sizes) == splits
    assert sorted(name for ids in splits.values() for name in ids) == sorted(names)
    assert not set(splits["val"]) <= set(names[16000:])
    assert all(list(ids) == sorted(ids) for ids in splits.values())
    small = split_by_name(names[:10], {"train": 8, "val": 2})
    assert [len(ids) for ids in small.values()] == [8, 2]


@pytest.mark.parametrize("name", ["lip", "cihp", "atr"])
def test_command_lines(tmp_path: Path, name: str) -> None:
    make = {"lip": make_lip, "cihp": make_cihp, "atr": make_atr}[name]
    source = make(tmp_path / "source")
    script = REPOSITORY / "datasets" / f"prepare_{name}.py"

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run("--source", source, "--output", tmp_path / "out")
    assert done.returncode == 0 and "pairs to use" in done.stdout, done.stderr
    assert f"{name} train: 100%" in done.stderr
    failed = run("--source", tmp_path / "nowhere", "--output", tmp_path / "out")
    assert failed.returncode == 2 and "nowhere does not exist" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_interrupt_is_one_line_and_the_next_run_goes_on(tmp_path: Path) -> None:
    images, labels = tmp_path / "lip" / "train_images", tmp_path / "lip" / "train_segmentations"
    for number in range(30):
        write_pair(images, labels, f"n{number:02d}", seed=number)
    # Reading it waits for a writer, so that the run is under way however fast it is.
    (images / "n20.jpg").unlink()
    os.mkfifo(images / "n20.jpg")
    journal = tmp_path / "out" / ".train.journal.jsonl"
    script = str(REPOSITORY / "datasets" / "prepare_lip.py")
    process = subprocess.Popen(
        [sys.executable, script, "--source", str(images.parent), "--jobs", "2", "--output"]
        + [str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background jobs ignore it, and so would this one.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )
    while process.poll() is None and not (journal.exists() and len(journal.read_text()) > 3000):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    while process.poll() is None:
        with contextlib.suppress(OSError):
            os.close(os.open(images / "n20.jpg", os.O_WRONLY | os.O_NONBLOCK))
        time.sleep(0.02)
    told = process.communicate()[1]
    assert process.returncode == 130
    assert told.splitlines()[-1] == "interrupted" and "Traceback" not in told
    assert not (tmp_path / "out" / "train.json").exists()
    (images / "n20.jpg").unlink()
    write_pair(images, labels, "n20", seed=20)
    summary = prepare("lip", tmp_path / "out", images.parent)
    assert row(summary, "pairs to use") == ["30"]
    assert int(row(summary, "pairs unchanged since the last run")[0]) >= 8


@pytest.mark.skipif(not CIHP.is_dir(), reason=f"the real CIHP samples are not at {CIHP}")
def test_the_three_real_samples_pass(tmp_path: Path) -> None:
    summary = prepare("cihp", tmp_path / "cihp", CIHP)
    assert row(summary, "pairs to use") == ["3"] and "left out" not in summary
    index = read_index(tmp_path / "cihp" / "train.json")
    assert [record.image for record in index.records] == sorted(
        path.name for path in (CIHP / "Training" / "Images").iterdir()
    )
    assert index.pixel_counts[5] > 70_000
