"""The one metric that a run goes by: its name among an evaluation's, and which way is better."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation.testing import flatten_results_dict

from schnet.errors import InputError
from schnet.evaluation.report import MEANS, metric_names

METRIC_TASK = "sem_seg"
LOSS_TASK = "val"
_LOSS_NAMES = ("loss", "loss_ce", "loss_lovasz")
_SUGGESTIONS = 5


@dataclass(frozen=True)
class WatchedMetric:
    """A metric by which evaluations are compared.

    Attributes:
        name: its name, such as `mIoU` or `IoU-Hair`, or the end of its path in the results, such
            as `val/loss` or `lip_val/sem_seg/mIoU`.
        lower_is_better: whether its lowest value is the best.
    """

    name: str
    lower_is_better: bool = False

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        return "lower is better" if self.lower_is_better else "higher is better"

    @property
    def worst(self) -> float:
        """A value that every number is better than."""
        return math.inf if self.lower_is_better else -math.inf

    def value(self, results: Mapping[str, Any]) -> float:
        """Read its value from nested results; see `find_metric`."""
        return find_metric(results, self.name)

    def gain(self, value: float, best: float) -> float:
        """By how much a value is better than another; below 0 where worse, NaN where undefined."""
        return best - value if self.lower_is_better else value - best


def find_metric(results: Mapping[str, Any], name: str) -> float:
    """Find a metric in nested results by its name or the end of its path.

    Args:
        results: by data set (where there are several), task and metric.
        name: such as `mIoU`, `val/loss` or `lip_val/sem_seg/mIoU`.

    Returns:
        The first value of this name: with several data sets, the first one's. NaN where there is
        none, or where it is not defined.
    """
    for path, value in flatten_results_dict(dict(results)).items():
        if is_named(path, name):
            return float(value)
    return math.nan


def build_watched_metric(cfg: CfgNode) -> WatchedMetric:
    """Make the metric of TEST.BEST_METRIC and BEST_MODE.

    Args:
        cfg: TEST, DATASETS.TEST, whose metadata must be registered, and MODEL.LOSS count.

    Raises:
        InputError: no evaluation of these data sets gives such a metric; names the nearest.
    """
    name, sets = cfg.TEST.BEST_METRIC, cfg.DATASETS.TEST
    if len(sets) == 1:
        # The results of a single data set do not name it.
        name = name.removeprefix(f"{sets[0]}/")
    _refuse_unknown(cfg, name)
    return WatchedMetric(name, lower_is_better(name, cfg.TEST.BEST_MODE))


def lower_is_better(name: str, mode: str) -> bool:
    """Whether the lowest value of a metric is its best.

    Args:
        name: the metric's, or the end of its path.
        mode: TEST.BEST_MODE; `auto` is `min` for losses.
    """
    return mode == "min" or (mode == "auto" and name.rpartition("/")[2] in _LOSS_NAMES)


def is_named(path: str, name: str) -> bool:
    """Whether a path in the results, such as `lip_val/sem_seg/mIoU`, is or ends with a name."""
    return path == name or path.endswith(f"/{name}")


def _refuse_unknown(cfg: CfgNode, name: str) -> None:
    metrics, losses = _known_paths(cfg)
    if any(is_named(path, name) for path in metrics):
        return
    if any(is_named(path, name) for path in losses):
        if cfg.TEST.LOSS_IMAGES != 0:
            return
        raise InputError(
            f"config key TEST.BEST_METRIC is {name!r}, which TEST.LOSS_IMAGES 0 computes none of: "
            "set TEST.LOSS_IMAGES to a number of images, or take another metric"
        )
    raise InputError(
        f"config key TEST.BEST_METRIC is {cfg.TEST.BEST_METRIC!r}, which no evaluation of "
        f"{', '.join(cfg.DATASETS.TEST)} gives: take {_nearest(name, [*metrics, *losses])}"
    )


def _known_paths(cfg: CfgNode) -> tuple[list[str], list[str]]:
    """All paths of metrics, and of losses, that the results of an evaluation may have."""
    metrics, losses = [], []
    several = len(cfg.DATASETS.TEST) > 1
    for dataset in cfg.DATASETS.TEST:
        prefix = f"{dataset}/" if several else ""
        classes = MetadataCatalog.get(dataset).stuff_classes
        metrics += [f"{prefix}{METRIC_TASK}/{metric}" for metric in metric_names(classes)]
        losses += [f"{prefix}{LOSS_TASK}/{loss}" for loss in _loss_names(cfg)]
    return metrics, losses


def _loss_names(cfg: CfgNode) -> list[str]:
    weights = (1.0, cfg.MODEL.LOSS.CE_WEIGHT, cfg.MODEL.LOSS.LOVASZ_WEIGHT)
    return [name for name, weight in zip(_LOSS_NAMES, weights, strict=True) if weight > 0]


def _nearest(name: str, paths: Sequence[str]) -> str:
    """Word the names that are most like one, or the main ones where none is."""
    # With fewer parts than asked for, a path is as good a name by its last parts.
    parts = name.count("/") + 1
    by_key = {
        end.lower(): end for end in ("/".join(path.split("/")[-parts:]) for path in reversed(paths))
    }
    found = difflib.get_close_matches(name.lower(), list(by_key), n=_SUGGESTIONS)
    nearest = [by_key[key] for key in found]
    return " or ".join(nearest) if nearest else f"{', '.join(MEANS)}, IoU-<class> or val/loss"
