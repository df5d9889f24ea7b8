"""datasets/validate.py: the checks on published sets and on one's own, and the contact sheet."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import REPOSITORY, SHARED_DATA
from data_helpers import patchwork, save_image
from official_trees import plant_damage, plant_traps, row, snapshot, write_pair
from parsing_fakes import load_script, write_split
from PIL import Image

from schnet.data.custom import CustomPaths, load_custom, open_custom
from schnet.data.index import DatasetIndex, IndexRecord, read_index, write_index
from schnet.data.labels import LIP_CLASSES, LIP_PALETTE
from schnet.data.specs import SPECS
from schnet.errors import InputError
from schnet.visualization import HATCH_DARK, HATCH_LIGHT

SCRIPT = REPOSITORY / "datasets" / "validate.py"
CIHP = SHARED_DATA / "cihp"


@pytest.fixture(scope="module")
def validate() -> ModuleType:
    return load_script("datasets/validate.py")


def make_lip(root: Path) -> Path:
    """A flattened LIP without an index: seven sound pairs to train, one to validate."""
    for split in ("train", "val"):
        images = root / "lip" / f"{split}_images"
        labels = root / "lip" / f"{split}_segmentations"
        write_pair(images, labels, "v", seed=1)
        if split == "train":
            (images / "v.jpg").unlink()
            (labels / "v.png").unlink()
            plant_traps(images, labels)
    return root / "lip"


def make_own(folder: Path, count: int = 4) -> Path:
    folder.mkdir(parents=True)
    (folder / "classes.yaml").write_text("names: [background, hair, hat]\n")
    for number in range(count):
        labels = patchwork((24, 16), seed=number, num_classes=3)
        save_image(folder / "images" / f"{number}.png", np.dstack([labels * 90] * 3))
        save_image(folder / "labels" / f"{number}.png", labels)
    return folder


def run(validate: ModuleType, dataset: object, root: Path, *more: str) -> None:
    sheet = str(root / "sheet.png")
    validate.main([str(dataset), "--root", str(root), "--sheet", sheet, "--jobs", "1", *more])


def test_tree_without_an_index(
    validate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(make_lip(tmp_path))
    run(validate, "lip", tmp_path)
    assert snapshot(tmp_path / "lip") == before
    summary = capsys.readouterr().out
    assert row(summary, "pairs to use") == ["7", "1"]
    with Image.open(tmp_path / "sheet.png") as image:
        colors = set(map(tuple, np.asarray(image.convert("RGB")).reshape(-1, 3)))
    # The legend at least has every class's colour.
    assert set(LIP_PALETTE) <= colors


def test_one_split_by_its_index(
    validate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = [np.full((6, 5), number, np.uint8) for number in range(3)]
    write_split(tmp_path, "lip", "val", maps)
    run(validate, "lip_val", tmp_path)
    assert row(capsys.readouterr().out, "images") == ["3"]
    write_split(tmp_path, "lip", "test", maps[:2])
    run(validate, "lip_val", tmp_path)
    assert row(capsys.readouterr().out, "images") == ["3"]
    with pytest.raises(InputError, match="the data set lip in .*lip has no train split"):
        run(validate, "lip_train", tmp_path)
    (tmp_path / "lip" / "val_1.png").unlink()
    with pytest.raises(InputError, match="1 of 3 pairs of lip_val cannot be used"):
        run(validate, "lip_val", tmp_path)
    assert f"val_1.jpg is missing (looked for in {tmp_path}/lip)" in capsys.readouterr().out
    write_index(tmp_path / "lip" / "val.json", DatasetIndex(("a", "b"), ".", ".", (0, 0), ()))
    with pytest.raises(InputError, match=r"val\.json has 2 classes .* but its data set has 20"):
        run(validate, "lip_val", tmp_path)


def test_photos_and_labels_of_an_index_in_folders_of_their_own(
    validate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        write_pair(tmp_path / "photos", tmp_path / "maps", name, seed=1)
    (tmp_path / "photos" / "a.jpg").unlink()
    (tmp_path / "maps" / "b.png").unlink()
    write_pair(tmp_path / "photos", tmp_path / "maps", "c", seed=1)
    records = [IndexRecord(f"{name}.jpg", f"{name}.png", 40, 32) for name in "abc"]
    (tmp_path / "lip").mkdir()
    index = DatasetIndex(LIP_CLASSES, "../photos", "../maps", (0,) * 20, tuple(records))
    write_index(tmp_path / "lip" / "val.json", index)
    with pytest.raises(InputError, match="2 of 3 pairs"):
        run(validate, "lip_val", tmp_path)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out")]
    assert "/photos)" in told[0] and "/maps)" in told[1]


def test_split_without_labels(
    validate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_image(tmp_path / "lip" / "t.jpg", np.full((9, 8, 3), 77, np.uint8))
    index = DatasetIndex(LIP_CLASSES, ".", ".", (0,) * 20, (IndexRecord("t.jpg", "", 9, 8),))
    write_index(tmp_path / "lip" / "test.json", index)
    run(validate, "lip_test", tmp_path)
    summary = capsys.readouterr().out
    assert row(summary, "pairs to use") == ["1"] and row(summary, "label maps") == ["0"]


def test_other_ignore_labels(
    validate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SPECS, "lip", replace(SPECS["lip"], ignore_label=99))
    labels = np.full((40, 30), 99, np.uint8)
    labels[0] = 1
    save_image(tmp_path / "lip" / "a.png", labels)
    save_image(tmp_path / "lip" / "a.jpg", np.full((40, 30, 3), 77, np.uint8))
    index = DatasetIndex(
        LIP_CLASSES, ".", ".", (0,) * 20, (IndexRecord("a.jpg", "a.png", 40, 30),), 99
    )
    write_index(tmp_path / "lip" / "val.json", index)
    run(validate, "lip_val", tmp_path)
    with Image.open(tmp_path / "sheet.png") as image:
        truth = image.crop((16 + 186, 40, 16 + 186 + 180, 280))
        colors = {color for _, color in truth.getcolors(1 << 16)}
    assert colors == {HATCH_DARK, HATCH_LIGHT, LIP_PALETTE[1]}


def test_root_comes_from_the_environment(
    validate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_split(tmp_path / "data", "lip", "val", [np.zeros((6, 5), np.uint8)])
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    validate.main(["lip_val", "--jobs", "1"])
    assert (tmp_path / "output" / "validate" / "lip_val.png").is_file()


def test_damage_is_listed_whole(
    validate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_lip(tmp_path)
    told = plant_damage(folder / "train_images", folder / "train_segmentations")
    with pytest.raises(InputError, match=f"{len(told)} of 14 pairs of lip cannot be used"):
        run(validate, "lip", tmp_path)
    summary = capsys.readouterr().out
    assert all(problem in summary for problem in told.values())
    assert (tmp_path / "sheet.png").is_file()


def test_own_data(validate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_own(tmp_path / "own")
    for given in (folder, folder / "classes.yaml"):
        run(validate, given, tmp_path)
        assert sum(map(int, row(capsys.readouterr().out, "pairs to use"))) == 4
    assert not list(folder.glob("*.json"))
    run(validate, folder, tmp_path, "--write-index", "--name", "hats")
    assert sorted(path.name for path in folder.glob("*.json")) == [
        "hats_train.json",
        "hats_val.json",
    ]


def test_index_replaces_no_other_file(validate: ModuleType, tmp_path: Path) -> None:
    folder = make_own(tmp_path / "own")
    (folder / "custom_train.json").write_text("{}")
    with pytest.raises(InputError, match=r"custom_train\.json would be replaced"):
        run(validate, folder, tmp_path, "--write-index")
    assert (folder / "custom_train.json").read_text() == "{}"


def test_no_index_of_damaged_data(
    validate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_own(tmp_path / "own")
    (folder / "images" / "2.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="1 of 4 pairs"):
        run(validate, folder, tmp_path, "--write-index")
    assert "index: not written" in capsys.readouterr().out
    assert not list(folder.glob("*.json"))


def test_own_index_is_what_training_reads(
    validate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_own(tmp_path / "own")
    labels = patchwork((24, 16), num_classes=3)
    save_image(folder / "images" / "deep" / "er" / "p.1.png", np.dstack([labels] * 3))
    save_image(folder / "labels" / "deep" / "er" / "p.1.png", labels)
    run(validate, folder, tmp_path, "--write-index")
    data = open_custom(CustomPaths(str(folder)))
    entries = [entry for split in ("train", "val") for entry in load_custom(data, split)]
    assert len(entries) == 5 and {(e["height"], e["width"]) for e in entries} == {(24, 16)}
    for split in ("train", "val"):
        index = read_index(data.index_path(split))
        assert (index.image_root, index.label_root) == (f"{folder}/images", f"{folder}/labels")
        run(validate, folder, tmp_path, "--write-index")
        assert read_index(data.index_path(split)) == index
    # However the folder was named, the index says where it is.
    monkeypatch.chdir(tmp_path)
    run(validate, "own", tmp_path, "--write-index")
    assert read_index(data.index_path("train")).image_root == f"{folder}/images"


def test_own_folders_elsewhere(
    validate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, other = make_own(tmp_path / "own"), make_own(tmp_path / "other")
    (folder / "images").rename(tmp_path / "photos")
    (folder / "labels").rename(tmp_path / "maps")
    options = ["--images", f"{tmp_path}/photos", "--labels", f"{tmp_path}/maps"]
    run(validate, folder, tmp_path, *options, "--val-share", "0.9999")
    assert row(capsys.readouterr().out, "pairs to use") == ["4"]
    options += ["--val-images", f"{other}/images", "--val-labels", f"{other}/labels"]
    (other / "labels" / "0.png").unlink()
    with pytest.raises(InputError, match="1 of 8 pairs"):
        run(validate, folder, tmp_path, *options)
    assert f"(looked for in {other}/labels)" in capsys.readouterr().out


def test_one_image_has_no_validation_split(validate: ModuleType, tmp_path: Path) -> None:
    folder = make_own(tmp_path / "own", 1)
    run(validate, folder, tmp_path, "--write-index")
    assert [path.name for path in folder.glob("*.json")] == ["custom_train.json"]


@pytest.mark.parametrize("option", [("--rows", "-1"), ("--val-share", "2"), ("--jobs", "0")])
def test_impossible_options_are_refused(
    validate: ModuleType, tmp_path: Path, option: tuple[str, str]
) -> None:
    with pytest.raises(SystemExit):
        run(validate, "lip", tmp_path, f"{option[0]}={option[1]}")


def test_sheet_has_as_many_rows_as_asked_for(validate: ModuleType, tmp_path: Path) -> None:
    folder = make_own(tmp_path / "own")
    (folder / "classes.yaml").write_text("names: [a, b, c]\n")
    heights = []
    for rows in ("1", "3"):
        run(validate, folder, tmp_path, "--rows", rows)
        with Image.open(tmp_path / "sheet.png") as image:
            heights.append(image.height)
    assert heights[1] - heights[0] == 2 * (240 + 6)


def test_sheet_without_rows_is_not_drawn(validate: ModuleType, tmp_path: Path) -> None:
    run(validate, make_own(tmp_path / "own"), tmp_path, "--rows", "0")
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--name", "../x", r"name is '\.\./x'"),
        ("--val-share", "1", r"validates is 1\.0"),
        ("--sheet", "own", "own is no name of a PNG"),
        ("--sheet", "sheet.jpg", r"sheet\.jpg is no name of a PNG"),
        ("--sheet", "own/images/1.png", r"1\.png is a file of the data set"),
    ],
)
def test_options_that_would_do_harm_are_refused(
    validate: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    value: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = snapshot(make_own(tmp_path / "own"))
    with pytest.raises(InputError, match=message):
        run(validate, "own", tmp_path, "--write-index", option, value)
    assert snapshot(tmp_path / "own") == before and not list(tmp_path.glob("*.json"))


def test_index_of_a_published_set_is_its_scripts(validate: ModuleType, tmp_path: Path) -> None:
    make_lip(tmp_path)
    with pytest.raises(InputError, match="--write-index is for a data set of your own"):
        run(validate, "lip", tmp_path, "--write-index")


def test_unknown_names_are_refused(validate: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'lips' is neither a data set \(lip, .*classes\.yaml"):
        run(validate, "lips", tmp_path)
    with pytest.raises(InputError, match="the data set cihp has no folder"):
        run(validate, "cihp", tmp_path)
    (tmp_path / "atr" / "JPEGImages").mkdir(parents=True)
    (tmp_path / "atr" / "SegmentationClassAug").mkdir(parents=True)
    with pytest.raises(InputError, match="has no folder JPEGImages/"):
        run(validate, "atr", tmp_path)
    write_pair(tmp_path / "atr/JPEGImages", tmp_path / "atr/SegmentationClassAug", "a", 0, 18)
    with pytest.raises(InputError, match="atr in .* has neither an index nor an id list"):
        run(validate, "atr", tmp_path)
    (tmp_path / "atr" / "val_id.txt").write_text("a\n")
    run(validate, "atr_val", tmp_path)
    with pytest.raises(InputError, match="the data set atr in .* has no train split"):
        run(validate, "atr_train", tmp_path)
    (tmp_path / "ppp").mkdir()
    with pytest.raises(InputError, match="the data set ppp has no index in .*prepare_pascal"):
        run(validate, "ppp", tmp_path)


@pytest.mark.skipif(not CIHP.is_dir(), reason=f"the real CIHP samples are not at {CIHP}")
def test_command_line_on_the_real_samples(tmp_path: Path) -> None:
    (tmp_path / "cihp").symlink_to(CIHP)
    command = [sys.executable, str(SCRIPT), "cihp_train", "--root", str(tmp_path)]
    command += ["--sheet", str(tmp_path / "sheet.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert row(done.stdout, "pairs to use") == ["3"]
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 900 and image.height > 700
    failed = subprocess.run([*command[:2], "nothing"], capture_output=True, text=True, check=False)
    assert failed.returncode == 2 and failed.stderr.startswith("error: 'nothing' is neither")
