"""The scores of single images: what they are, their table, and one table for any division."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from evaluation_helpers import logits_of, random_split, toy_evaluator, without_labels, write_pair

from schnet.errors import InputError
from schnet.evaluation.counts import ParsingCounts
from schnet.evaluation.per_image import (
    ImageScore,
    read_scores,
    score_image,
    sort_scores,
    write_scores,
)
from schnet.evaluation.predictions import PredictionFiles
from schnet.evaluation.report import refuse_foreign_files


def _table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "per_image.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _score(truth: list[int], prediction: list[int]) -> ImageScore:
    counts = ParsingCounts(4).update(np.array([truth], np.uint8), np.array([prediction], np.uint8))
    return score_image("a", "photos/a.jpg", counts)


@pytest.mark.parametrize(
    ("truth", "prediction", "mean_iou", "accuracy"),
    [
        ([0, 0, 1, 1], [0, 0, 1, 1], 100, 100),
        ([0, 0, 1, 1], [0, 1, 1, 1], 100 * (1 / 2 + 2 / 3) / 2, 75),
        # A class that is only predicted counts 0; one in neither is left out.
        ([0, 0, 0, 0], [0, 0, 2, 2], 25, 50),
        # What is predicted where no label is does not count.
        ([0, 255, 255, 255], [0, 1, 2, 3], 100, 100),
        ([255, 255, 255, 255], [0, 1, 2, 3], math.nan, math.nan),
    ],
)
def test_score_of_an_image(
    truth: list[int], prediction: list[int], mean_iou: float, accuracy: float
) -> None:
    score = _score(truth, prediction)
    assert score.mIoU == pytest.approx(mean_iou, nan_ok=True)
    assert score.pACC == pytest.approx(accuracy, nan_ok=True)


def test_counts_of_one_image_are_its_own() -> None:
    counts = ParsingCounts(2, boundary_tolerance=None)
    first = counts.update(np.array([[0, 1]], np.uint8), np.array([[0, 1]], np.uint8))
    second = counts.update(np.array([[1, 1]], np.uint8), np.array([[0, 0]], np.uint8))
    np.testing.assert_array_equal(first, [[1, 0], [0, 1]])
    np.testing.assert_array_equal(second, [[0, 0], [2, 0]])
    np.testing.assert_array_equal(counts.confusion.counts, first + second)


def test_table_has_the_columns_and_empty_cells(tmp_path: Path) -> None:
    scores = [
        ImageScore("b", "photos/b, c.jpg", 100 / 3, 50.0),
        ImageScore("a", "photos/a.jpg", math.nan, math.nan),
    ]
    write_scores(tmp_path, sort_scores(scores))
    text = (tmp_path / "per_image.csv").read_text()
    assert text.splitlines() == [
        "image_id,file_name,mIoU,pACC",
        "a,photos/a.jpg,,",
        'b,"photos/b, c.jpg",33.3333,50.0000',
    ]


def test_table_reads_back_and_another_is_told(tmp_path: Path) -> None:
    path = tmp_path / "per_image.csv"
    write_scores(tmp_path, [ImageScore("b", "b, c.jpg", 33.25, 50.0)])
    assert read_scores(path) == [ImageScore("b", "b, c.jpg", 33.25, 50.0)]
    write_scores(tmp_path, [ImageScore("a", "a.jpg", math.nan, math.nan)])
    (empty,) = read_scores(path)
    assert empty[:2] == ("a", "a.jpg") and math.isnan(empty.mIoU) and math.isnan(empty.pACC)
    path.write_text("image_id,mIoU\na,1\n")
    with pytest.raises(ValueError, match="columns"):
        read_scores(path)


def test_evaluator_writes_the_table_of_its_split(tmp_path: Path) -> None:
    split = random_split(tmp_path / "labels", 4)
    evaluator = toy_evaluator(tmp_path / "out")
    evaluator.process(*map(list, zip(*reversed(split), strict=True)))
    evaluator.evaluate()
    rows = _table(tmp_path / "out")
    assert [row["file_name"] for row in rows] == [f"{index}.jpg" for index in range(4)]
    assert [row["image_id"] for row in rows] == list("0123")
    single = toy_evaluator()
    single.process([split[2][0]], [split[2][1]])
    results = single.evaluate()
    assert results is not None
    for metric in ("mIoU", "pACC"):
        assert float(rows[2][metric]) == pytest.approx(results["sem_seg"][metric], abs=1e-4)


def test_second_pass_starts_anew(tmp_path: Path) -> None:
    split = random_split(tmp_path / "labels", 3)
    evaluator = toy_evaluator(tmp_path / "out")
    for entry, output in split:
        evaluator.process([entry], [output])
    evaluator.evaluate()
    evaluator.reset()
    evaluator.process([split[1][0]], [split[1][1]])
    evaluator.evaluate()
    assert [row["image_id"] for row in _table(tmp_path / "out")] == ["1"]


def test_image_without_a_labelled_pixel_has_a_row(tmp_path: Path) -> None:
    evaluator = toy_evaluator(tmp_path / "out")
    for index, value in enumerate((255, 1)):
        entry = write_pair(tmp_path / "labels", index, np.full((2, 2), value, np.uint8))
        evaluator.process([entry], [logits_of(np.zeros((2, 2)))])
    evaluator.evaluate()
    assert [row["mIoU"] for row in _table(tmp_path / "out")] == ["", "0.0000"]


def test_split_without_labels_has_no_table(tmp_path: Path) -> None:
    bare = without_labels(random_split(tmp_path / "labels", 2))
    files = PredictionFiles(tmp_path / "out", [entry for entry, _ in bare], [(0, 0, 0)] * 3)
    evaluator = toy_evaluator(tmp_path / "out", predictions=files)
    for entry, output in bare:
        evaluator.process([entry], [output])
    evaluator.evaluate()
    assert not (tmp_path / "out" / "per_image.csv").exists()


def test_foreign_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "per_image.csv").write_text("mine\n")
    with pytest.raises(InputError, match=r"per_image\.csv was not written by an evaluation"):
        refuse_foreign_files(tmp_path)
