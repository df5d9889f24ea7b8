from __future__ import annotations

import json
import logging
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CONFIGS
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from evaluation_helpers import (
    NAMES,
    PALETTE,
    logits_of,
    random_split,
    toy_evaluator,
    without_labels,
    write_pair,
)
from PIL import Image

from schnet.config import load_config
from schnet.errors import InputError
from schnet.evaluation.parsing_evaluation import build_evaluator
from schnet.evaluation.predictions import PredictionFiles
from schnet.evaluation.protocol import PROTOCOLS
from schnet.evaluation.test_time import describe_protocol


def test_hand_computed_percentages_over_two_batches(tmp_path: Path) -> None:
    evaluator = toy_evaluator()
    first = write_pair(tmp_path, 0, np.array([[0, 0, 1, 255]], np.uint8))
    second = write_pair(tmp_path, 1, np.array([[0], [1]], np.uint8))
    evaluator.process([first], [logits_of(np.array([[0, 1, 1, 2]]))])
    evaluator.process([second], [logits_of(np.array([[0], [1]]))])
    results = evaluator.evaluate()
    assert results is not None
    metrics = results["sem_seg"]
    assert list(metrics)[:6] == ["mIoU", "pACC", "mACC", "fwIoU", "mPrecision", "mBF"]
    assert metrics["IoU-background"] == pytest.approx(100 * 2 / 3)
    assert metrics["IoU-hat"] == pytest.approx(100 * 2 / 3)
    assert math.isnan(metrics["IoU-hair"])
    assert metrics["mIoU"] == pytest.approx(100 * 2 / 3)
    assert metrics["pACC"] == pytest.approx(100 * 4 / 5)
    assert metrics["Precision-background"] == 100
    assert metrics["Precision-hat"] == pytest.approx(100 * 2 / 3)
    assert metrics["Recall-background"] == pytest.approx(100 * 2 / 3)
    assert metrics["BF-hat"] == 100
    assert metrics["mBF"] == 100


def test_boundaries_follow_the_tolerance_or_are_left_out(tmp_path: Path) -> None:
    truth = np.array([[0, 0, 1, 1, 1, 1]], np.uint8)
    pair = write_pair(tmp_path, 0, truth)
    for tolerance, expected in ((2, 100.0), (1, 0.0), (None, None)):
        evaluator = toy_evaluator(boundary_tolerance=tolerance)
        evaluator.process([pair], [logits_of(np.array([[0, 0, 0, 0, 1, 1]]))])
        results = evaluator.evaluate()
        assert results is not None
        assert results["sem_seg"].get("mBF") == expected
        assert ("BF-hat" in results["sem_seg"]) == (tolerance is not None)


def test_given_labels_are_taken_instead_of_logits(tmp_path: Path) -> None:
    truth = np.array([[0, 2, 1]], np.uint8)
    evaluator = toy_evaluator()
    output = {**logits_of(np.zeros((1, 3))), "labels": torch.from_numpy(truth)}
    evaluator.process([write_pair(tmp_path, 0, truth)], [output])
    results = evaluator.evaluate()
    assert results is not None and results["sem_seg"]["mIoU"] == 100


def test_reset_forgets(tmp_path: Path) -> None:
    evaluator = toy_evaluator()
    wrong = write_pair(tmp_path, 0, np.array([[0]], np.uint8))
    evaluator.process([wrong], [logits_of(np.array([[1]]))])
    evaluator.reset()
    evaluator.process([wrong], [logits_of(np.array([[0]]))])
    results = evaluator.evaluate()
    assert results is not None and results["sem_seg"]["mIoU"] == 100


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    evaluator = toy_evaluator()
    length = evaluator.counts.as_vector().size
    for entry, output in random_split(tmp_path, 4):
        evaluator.process([entry], [output])
    assert evaluator.counts.as_vector().size == length == 9 + 4 * 3 + 2


def test_size_mismatch_names_both_sizes(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, 0, np.zeros((4, 6), np.uint8))
    with pytest.raises(InputError, match=r"0\.jpg is 4x6 .*0\.png is 6x4"):
        toy_evaluator().process([pair], [logits_of(np.zeros((6, 4)))])


def test_label_out_of_range_names_file_and_value(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, 0, np.array([[0, 9]], np.uint8))
    with pytest.raises(InputError, match=r"(?s)0\.png.*9"):
        toy_evaluator().process([pair], [logits_of(np.zeros((1, 2)))])


def test_a_prediction_that_is_no_number_is_refused_by_name(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, 0, np.zeros((2, 2), np.uint8))
    with pytest.raises(InputError, match=r"0\.jpg is not a number"):
        toy_evaluator().process([pair], [{"sem_seg": torch.full((3, 2, 2), math.nan)}])


def test_image_without_labels_and_empty_split_are_refused() -> None:
    with pytest.raises(InputError, match=r"0\.jpg has no label map"):
        toy_evaluator().process([{"file_name": "0.jpg"}], [logits_of(np.zeros((1, 2)))])
    with pytest.raises(InputError, match="no labelled pixel .* 0 images of toy_val"):
        toy_evaluator().evaluate()


def test_split_without_labels_is_predicted_and_not_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    split = without_labels(random_split(tmp_path / "labels", 2))
    files = PredictionFiles(tmp_path / "out", [entry for entry, _ in split], PALETTE)
    evaluator = toy_evaluator(tmp_path / "out", predictions=files)
    for entry, output in split:
        evaluator.process([entry], [output])
    with caplog.at_level(logging.INFO, logger="schnet"):
        assert evaluator.evaluate() == {}
    assert "toy_val has no label maps" in caplog.text
    assert sorted(p.name for p in (tmp_path / "out").rglob("*.png")) == ["0.png", "1.png"]
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_some_images_without_labels_are_refused(tmp_path: Path) -> None:
    split = random_split(tmp_path, 2)
    split[1:] = without_labels(split[1:])
    files = PredictionFiles(tmp_path / "out", [entry for entry, _ in split], PALETTE)
    evaluator = toy_evaluator(predictions=files)
    for entry, output in split:
        evaluator.process([entry], [output])
    with pytest.raises(InputError, match="1 of the 2 images of toy_val have no label map"):
        evaluator.evaluate()


@pytest.fixture
def toy_data(tmp_path: Path) -> Iterator[list[dict[str, Any]]]:
    """Two images, registered as `toy_val` with labels; the list may be changed."""
    entries = [
        write_pair(tmp_path / "labels", index, np.array([[0, 1, 254]], np.uint8))
        for index in range(2)
    ]
    DatasetCatalog.register("toy_val", lambda: entries)
    MetadataCatalog.get("toy_val").set(
        stuff_classes=NAMES, stuff_colors=PALETTE, ignore_label=254, spec_name="cihp"
    )
    yield entries
    DatasetCatalog.remove("toy_val")
    MetadataCatalog.remove("toy_val")


def _config(tmp_path: Path, *opts: object) -> CfgNode:
    own = ("OUTPUT_DIR", tmp_path / "out", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3)
    return load_config([CONFIGS / "lip.yaml"], [str(opt) for opt in (*own, *opts)])


def test_build_evaluator_reads_metadata_and_config(
    tmp_path: Path, toy_data: list[dict[str, Any]]
) -> None:
    opts = ("TEST.PROTOCOL", "warp_labels", "TEST.BOUNDARY_TOLERANCE", 0)
    cfg = _config(tmp_path, *opts)
    evaluator = build_evaluator(cfg, "toy_val")
    evaluator.process(toy_data[:1], [logits_of(np.array([[0, 1, 1]]))])
    results = evaluator.evaluate()
    assert results is not None and results["sem_seg"]["mIoU"] == 100
    folder = tmp_path / "out" / "inference" / "toy_val"
    content = json.loads((folder / "evaluation.json").read_text())
    assert content["protocol"] == describe_protocol(cfg)
    assert PROTOCOLS["warp_labels"] in content["protocol"]
    assert content["boundary"]["tolerance_pixels"] == 0
    assert not (folder / "predictions").exists()


def test_build_evaluator_writes_predictions_and_zip(
    tmp_path: Path, toy_data: list[dict[str, Any]]
) -> None:
    for key, archive in (("TEST.SAVE_PREDICTIONS", False), ("TEST.SUBMISSION_ZIP", True)):
        evaluator = build_evaluator(_config(tmp_path, key, True), "toy_val", tmp_path / key)
        outputs = [logits_of(np.array([[0, 2, 1]])), logits_of(np.array([[1, 1, 1]]))]
        evaluator.process(toy_data, outputs)
        evaluator.evaluate()
        with Image.open(tmp_path / key / "predictions" / "0.png") as written:
            assert written.mode == "P"
            assert np.asarray(written).tolist() == [[0, 2, 1]]
            assert written.getpalette()[3:9] == [128, 0, 0, 255, 0, 0]
        assert (tmp_path / key / "submission.zip").exists() == archive
    with zipfile.ZipFile(tmp_path / "TEST.SUBMISSION_ZIP" / "submission.zip") as submission:
        assert submission.namelist() == ["global_parsing/0.png", "global_parsing/1.png"]


def test_build_evaluator_refuses_unlabelled_images_among_others_by_name(
    tmp_path: Path, toy_data: list[dict[str, Any]]
) -> None:
    del toy_data[1]["sem_seg_file_name"]
    cfg = _config(tmp_path, "TEST.SAVE_PREDICTIONS", True)
    with pytest.raises(InputError, match=r"1 of the 2 images .* the first is 1\.jpg"):
        build_evaluator(cfg, "toy_val")
    # Without files to write, the image is refused when it is met.
    evaluator = build_evaluator(_config(tmp_path), "toy_val")
    with pytest.raises(InputError, match=r"1\.jpg has no label map"):
        evaluator.process(toy_data[1:], [logits_of(np.zeros((1, 3)))])


def test_build_evaluator_refuses_a_folder_with_somebody_elses_files(
    tmp_path: Path, toy_data: list[dict[str, Any]]
) -> None:
    (tmp_path / "evaluation.txt").write_text("my notes")
    with pytest.raises(InputError, match=r"evaluation\.txt was not written by an evaluation"):
        build_evaluator(_config(tmp_path), "toy_val", tmp_path)


def test_incomplete_split_gives_no_zip(tmp_path: Path, toy_data: list[dict[str, Any]]) -> None:
    evaluator = build_evaluator(_config(tmp_path, "TEST.SUBMISSION_ZIP", True), "toy_val")
    evaluator.process(toy_data[:1], [logits_of(np.array([[0, 1, 1]]))])
    with pytest.raises(InputError, match="1 of the 2 images of toy_val were predicted"):
        evaluator.evaluate()
    assert not list(tmp_path.rglob("*.zip"))
