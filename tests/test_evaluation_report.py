from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
from evaluation_helpers import NAMES
from PIL import Image

from schnet.errors import InputError
from schnet.evaluation.confusion_picture import save_confusion_picture
from schnet.evaluation.counts import ParsingCounts
from schnet.evaluation.report import EvaluationReport, refuse_foreign_files

FILES = ["confusion_matrix.png", "evaluation.json", "evaluation.txt"]


def _report(tolerance: int | None = 2) -> EvaluationReport:
    """Hair is nowhere; one of four hat pixels is taken for background."""
    counts = ParsingCounts(3, boundary_tolerance=tolerance)
    truth = np.array([[0, 0, 0, 0, 1, 1, 1, 1, 255]], np.uint8)
    prediction = np.array([[0, 0, 0, 0, 0, 1, 1, 1, 2]], np.uint8)
    counts.update(truth, prediction)
    return EvaluationReport("toy_val", "by hand", NAMES, counts)


def _rows(text: str, start: str) -> list[str]:
    """The cells of the table row that starts with a word."""
    row = next(line for line in text.splitlines() if line.startswith(f"| {start} "))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_results_by_name() -> None:
    results = _report().results
    assert results["mIoU"] == pytest.approx(100 * (4 / 5 + 3 / 4) / 2)
    assert results["mACC"] == pytest.approx(100 * (1 + 3 / 4) / 2)
    assert results["mPrecision"] == pytest.approx(100 * (4 / 5 + 1) / 2)
    assert results["Precision-background"] == pytest.approx(80)
    assert results["Recall-hat"] == pytest.approx(75)
    assert results["BF-hat"] == results["mBF"] == 100
    assert math.isnan(results["BF-hair"])
    names = ["mIoU", "pACC", "mACC", "fwIoU", "mPrecision", "mBF"]
    per_class = [f"{m}-{c}" for m in ("IoU", "Precision", "Recall", "BF") for c in NAMES]
    assert list(results) == names + per_class
    assert [n for n in names + per_class if "BF" not in n] == list(_report(None).results)


def test_text_holds_protocol_table_means_and_rule() -> None:
    text = _report().text()
    assert text.startswith("toy_val, 1 images, protocol: by hand\n")
    assert _rows(text, "class") == ["class", "IoU", "precision", "recall", "BF", "pixels"]
    assert _rows(text, "hat") == ["hat", "75.00", "100.00", "75.00", "100.00", "50.00"]
    assert _rows(text, "hair") == ["hair", "–", "–", "–", "–", "0.00"]
    means = ["77.50", "87.50", "87.50", "77.50", "90.00", "100.00"]
    assert [cell.strip() for cell in text.splitlines()[-2].strip("|").split("|")] == means
    assert text.count("is left out of the means; one that is only predicted counts 0") == 1
    assert "boundary F-score at 2 pixels" in text
    assert "BF" not in _report(None).text()


def test_written_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "new" / "folder"
    with caplog.at_level(logging.INFO, logger="schnet"):
        _report().write(folder)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert str(folder) in caplog.text
    content = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    assert content["dataset"] == "toy_val"
    assert content["protocol"] == "by hand"
    assert content["images"] == 1
    assert content["classes"] == NAMES
    assert content["sem_seg"]["IoU-hat"] == 75
    assert content["sem_seg"]["IoU-hair"] is None
    assert content["confusion_matrix"]["pixels"] == [[4, 0, 0], [1, 3, 0], [0, 0, 0]]
    assert content["boundary"] == {
        "tolerance_pixels": 2,
        "pixels": {
            "predicted": [1, 1, 0],
            "predicted_found": [1, 1, 0],
            "true": [1, 1, 0],
            "true_found": [1, 1, 0],
        },
    }
    assert "only predicted counts 0" in content["rules"]["absent classes"]
    assert "mean precision" in content["rules"]["mACC"]
    text = (folder / "evaluation.txt").read_text(encoding="utf-8")
    assert text == _report().text() + "\n"


def test_report_without_boundaries_is_written(tmp_path: Path) -> None:
    _report(None).write(tmp_path)
    assert "boundary" not in json.loads((tmp_path / "evaluation.json").read_text())


def test_an_earlier_report_is_replaced_and_a_foreign_file_is_not(tmp_path: Path) -> None:
    refuse_foreign_files(tmp_path / "missing")
    _report().write(tmp_path)
    refuse_foreign_files(tmp_path)
    (tmp_path / "evaluation.json").write_text('{"mine": 1}')
    with pytest.raises(InputError, match=r"evaluation\.json was not written by an evaluation"):
        refuse_foreign_files(tmp_path)
    (tmp_path / "evaluation.json").unlink()
    (tmp_path / "evaluation.txt").unlink()
    with pytest.raises(InputError, match=r"confusion_matrix\.png was not written"):
        refuse_foreign_files(tmp_path)


def _pixels_of(path: Path, color: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns of a picture's pixels of one colour."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return np.argwhere(np.abs(pixels - color).max(axis=-1) <= 2)


def test_picture_shows_the_shares_of_each_row(tmp_path: Path) -> None:
    counts = np.diag(np.arange(8) * 10**9)  # class 0 is not in the truth
    save_confusion_picture(tmp_path / "a.png", [f"class {i}" for i in range(8)], counts, "title")
    full = _pixels_of(tmp_path / "a.png", (8, 48, 107))
    grey = _pixels_of(tmp_path / "a.png", (236, 236, 236))
    # Each other cell of the diagonal is full, however many pixels it stands for; row 0 is grey.
    assert 0.6 < (len(full) / 7) / (len(grey) / 8) < 1.2
    low, high = np.percentile(grey, [5, 95], axis=0)  # but for the edges of some letters
    assert high[1] - low[1] > 5 * (high[0] - low[0])
    assert high[0] < full[:, 0].min()


def test_picture_of_many_classes_stays_of_bounded_size(tmp_path: Path) -> None:
    size = 45
    save_confusion_picture(
        tmp_path / "a.png", [str(i) for i in range(size)], np.eye(size, dtype=np.int64), "title"
    )
    with Image.open(tmp_path / "a.png") as image:
        assert max(image.size) <= 110 * (20 + 3.2) + 1
