"""Where a run's numbers go while it trains: terminal, log, and files."""

from __future__ import annotations

import os

from detectron2.config import CfgNode
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)

WRITE_PERIOD = 20
METRICS_FILE = "metrics.json"


def build_writers(cfg: CfgNode, max_iter: int) -> list[EventWriter]:
    """Make the writers of a run: terminal and log, `metrics.json`, and TensorBoard.

    Args:
        cfg: the run's config; OUTPUT_DIR is made where it is missing.
        max_iter: iterations of the run, for the time that is left.
    """
    folder = cfg.OUTPUT_DIR
    os.makedirs(folder, exist_ok=True)
    return [
        CommonMetricPrinter(max_iter),
        JSONWriter(os.path.join(folder, METRICS_FILE)),
        TensorboardXWriter(folder),
    ]
