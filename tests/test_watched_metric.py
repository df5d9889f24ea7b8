"""The metric that a run goes by: found by name or path, its direction, and names that are none."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tiny_lip import OPTS

from schnet.config import load_config
from schnet.data.catalog import register_datasets
from schnet.errors import InputError
from schnet.evaluation.boundary import DEFAULT_TOLERANCE
from schnet.evaluation.counts import ParsingCounts
from schnet.evaluation.report import EvaluationReport, metric_names
from schnet.evaluation.watched_metric import (
    WatchedMetric,
    build_watched_metric,
    find_metric,
    lower_is_better,
)
from schnet.setup import Resume, load_model_config, setup_training

TWO_SETS = {
    "lip_val": {"sem_seg": {"mIoU": 1.0, "IoU-Hat": math.nan}, "val": {"loss": 0.5}},
    "cihp_val": {"sem_seg": {"mIoU": 2.0, "IoU-Hat": 3.0, "fwIoU": 4.0}},
}


@pytest.fixture(autouse=True)
def _datasets() -> None:
    register_datasets()


def _build(metric: str, *opts: str) -> WatchedMetric:
    return build_watched_metric(load_config([], [*OPTS, "TEST.BEST_METRIC", metric, *opts]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mIoU", 1.0),
        ("fwIoU", 4.0),
        ("val/loss", 0.5),
        ("cihp_val/sem_seg/mIoU", 2.0),
        ("IoU", math.nan),
        ("loss_ce", math.nan),
        ("IoU-Hat", math.nan),  # of the first data set; the second one's is another number
    ],
)
def test_first_of_its_name_or_path_is_found(name: str, value: float) -> None:
    assert find_metric(TWO_SETS, name) == pytest.approx(value, nan_ok=True)


def test_known_names_are_those_of_a_report() -> None:
    counts = ParsingCounts(3, boundary_tolerance=DEFAULT_TOLERANCE)
    report = EvaluationReport("toy", "by hand", ["a", "b", "c"], counts)
    assert set(metric_names(["a", "b", "c"])) == set(report.results)


@pytest.mark.parametrize(
    ("name", "lower"),
    [
        ("mIoU", False),
        ("IoU-Left-arm", False),
        ("sem_seg/mBF", False),
        ("val/loss", True),
        ("loss_lovasz", True),
        ("lip_val/val/loss_ce", True),
    ],
)
def test_losses_are_better_low(name: str, lower: bool) -> None:
    metric = _build(name)
    assert metric.lower_is_better is lower
    assert metric.direction == ("lower is better" if lower else "higher is better")
    assert metric.gain(3.0, 2.0) == (-1.0 if lower else 1.0)
    assert metric.gain(5.0, metric.worst) == math.inf


def test_mode_overrules_the_name() -> None:
    assert _build("mIoU", "TEST.BEST_MODE", "min").lower_is_better
    assert not _build("val/loss", "TEST.BEST_MODE", "max").lower_is_better


def test_single_data_set_may_be_named_though_its_results_do_not() -> None:
    metric = _build("lip_val/sem_seg/mIoU")
    assert metric.value({"sem_seg": {"mIoU": 7.0}}) == 7.0
    both = ("DATASETS.TEST", "('lip_val', 'cihp_val')")
    assert _build("cihp_val/sem_seg/mIoU", *both).value(TWO_SETS) == 2.0


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("miou", "'miou', which no evaluation of lip_val gives: take mIoU"),
        ("IoU-Left-Arm", "take IoU-Left-arm or"),
        ("IoU-Torso-skin", "IoU-"),
        ("val/los", "take val/loss or"),
        ("cihp_val/sem_seg/mIoU", "take sem_seg/mIoU"),
        ("~", "take mIoU, pACC, mACC, fwIoU, mPrecision, mBF, IoU-<class> or val/loss"),
    ],
)
def test_unknown_name_is_refused_with_the_nearest(name: str, told: str) -> None:
    with pytest.raises(InputError, match="TEST.BEST_METRIC") as error:
        _build(name)
    assert told in str(error.value)


def test_setup_of_a_training_refuses_it_before_any_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    opts = [*OPTS, "OUTPUT_DIR", str(out), "TEST.BEST_METRIC", "IoU-Nose"]
    with pytest.raises(InputError, match="'IoU-Nose', which no evaluation of lip_val gives"):
        setup_training([], opts, Resume.NEVER)
    assert not out.exists()
    load_model_config([], opts)  # a tool that evaluates nothing does not mind


def test_loss_that_is_not_computed_is_refused() -> None:
    with pytest.raises(InputError, match="'val/loss', which TEST.LOSS_IMAGES 0 computes none of"):
        _build("val/loss", "TEST.LOSS_IMAGES", "0")
    with pytest.raises(InputError, match="'loss_lovasz', which no evaluation"):
        _build("loss_lovasz", "MODEL.LOSS.LOVASZ_WEIGHT", "0.0")


def test_only_losses_are_better_lower() -> None:
    assert lower_is_better("lip_val/val/loss_ce", "auto")
    assert not lower_is_better("IoU-Lip-gloss", "auto")
    assert lower_is_better("mIoU", "min") and not lower_is_better("val/loss", "max")
