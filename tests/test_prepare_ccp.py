from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import scipy.io
from conftest import REPOSITORY, SHARED_DATA
from data_helpers import save_image
from official_trees import row, snapshot
from PIL import Image

from schnet.data.catalog import class_frequencies, load_registered, register_datasets
from schnet.data.index import read_index
from schnet.data.label_maps import read_label
from schnet.data.labels import CCP_GROUPS, CCP_LABELS
from schnet.data.preparation.pairs import PairRules, check_pair
from schnet.data.preparation.sources import open_source
from schnet.data.preparation.splits import pair_files
from schnet.errors import InputError

SCRIPT = REPOSITORY / "datasets" / "prepare_ccp.py"
CCP = SHARED_DATA / "ccp"
# Not in group order, so that values and groups are told apart; `null` is 0 as in CCP.
NAMES = ["null", *sorted(name for names in CCP_GROUPS.values() for name in names if name != "null")]
IDS = [f"{number:04d}" for number in range(1, 11)]
SIZE = (12, 8)


@pytest.fixture
def prepare_ccp(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return __import__("prepare_ccp")


def truth(image_id: str) -> np.ndarray:
    """Values of CCP's 59 names, different for each id."""
    return np.random.default_rng(int(image_id)).integers(0, 59, SIZE).astype(np.uint8)


def groups(values: np.ndarray) -> np.ndarray:
    """What the values become, by name."""
    group_of = {name: group for group, names in CCP_GROUPS.items() for name in names}
    classes = list(CCP_LABELS)
    return np.vectorize(lambda value: classes.index(group_of[NAMES[value]]))(values)


def write_annotation(source: Path, image_id: str, values: np.ndarray) -> None:
    path = source / "annotations" / "pixel-level" / f"{image_id}.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"groundtruth": values}, do_compression=True)


def make_source(folder: Path, names: list[str] = NAMES) -> Path:
    """A small CCP in its official layout, with one photo that has no pixel labels."""
    rng = np.random.default_rng(0)
    for image_id in IDS:
        noise = rng.integers(0, 256, (*SIZE, 3), np.uint8)
        save_image(folder / "photos" / f"{image_id}.jpg", noise)
        write_annotation(folder, image_id, truth(image_id))
    save_image(folder / "photos" / "2000.jpg", np.full((*SIZE, 3), 9, np.uint8))
    cells = np.empty((1, len(names)), object)
    cells[0] = names
    scipy.io.savemat(folder / "label_list.mat", {"label_list": cells})
    return folder


def prepare(module: ModuleType, source: Path, output: Path, max_damaged: float = 0.5) -> str:
    return str(module.prepare_ccp([source], module.PrepareOptions(output, 1, max_damaged)))


def test_groups_and_indexes(prepare_ccp: ModuleType, tmp_path: Path) -> None:
    source, output = make_source(tmp_path / "source"), tmp_path / "root" / "ccp"
    before = snapshot(source)
    summary = prepare(prepare_ccp, source, output)
    assert snapshot(source) == before
    for image_id in IDS:
        assert np.array_equal(
            read_label(output / "labels" / f"{image_id}.png", 16), groups(truth(image_id))
        )
    with Image.open(output / "labels" / "0001.png") as image:
        assert image.mode == "P"
        assert tuple(image.getpalette()[3:6]) == CCP_LABELS["hat"]
    train, val = read_index(output / "train.json"), read_index(output / "val.json")
    assert [record.image for record in train.records] == [f"{i}.jpg" for i in IDS[:8]]
    assert [record.label for record in val.records] == ["0009.png", "0010.png"]
    assert train.image_root == str((source / "photos").resolve())
    assert "photos: 11, 1 without pixel labels" in summary
    assert (train.records[0].height, train.records[0].width) == SIZE
    counts = np.bincount(groups(np.stack([truth(i) for i in IDS[8:]])).ravel(), minlength=16)
    assert list(val.pixel_counts) == counts.tolist()


def test_prepared_set_registers(prepare_ccp: ModuleType, tmp_path: Path) -> None:
    prepare(prepare_ccp, make_source(tmp_path / "source"), tmp_path / "root" / "ccp")
    register_datasets(str(tmp_path / "root"))
    entries = load_registered(["ccp_val"])
    assert [entry["image_id"] for entry in entries] == ["0009", "0010"]
    assert all(os.path.isfile(entry["file_name"]) for entry in entries)
    assert all(os.path.isfile(entry["sem_seg_file_name"]) for entry in entries)
    assert sum(class_frequencies("ccp_train")) == pytest.approx(1)


def test_second_run_writes_only_what_is_new(prepare_ccp: ModuleType, tmp_path: Path) -> None:
    source, output = make_source(tmp_path / "source"), tmp_path / "out"
    prepare(prepare_ccp, source, output)
    before = snapshot(output / "labels")
    (output / "labels" / "0003.png").unlink()
    (output / "labels" / "0004.png").write_bytes(b"cut off")
    write_annotation(source, "0005", truth("0006"))
    summary = prepare(prepare_ccp, source, output)
    after = snapshot(output / "labels")
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"0003.png", "0004.png", "0005.png"}
    for image_id, values in {"0004": "0004", "0005": "0006"}.items():
        path = output / "labels" / f"{image_id}.png"
        assert np.array_equal(read_label(path, 16), groups(truth(values)))
    assert row(summary, "pairs checked") == ["3", "0"]
    assert row(summary, "pairs unchanged since the last run") == ["5", "2"]


def test_other_names_and_groups_convert_again(
    prepare_ccp: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = make_source(tmp_path / "source"), tmp_path / "out"
    prepare(prepare_ccp, source, output)
    make_source(tmp_path / "other", [*NAMES[:-2], NAMES[-1], NAMES[-2]])
    (tmp_path / "other" / "label_list.mat").replace(source / "label_list.mat")
    assert row(prepare(prepare_ccp, source, output), "pairs checked") == ["8", "2"]
    group, other = list(CCP_GROUPS)[1:3]
    moved = CCP_GROUPS[group][0]
    changed = {**CCP_GROUPS, group: CCP_GROUPS[group][1:], other: (*CCP_GROUPS[other], moved)}
    monkeypatch.setattr(prepare_ccp, "CCP_GROUPS", changed)
    assert row(prepare(prepare_ccp, source, output), "pairs checked") == ["8", "2"]
    assert row(prepare(prepare_ccp, source, output), "pairs checked") == ["0", "0"]


def test_folder_without_annotations_is_refused(prepare_ccp: ModuleType, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    for path in (source / "annotations" / "pixel-level").iterdir():
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(InputError, match=r"pixel-level holds no \.mat file"):
        prepare(prepare_ccp, source, tmp_path / "out")


def test_list_of_something_else_than_names_is_refused(
    prepare_ccp: ModuleType, tmp_path: Path
) -> None:
    source = make_source(tmp_path / "source")
    scipy.io.savemat(source / "label_list.mat", {"label_list": np.zeros((1, 3))})
    with pytest.raises(InputError, match=r"label_list\.mat holds no list of label names"):
        prepare(prepare_ccp, source, tmp_path / "out")


def damage(source: Path) -> dict[str, str]:
    """Spoil four pairs; what the report must say of each."""
    (source / "photos" / "0002.jpg").unlink()
    photo = source / "photos" / "0003.jpg"
    photo.write_bytes(photo.read_bytes()[:-40])
    (source / "annotations" / "pixel-level" / "0004.mat").write_bytes(b"no MATLAB file")
    write_annotation(source, "0009", truth("0009")[:, :-1])
    write_annotation(source, "0010", truth("0010") + 100)
    return {
        "0002.mat": "the image 0002 is missing for the label map",
        "0003.jpg": "cannot be read",
        "0004.mat": "cannot be read as MATLAB data",
        "0009.mat": "is 8x12 pixels",
        "0010.mat": "but label_list.mat names 0..58",
    }


def test_damaged_files_are_named_and_left_out(prepare_ccp: ModuleType, tmp_path: Path) -> None:
    source, output = make_source(tmp_path / "source"), tmp_path / "out"
    expected = damage(source)
    # Leave one good pair in the validation split.
    write_annotation(source, "0010", truth("0010"))
    del expected["0010.mat"]
    summary = prepare(prepare_ccp, source, output)
    left_out = [line for line in summary.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == len(expected)
    for line, (name, problem) in zip(left_out, expected.items(), strict=True):
        assert name in line and problem in line
    train, val = read_index(output / "train.json"), read_index(output / "val.json")
    assert [r.image for r in train.records] == [f"{i}.jpg" for i in IDS[:1] + IDS[4:8]]
    assert [r.image for r in val.records] == ["0010.jpg"]
    assert row(summary, "images") == ["7", "2"] and row(summary, "label maps") == ["8", "2"]
    assert row(summary, "more or fewer than these") == ["-798", "-200"]
    assert row(summary, "pairs to use") == ["5", "1"]
    assert row(summary, "missing partners") == ["1", "0"]
    assert row(summary, "unreadable files") == ["2", "0"]
    assert row(summary, "size mismatches") == ["0", "1"]


def test_value_without_a_name_is_refused(prepare_ccp: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "annotations" / "pixel-level" / "0001.mat"
    for values, told in (
        (np.full(SIZE, 59, np.uint8), "holds the value 59"),
        (np.full(SIZE, -1, np.int8), "holds the value -1"),
        (np.zeros(SIZE, np.float32), "no map of label values but float32"),
        (np.zeros((0, 0), np.uint8), r"no map of label values but uint8 of shape \(0, 0\)"),
        (np.zeros((2, 2, 2), np.uint8), r"no map of label values but uint8 of shape \(2, 2, 2\)"),
    ):
        write_annotation(tmp_path, "0001", values)
        with pytest.raises(InputError, match=rf"0001\.mat holds .*{told.removeprefix('holds ')}"):
            prepare_ccp.read_groups(path.read_bytes(), str(path), np.zeros(59, np.uint8))


def test_too_much_damage_stops(prepare_ccp: ModuleType, tmp_path: Path) -> None:
    source, output = make_source(tmp_path / "source"), tmp_path / "out"
    damage(source)
    with pytest.raises(InputError, match=r"5 of 10 pairs cannot be used, more than 40%.*0004"):
        prepare(prepare_ccp, source, output, max_damaged=0.4)
    assert not (output / "train.json").exists() and not (output / "val.json").exists()


def test_unknown_name_is_refused(prepare_ccp: ModuleType, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", [*NAMES[:-1], "toga"])
    with pytest.raises(InputError, match="the name 'toga'"):
        prepare(prepare_ccp, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_source_is_found_one_folder_deeper(prepare_ccp: ModuleType, tmp_path: Path) -> None:
    make_source(tmp_path / "source" / "clothing-co-parsing")
    assert "pairs to use" in prepare(prepare_ccp, tmp_path / "source", tmp_path / "out")


def test_wrong_folders_are_refused(prepare_ccp: ModuleType, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    with pytest.raises(InputError, match="nowhere does not exist"):
        prepare(prepare_ccp, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(InputError, match=r"has no folder photos/ with CCP's photos"):
        prepare(prepare_ccp, source / "annotations", tmp_path / "out")
    for output in (source, source / "ccp"):
        with pytest.raises(InputError, match="lies in the source .*never changed"):
            prepare(prepare_ccp, source, output)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file: give a folder"):
        prepare(prepare_ccp, source, tmp_path / "file")


def run_script(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_command_line(tmp_path: Path) -> None:
    source, output = make_source(tmp_path / "source"), tmp_path / "out"
    done = run_script("--source", source, "--output", output, "--jobs", 2)
    assert done.returncode == 0 and "pairs to use" in done.stdout
    assert "8/8" in done.stderr and "2/2" in done.stderr
    (source / "label_list.mat").unlink()
    failed = run_script("--source", source, "--output", output)
    assert failed.returncode == 2 and "has no label_list.mat" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.skipif(not CCP.is_dir(), reason=f"the real CCP photos are not at {CCP}")
def test_real_names_and_one_real_pair(prepare_ccp: ModuleType, tmp_path: Path) -> None:
    tree = open_source([CCP])
    names_file = tree.find_file("label_list.mat")
    assert names_file is not None
    names = prepare_ccp.read_label_names(names_file)
    assert len(names) == 59 and names[0] == "null"
    splits, _ = prepare_ccp.find_splits(tree)
    assert [len(files.ids) for files in splits.values()] == [320, 80]
    task = pair_files(splits["train"])[0]
    convert = partial(prepare_ccp.read_groups, table=prepare_ccp.group_table(names))
    result = check_pair(task, PairRules(16, convert=convert))
    assert result.record is not None and (result.record.height, result.record.width) == (832, 550)
    assert result.pixel_counts[0] > 0.4 * 832 * 550
    assert sum(count > 0 for count in result.pixel_counts) > 5
