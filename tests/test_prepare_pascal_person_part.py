from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from data_helpers import save_image
from PIL import Image
from tiny_ppp import (
    NOBODY,
    REDISTRIBUTED,
    SIZE,
    TRAIN,
    VAL,
    cells,
    check_output,
    make_annotations,
    make_download,
    make_pngs,
    make_voc,
    save_photo,
    truth,
    write_annotation,
    write_lists,
    zip_folder,
)

from schnet.data.catalog import class_frequencies, load_registered, register_datasets
from schnet.data.index import read_index
from schnet.data.label_maps import write_label_png
from schnet.data.labels import PPP_LABELS
from schnet.data.preparation.validation import published_tasks
from schnet.data.specs import SPECS
from schnet.errors import InputError

SCRIPT = REPOSITORY / "datasets" / "prepare_pascal_person_part.py"
OURS = range(7)
Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The script in this process; its summary."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    script = __import__("prepare_pascal_person_part")

    def call(*arguments: object) -> str:
        script.main(["--jobs", "1", "--max-damaged", "0.6", *map(str, arguments)])
        return capsys.readouterr().out

    return call


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in files
    }


def test_official_downloads(run: Run, tmp_path: Path) -> None:
    source, output = make_download(tmp_path / "source"), tmp_path / "root" / "ppp"
    before = snapshot(source)
    summary = run("--source", source, "--output", output)
    assert snapshot(source) == before
    check_output(output)
    assert cells(summary, "images") == ["10", "7"]
    assert cells(summary, "pairs to use") == ["8", "6"]
    assert cells(summary, "official number of images") == ["1,716", "1,817"]
    assert cells(summary, "images without a part") == ["2", "1"]
    assert "split: train.txt and val.txt in " in summary and "left out" not in summary
    for name in [*NOBODY["train"], *NOBODY["val"]]:
        assert not (output / "labels" / f"{name}.png").exists()
    with Image.open(output / "labels" / f"{TRAIN[0]}.png") as image:
        assert image.mode == "P" and tuple(image.getpalette()[3:6]) == PPP_LABELS["Head"]
    assert read_index(output / "train.json").image_root.endswith("VOC2010/JPEGImages")


def test_prepared_set_registers(run: Run, tmp_path: Path) -> None:
    run("--source", make_download(tmp_path / "source"), "--output", tmp_path / "root" / "ppp")
    register_datasets(str(tmp_path / "root"))
    entries = load_registered(["ppp_val"])
    assert [entry["image_id"] for entry in entries] == VAL
    assert all(os.path.isfile(entry["file_name"]) for entry in entries)
    assert sum(class_frequencies("ppp_train")) == pytest.approx(1)


def test_no_index_names_the_script(tmp_path: Path) -> None:
    # Others' PNGs in another order may lie there: folders alone are never read.
    make_pngs(tmp_path / "ppp" / "labels", REDISTRIBUTED, TRAIN[:1])
    save_photo(tmp_path / "ppp" / "JPEGImages" / f"{TRAIN[0]}.jpg")
    write_lists(tmp_path / "ppp")
    register_datasets(str(tmp_path))
    with pytest.raises(InputError, match=r"no index .*ppp.train\.json: run .*pascal_person_part"):
        load_registered(["ppp_train"])
    with pytest.raises(InputError, match=r"no index in .*ppp: run datasets/prepare_pascal_"):
        published_tasks(SPECS["ppp"], tmp_path)


def test_flattened_with_published_lists(run: Run, tmp_path: Path) -> None:
    source, output = tmp_path / "source", tmp_path / "out"
    make_annotations(source)
    (make_voc(tmp_path) / "JPEGImages").rename(source / "JPEGImages")
    write_lists(source / "list", TRAIN[::-1], [f"JPEGImages/{VAL[3]}.jpg", NOBODY["val"][0]])
    summary = run("--source", source, "--output", output)
    check_output(output, TRAIN[::-1], [VAL[3]])
    assert "split: train_id.txt and val_id.txt in " in summary
    assert cells(summary, "images without a part") == ["0", "1"]


def test_zip_files(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "out"
    make_download(tmp_path / "source")
    voc = zip_folder(tmp_path / "source" / "VOCdevkit", tmp_path / "VOCtrainval.zip")
    parts = zip_folder(tmp_path / "source" / "trainval", tmp_path / "trainval.zip")
    run("--source", voc, parts, "--output", output)
    check_output(output)
    assert read_index(output / "train.json").image_root == str((output / "images").resolve())


def plant_traps(source: Path) -> dict[str, str]:
    """Spoil pairs of the validation split; what the summary must say of each."""
    photos = source / "VOCdevkit" / "VOC2010" / "JPEGImages"
    annotations = source / "trainval" / "Annotations_Part"
    (photos / f"{VAL[0]}.jpg").unlink()
    (annotations / f"{VAL[1]}.mat").write_bytes(b"no MATLAB file")
    write_annotation(annotations, VAL[2], truth(VAL[2])[:-1])
    photo = photos / f"{VAL[3]}.jpg"
    photo.write_bytes(photo.read_bytes()[:-40])
    wing = (annotations / f"{VAL[4]}.mat").read_bytes()
    (annotations / f"{VAL[4]}.mat").write_bytes(wing[: len(wing) // 2])
    # These are sound: a grey and a CMYK photo, one that fits after its EXIF rotation.
    save_photo(photos / f"{TRAIN[0]}.jpg", channels=1)
    Image.new("CMYK", SIZE[::-1], (9, 80, 200, 0)).save(photos / f"{TRAIN[1]}.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", SIZE).save(photos / f"{TRAIN[2]}.jpg", exif=exif)
    # A VOC2012 beside VOC2010, whose photos are others.
    save_photo(source / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{TRAIN[3]}.jpg", (5, 5))
    return {
        VAL[0]: f"the image {VAL[0]} is missing",
        VAL[1]: "cannot be read as MATLAB data",
        VAL[2]: "is 110x125 pixels (width x height) but its label map",
        VAL[3]: "cannot be read",
        VAL[4]: "cannot be read as MATLAB data",
    }


def test_traps(run: Run, tmp_path: Path) -> None:
    source, output = make_download(tmp_path / "source"), tmp_path / "out"
    expected = plant_traps(source)
    summary = run("--source", source, "--output", output)
    check_output(output, TRAIN, [VAL[5]])
    left_out = [line for line in summary.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == len(expected)
    for line, (name, problem) in zip(left_out, expected.items(), strict=True):
        assert name in line and problem in line
    assert cells(summary, "missing partners") == ["0", "1"]
    assert cells(summary, "unreadable files") == ["0", "3"]
    assert cells(summary, "size mismatches") == ["0", "1"]
    assert cells(summary, "photos turned by their EXIF") == ["1", "0"]
    assert cells(summary, "photos of mode CMYK") == ["1", "0"]
    with pytest.raises(InputError, match=r"5 of 17 pairs cannot be used, more than 20%"):
        run("--source", source, "--output", tmp_path / "other", "--max-damaged", 0.2)


@pytest.mark.parametrize("order", [OURS, REDISTRIBUTED], ids=["ours", "redistributed"])
@pytest.mark.parametrize("colors", [True, False])
def test_pngs_of_others(run: Run, tmp_path: Path, order: list[int], colors: bool) -> None:
    source, output = tmp_path / "source", tmp_path / "out"
    make_voc(source)
    pngs = make_pngs(tmp_path / "SegmentationPart", order, colors=colors)
    summary = run("--source", source, "--output", output, "--labels", pngs)
    check_output(output)
    name = "ours" if order is OURS else "redistributed"
    assert f"label order: '{name}', detected: of statements of anatomy over 14 label" in summary
    # VOC's lists name images without people, which have no PNG and are not missed.
    assert cells(summary, "images") == ["8", "6"]


def test_pngs_traps(run: Run, tmp_path: Path) -> None:
    output, pngs = tmp_path / "out", make_pngs(tmp_path / "others" / "gt", REDISTRIBUTED)
    make_voc(tmp_path / "source")
    spare = [*NOBODY["train"], *NOBODY["val"]]
    write_lists(tmp_path / "others" / "list", [*TRAIN, spare[0]], [*VAL, spare[1]])
    numbers = np.array(REDISTRIBUTED, np.uint8)[truth(TRAIN[0])]
    save_image(pngs / f"{TRAIN[0]}.png", np.stack([numbers, numbers * 9, numbers], -1))
    bordered = np.array(REDISTRIBUTED, np.uint8)[truth(TRAIN[1])]
    bordered[:3] = 7
    write_label_png(pngs / f"{TRAIN[1]}.png", bordered, [])
    (pngs / f"{TRAIN[2]}.png").write_bytes(b"no image")
    blank = np.zeros(SIZE, np.uint8)
    blank[:2] = 255
    write_label_png(pngs / f"{spare[0]}.png", blank, [])
    write_label_png(pngs / f"{spare[2]}.png", truth(VAL[0]), [])
    summary = run("--source", tmp_path / "source", "--output", output, "--labels", pngs.parent)
    check_output(output, [TRAIN[0], *TRAIN[3:]], VAL)
    assert cells(summary, "impossible labels") == ["1", "0"]
    assert cells(summary, "unreadable files") == ["1", "0"]
    assert cells(summary, "images without a part") == ["1", "0"]
    # A published list is taken at its word: what it names and is not there is missed.
    assert cells(summary, "missing partners") == ["0", "1"]
    assert f"{TRAIN[1]}.png holds the value 7" in summary
    assert "label maps outside the split: 1, not used" in summary


def test_pngs_in_folders_of_splits(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "PASCAL-Person-Part"
    for folder, ids in (("Training", TRAIN), ("Testing", VAL)):
        for name in ids:
            save_photo(source / folder / "Images" / f"{name}.jpg")
        make_pngs(source / folder / "Category_ids", REDISTRIBUTED, ids)
        make_pngs(source / folder / "Human_ids", [0, 1, 1, 1, 1, 1, 1], ids)
    archive = zip_folder(source, tmp_path / "PASCAL-Person-Part.zip")
    summary = run("--source", archive, "--output", tmp_path / "out", "--labels", archive)
    check_output(tmp_path / "out")
    assert "label order: 'redistributed', detected" in summary


def test_few_maps_are_refused_and_the_flag_settles_it(run: Run, tmp_path: Path) -> None:
    source, output = tmp_path / "source", tmp_path / "out"
    make_voc(source)
    pngs = make_pngs(tmp_path / "gt", REDISTRIBUTED, [TRAIN[0], VAL[0]])
    arguments = ("--source", source, "--output", output, "--labels", pngs)
    with pytest.raises(InputError, match="gt are too few to tell .* --label-order redistributed"):
        run(*arguments)
    assert not output.exists()
    summary = run(*arguments, "--label-order", "redistributed")
    check_output(output, TRAIN[:1], VAL[:1])
    assert "'redistributed', as --label-order says; the label maps do not tell it" in summary


def test_annotations_settle_the_order_of_few_maps(run: Run, tmp_path: Path) -> None:
    source = make_download(tmp_path / "source")
    pngs = make_pngs(tmp_path / "gt", REDISTRIBUTED, [TRAIN[0], VAL[0]])
    # One damaged annotation leaves the other to compare with.
    (source / "trainval" / "Annotations_Part" / f"{VAL[0]}.mat").write_bytes(b"damaged")
    summary = run("--source", source, "--output", tmp_path / "out", "--labels", pngs)
    check_output(tmp_path / "out", TRAIN[:1], VAL[:1])
    assert "'redistributed', detected: of " in summary
    assert "pixels that Pascal-Part annotates too" in summary
    assert "100.0% hold for 'redistributed'" in summary


def test_other_order_than_the_flag_is_told(run: Run, tmp_path: Path) -> None:
    source, output = tmp_path / "source", tmp_path / "out"
    make_voc(source)
    pngs = make_pngs(tmp_path / "gt", REDISTRIBUTED)
    arguments = ("--source", source, "--output", output, "--labels", pngs, "--label-order")
    assert "BUT the label maps say 'redistributed', detected" in run(*arguments, "ours")
    assert "as --label-order and the label maps say" in run(*arguments, "redistributed")
    # The second run has done all maps again.
    check_output(output)


def test_second_run_works_on_what_is_new(run: Run, tmp_path: Path) -> None:
    source, output = make_download(tmp_path / "source"), tmp_path / "out"
    run("--source", source, "--output", output)
    before = snapshot(output / "labels")
    (output / "labels" / f"{TRAIN[2]}.png").unlink()
    write_annotation(source / "trainval" / "Annotations_Part", VAL[1], truth(VAL[1])[:, ::-1])
    summary = run("--source", source, "--output", output)
    after = snapshot(output / "labels")
    assert {n for n in after if after[n] != before[n]} == {f"{TRAIN[2]}.png", f"{VAL[1]}.png"}
    assert cells(summary, "pairs checked") == ["1", "1"]
    assert cells(summary, "pairs unchanged since the last run") == ["7", "5"]
    assert cells(summary, "images without a part") == ["2", "1"]


def remove_lists(source: Path) -> None:
    for path in (source / "VOCdevkit" / "VOC2010" / "ImageSets" / "Main").glob("*.txt"):
        path.unlink()


def test_missing_things_are_told(run: Run, tmp_path: Path) -> None:
    source, output = make_download(tmp_path / "source"), tmp_path / "out"
    voc = source / "VOCdevkit"
    with pytest.raises(InputError, match="no folder Annotations_Part/ .* give --labels"):
        run("--source", voc, "--output", output)
    with pytest.raises(InputError, match="no folder JPEGImages/ with VOC2010's photos"):
        run("--source", source / "trainval", "--output", output)
    with pytest.raises(InputError, match="gone does not exist"):
        run("--source", source, "--output", output, "--labels", tmp_path / "gone")
    with pytest.raises(InputError, match="--labels .*trainval holds no PNG"):
        run("--source", source, "--output", output, "--labels", source / "trainval")
    (tmp_path / "trainval.tar.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"trainval\.tar\.gz is a tar file.*.tar -xf"):
        run("--source", voc, tmp_path / "trainval.tar.gz", "--output", output)
    remove_lists(source)
    with pytest.raises(InputError, match=r"neither train_id\.txt and val_id\.txt nor VOC's"):
        run("--source", source, "--output", output)
    (source / "train_id.txt").write_text(f"{TRAIN[0]}\n")
    with pytest.raises(InputError, match="has the id list of train alone"):
        run("--source", source, "--output", output)
    (source / "val_id.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"val_id\.txt is no UTF-8 text"):
        run("--source", source, "--output", output)
    assert not output.exists()


def test_labels_are_never_changed_nor_mixed_up(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_voc(source)
    pngs = make_pngs(tmp_path / "others" / "one", OURS, TRAIN[:1])
    for output in (pngs, pngs / "ppp"):
        with pytest.raises(InputError, match="lies in the source .*one, which is never changed"):
            run("--source", source, "--output", output, "--labels", pngs)
    make_pngs(tmp_path / "others" / "two", REDISTRIBUTED, TRAIN[:1])
    with pytest.raises(InputError, match=r"both .*one.* and .*two.* may be the label map of 2008"):
        run("--source", source, "--output", tmp_path / "out", "--labels", pngs.parent)


def test_command_line(tmp_path: Path) -> None:
    source, output = make_download(tmp_path / "source"), tmp_path / "out"
    command = [sys.executable, str(SCRIPT), "--output", str(output), "--source"]
    done = subprocess.run([*command, str(source), "--jobs", "2"], capture_output=True, text=True)
    assert done.returncode == 0 and "pairs to use" in done.stdout, done.stderr
    assert "10/10" in done.stderr
    check_output(output)
    failed = subprocess.run([*command, str(tmp_path / "no")], capture_output=True, text=True)
    assert failed.returncode == 2 and "no does not exist" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_order_without_pngs_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("--source", "somewhere", "--label-order", "ours")
    assert "--label-order is for the PNGs of --labels" in capsys.readouterr().err
