from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from data_helpers import patchwork
from parsing_fakes import load_script
from permissions import locked_folder
from PIL import Image

from schnet.data.label_maps import write_label_png
from schnet.data.specs import SPECS
from schnet.errors import InputError
from schnet.evaluation.folders import CountSettings, FolderPair, count_pairs, match_folders
from schnet.evaluation.parsing_evaluation import ParsingEvaluator
from schnet.evaluation.predictions import PredictionFiles

LIP = SPECS["lip"]
IMAGES = 20  # more than a process takes at once


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """The script, imported."""
    return load_script("tools/evaluate_folder.py")


def _truth(index: int) -> np.ndarray:
    labels = patchwork((40 + index, 30), seed=index)
    labels[:, :3] = 255
    return labels


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions and label maps of LIP, right in most places."""
    predictions, truths = tmp_path / "predictions", tmp_path / "truths"
    for index in range(IMAGES):
        truth = _truth(index)
        write_label_png(truths / f"a.{index}.png", truth, LIP.palette)
        guess = np.roll(np.where(truth == 255, 0, truth), 2, axis=1).astype(np.uint8)
        write_label_png(predictions / f"a.{index}.png", guess, LIP.palette)
    return predictions, truths


def _run(tool: ModuleType, folders: tuple[Path, Path], *options: object) -> None:
    opts = ["--dataset", "lip", "--jobs", "1", *options]
    tool.main([*map(str, folders), *map(str, opts)])


def _content(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return content


def _scores(folder: Path) -> list[tuple[str, ...]]:
    """Name and scores of each image; the photos' paths are not known to the tool."""
    lines = (folder / "per_image.csv").read_text().splitlines()
    return [(name, *scores) for name, _, *scores in (line.split(",") for line in lines)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_same_number_as_the_evaluator_to_the_digit(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], jobs: int
) -> None:
    truths, entries = tmp_path / "truths", []
    for index in range(IMAGES):
        path = truths / "deep" / f"photo.{index}.PNG"
        write_label_png(path, _truth(index), LIP.palette)
        name = f"photo.{index}"
        entries.append(
            {"file_name": f"{name}.jpeg", "image_id": name, "sem_seg_file_name": str(path)}
        )
    run = tmp_path / "run"
    evaluator = ParsingEvaluator(
        "lip_val",
        20,
        LIP.classes,
        output_dir=run,
        boundary_tolerance=1,
        predictions=PredictionFiles(run, entries, LIP.palette),
    )
    rng = np.random.default_rng(0)
    for index, entry in enumerate(entries):
        truth = np.where(_truth(index) == 255, 7, _truth(index)).astype(np.uint8)
        labels = np.where(rng.random(truth.shape) < 0.2, rng.integers(0, 20, truth.shape), truth)
        evaluator._predictions.write(entry["image_id"], labels.astype(np.uint8))
        evaluator.add_labels(entry, labels.astype(np.uint8))
    evaluator.evaluate()
    opts = ("--output", tmp_path / "out", "--boundary-tolerance", 1, "--jobs", jobs)
    _run(tool, (run / "predictions", truths), *opts)
    expected, found = _content(run), _content(tmp_path / "out")
    for key in ("sem_seg", "confusion_matrix", "boundary", "images", "classes", "rules"):
        assert found[key] == expected[key], key
    assert 0 < found["sem_seg"]["mIoU"] < 100
    assert found["protocol"].startswith(f"label maps of {run / 'predictions'} as they are")
    table = (tmp_path / "out" / "evaluation.txt").read_text()
    assert table in capsys.readouterr().out
    assert (tmp_path / "out" / "confusion_matrix.png").is_file()
    assert _scores(tmp_path / "out") == _scores(run)


def test_missing_predictions_are_named_and_refused_or_not_counted(
    tool: ModuleType, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (folders[0] / "a.3.png").unlink()
    (folders[0] / "a.5.png").rename(folders[0] / "b.png")
    with pytest.raises(InputError, match=r"2 of the 20 label maps .*a\.3\.png.*a\.5\.png"):
        _run(tool, folders)
    assert f"no label map for 1 predictions, not counted: {folders[0] / 'b.png'}" in (
        capsys.readouterr().out
    )
    _run(tool, folders, "--allow-missing")
    out = capsys.readouterr().out
    assert "lip, 18 images, protocol:" in out
    assert "2 label maps without a prediction are not counted" in out


def test_size_mismatch_names_both_files(tool: ModuleType, folders: tuple[Path, Path]) -> None:
    write_label_png(folders[0] / "a.4.png", np.zeros((4, 6), np.uint8), LIP.palette)
    with pytest.raises(
        InputError, match=r"predictions/a\.4\.png is 6x4 .*truths/a\.4\.png is 30x44"
    ):
        _run(tool, folders)


@pytest.mark.parametrize("value", [20, 255])
def test_prediction_out_of_range_is_refused_in_any_process(
    folders: tuple[Path, Path], value: int
) -> None:
    wrong = np.full((44, 30), value, np.uint8)
    write_label_png(folders[0] / "a.4.png", wrong, LIP.palette)
    for jobs in (1, 2):
        with pytest.raises(
            InputError, match=rf"predictions/a\.4\.png holds the value {value}, but"
        ):
            count_pairs(match_folders(*folders).pairs, CountSettings(20), jobs=jobs)


def test_true_label_out_of_range_is_refused(tool: ModuleType, folders: tuple[Path, Path]) -> None:
    write_label_png(folders[1] / "a.4.png", np.full((44, 30), 20, np.uint8), LIP.palette)
    with pytest.raises(InputError, match=r"truths/a\.4\.png holds the value 20"):
        _run(tool, folders)


def test_nothing_labelled_is_refused(tool: ModuleType, folders: tuple[Path, Path]) -> None:
    for index in range(IMAGES):
        nothing = np.full_like(_truth(index), 255)
        write_label_png(folders[1] / f"a.{index}.png", nothing, LIP.palette)
    with pytest.raises(InputError, match="no pixel of the label maps .* is labelled"):
        _run(tool, folders)


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((1, 1), np.uint8)).save(path, format="PNG")


def test_sub_folders_matter_only_where_names_repeat(tmp_path: Path) -> None:
    _touch(tmp_path / "p", "x.png", "y.png", ".hidden.png")
    _touch(tmp_path / "t", "val/x.png", "val/y.PNG")
    match = match_folders(tmp_path / "p", tmp_path / "t")
    expected = [("x.png", "val/x.png"), ("y.png", "val/y.PNG")]
    assert list(match.pairs) == [
        FolderPair(tmp_path / "p" / p, tmp_path / "t" / t) for p, t in expected
    ]
    assert not match.missing and not match.extra
    # Now `x` is there twice: only equal paths are one image.
    _touch(tmp_path / "t", "other/x.png")
    _touch(tmp_path / "p", "other/x.png")
    match = match_folders(tmp_path / "p", tmp_path / "t")
    assert [pair.prediction for pair in match.pairs] == [tmp_path / "p" / "other" / "x.png"]
    assert match.missing == tuple(tmp_path / "t" / "val" / n for n in ("x.png", "y.PNG"))
    assert match.extra == (tmp_path / "p" / "x.png", tmp_path / "p" / "y.png")


def test_folders_that_cannot_be_matched_are_refused(tmp_path: Path) -> None:
    _touch(tmp_path / "p", "x.png")
    _touch(tmp_path / "t", "y.png")
    (tmp_path / "empty").mkdir()
    for other, message in (
        ("t", r"no PNG of .*, such as x\.png and y\.png"),
        ("empty", "holds no PNG"),
        ("none", "there is no folder"),
    ):
        with pytest.raises(InputError, match=message):
            match_folders(tmp_path / "p", tmp_path / other)
    shutil.copy(tmp_path / "t" / "y.png", tmp_path / "t" / "y.PNG")
    with pytest.raises(InputError, match=r"y\.PNG and .*y\.png have one name"):
        match_folders(tmp_path / "p", tmp_path / "t")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--jobs", 0), "--jobs is 0"),
        (("--boundary-tolerance", -1), "--boundary-tolerance is -1"),
        (("--output", "{}/a.0.png"), "is a file"),
        (("--output", "{}/report"), "lies in"),
        (("--output", "{}"), "lies in"),
        (("--output", "{}/../notes"), r"notes/evaluation\.txt was not written by"),
    ],
)
def test_impossible_arguments_are_refused(
    tool: ModuleType, folders: tuple[Path, Path], options: tuple[str, object], message: str
) -> None:
    notes = folders[0].parent / "notes"
    notes.mkdir()
    (notes / "evaluation.txt").write_text("mine")
    key, value = options
    with pytest.raises(InputError, match=message):
        _run(tool, folders, key, str(value).format(folders[0]))
    assert (notes / "evaluation.txt").read_text() == "mine"


def test_own_labels_by_their_classes_file(
    tool: ModuleType, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    classes = tmp_path / "classes.yaml"
    classes.write_text("names: [" + ", ".join(f"part {n}" for n in range(20)) + "]\n")
    own = ["--jobs", "1", "--classes", str(classes), "--output", str(tmp_path / "own")]
    tool.main([*map(str, folders), *own])
    _run(tool, folders, "--output", tmp_path / "lip")
    by_folder = ["--jobs", "1", "--classes", str(tmp_path), "--output", str(tmp_path / "folder")]
    tool.main([*map(str, folders), *by_folder])
    mine, lip = _content(tmp_path / "own"), _content(tmp_path / "lip")
    assert _content(tmp_path / "folder")["sem_seg"] == mine["sem_seg"]
    assert mine["classes"][3] == "part 3"
    assert mine["sem_seg"]["mIoU"] == lip["sem_seg"]["mIoU"]
    with pytest.raises(SystemExit):
        _run(tool, folders, "--classes", classes)


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with locked_folder("a.png") as folder, pytest.raises(InputError, match="locked cannot be read"):
        match_folders(folder, tmp_path)
