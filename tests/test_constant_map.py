from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from parsing_fakes import load_script, write_split
from PIL import Image

from schnet.data.catalog import load_registered, register_datasets
from schnet.errors import InputError


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """The script, imported."""
    return load_script("tools/constant_map.py")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty root of data sets that the script will register."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path


def _halves(height: int, width: int, top: int, bottom: int) -> np.ndarray:
    labels = np.full((height, width), top, np.uint8)
    labels[height // 2 :] = bottom
    return labels


def test_majority_at_each_relative_position(root: Path, tool: ModuleType) -> None:
    # Three sizes; the upper half is 1 in two of three, the lower half 2 in two of three.
    train = [_halves(4, 4, 1, 2), _halves(10, 6, 1, 5), _halves(8, 20, 7, 2)]
    write_split(root, "dolls", "train", train)
    register_datasets()
    constant = tool.most_frequent_labels(load_registered(["dolls_train"]), 20, grid=(6, 5))
    assert np.array_equal(constant, _halves(6, 5, 1, 2))


def test_ignored_pixels_do_not_vote_and_smallest_label_wins_ties(
    root: Path, tool: ModuleType
) -> None:
    train = [_halves(4, 4, 255, 255), _halves(4, 4, 255, 255), _halves(4, 4, 6, 255)]
    write_split(root, "dolls", "train", [*train, _halves(4, 4, 4, 255)])
    register_datasets()
    constant = tool.most_frequent_labels(load_registered(["dolls_train"]), 20, grid=(4, 4))
    assert np.array_equal(constant, _halves(4, 4, 4, 0))


def test_command_line_evaluates_on_val_at_original_resolution(
    root: Path, tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    write_split(root, "dolls", "train", [_halves(4, 4, 1, 2)])
    val = [_halves(40, 30, 1, 2), _halves(10, 6, 1, 5)]
    write_split(root, "dolls", "val", val)
    tool.main(["--dataset", "dolls", "--png", str(root / "map.png")])
    # Class 1 is perfect, class 2 also covers class 5's 30 pixels, class 5 is never predicted.
    miou, accuracy = 100 * (1 + 600 / 630 + 0) / 3, 100 * (1200 + 30) / 1260
    expected = f"mIoU {miou:.2f}, pixel accuracy {accuracy:.2f} %"
    assert expected in capsys.readouterr().out
    with Image.open(root / "map.png") as drawn:
        assert drawn.size == (300, 400)


def test_missing_data_set_is_refused(root: Path, tool: ModuleType) -> None:
    with pytest.raises(InputError, match="dolls"):
        tool.main(["--dataset", "dolls"])


def test_image_size_comes_from_the_file_where_no_index_has_it(root: Path, tool: ModuleType) -> None:
    write_split(root, "dolls", "train", [_halves(4, 6, 1, 2)])
    register_datasets()
    entry = load_registered(["dolls_train"])[0]
    bare = {"file_name": entry["file_name"], "sem_seg_file_name": entry["sem_seg_file_name"]}
    evaluator = tool.ParsingEvaluator("dolls_train", 20, [str(i) for i in range(20)])
    results = tool.evaluate_map(_halves(2, 2, 1, 2), [bare], evaluator)
    assert results["mIoU"] == 100
