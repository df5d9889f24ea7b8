"""What an evaluation found, in percent: as numbers by name, as a table, as files."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from schnet.data.files import atomic_path
from schnet.errors import InputError
from schnet.evaluation.boundary import BoundaryMetrics
from schnet.evaluation.confusion import SegmentationMetrics
from schnet.evaluation.confusion_picture import save_confusion_picture
from schnet.evaluation.counts import ParsingCounts
from schnet.evaluation.per_image import PER_IMAGE_FILE

RESULT_FILE = "evaluation.json"
TABLE_FILE = "evaluation.txt"
PICTURE_FILE = "confusion_matrix.png"
UNDEFINED = "–"

MEANS = ("mIoU", "pACC", "mACC", "fwIoU", "mPrecision", "mBF")
BY_CLASS = ("IoU", "Precision", "Recall", "BF")

ABSENT_CLASSES = (
    "a class in neither truth nor prediction is left out of the means; one that is only predicted "
    "counts 0; a mean of recall or precision leaves out what has no true or no predicted pixel"
)
RULES: dict[str, str] = {
    "absent classes": ABSENT_CLASSES,
    "mIoU": "mean over all classes, background included; pixels with the ignore label are dropped",
    "mACC": "mean recall; what some papers call mean accuracy is the mean precision, here "
    "mPrecision",
    "mBF": "boundary F-score: a boundary pixel has another class above, below, left or right of "
    "it, and is found where the other map has a boundary pixel of its class within the tolerance "
    "(Euclidean); counts are summed over all images",
}
"""How the numbers came about, by what they are about; written beside them."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationReport:
    """The counts of a whole split, and what they mean.

    Attributes:
        dataset: name of the split.
        protocol: one line that says how the predictions got to the photos' own size.
        class_names: K names, in label order.
        counts: of all processes.
    """

    dataset: str
    protocol: str
    class_names: Sequence[str]
    counts: ParsingCounts

    @cached_property
    def pixels(self) -> SegmentationMetrics:
        """The metrics of the confusion matrix."""
        return self.counts.confusion.metrics()

    @cached_property
    def boundaries(self) -> BoundaryMetrics | None:
        """The metrics of the boundaries; None where they were left out."""
        return None if self.counts.boundary is None else self.counts.boundary.metrics()

    @cached_property
    def results(self) -> dict[str, float]:
        """All metrics in percent; NaN where undefined.

        `mIoU`, `pACC`, `mACC`, `fwIoU`, `mPrecision` and `mBF`, then for each class
        `IoU-<class>`, `Precision-<class>`, `Recall-<class>` and `BF-<class>`. `mBF` and `BF` are
        missing where the boundaries were left out.
        """
        pixels = self.pixels
        means = {
            "mIoU": pixels.mean_iou,
            "pACC": pixels.pixel_accuracy,
            "mACC": pixels.mean_accuracy,
            "fwIoU": pixels.frequency_weighted_iou,
            "mPrecision": pixels.mean_precision,
        }
        by_class = {"IoU": pixels.iou, "Precision": pixels.precision, "Recall": pixels.recall}
        if self.boundaries is not None:
            means["mBF"] = self.boundaries.mean_f_score
            by_class["BF"] = self.boundaries.f_score
        results = {name: 100 * value for name, value in means.items()}
        for metric, values in by_class.items():
            for class_name, value in zip(self.class_names, values, strict=True):
                results[f"{metric}-{class_name}"] = 100 * float(value)
        return results

    def text(self) -> str:
        """Word all of it for people: what was evaluated and how, the tables, the rule."""
        heading = f"{self.dataset}, {self.counts.labelled_images} images, protocol: {self.protocol}"
        return "\n".join([heading, self._class_table(), "", self._means_table(), self._footnote()])

    def as_json(self) -> dict[str, Any]:
        """Give everything as what JSON can hold; an undefined metric is None."""
        content: dict[str, Any] = {
            "dataset": self.dataset,
            "protocol": self.protocol,
            "images": self.counts.labelled_images,
            "sem_seg": {k: None if math.isnan(v) else v for k, v in self.results.items()},
            "rules": RULES,
            "classes": list(self.class_names),
            "confusion_matrix": {
                "rows": "truth",
                "columns": "prediction",
                "pixels": self.counts.confusion.counts.tolist(),
            },
        }
        boundary = self.counts.boundary
        if boundary is not None:
            names = ("predicted", "predicted_found", "true", "true_found")
            content["boundary"] = {
                "tolerance_pixels": boundary.tolerance,
                "pixels": dict(zip(names, boundary.counts.tolist(), strict=True)),
            }
        return content

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write `evaluation.json`, `evaluation.txt` and `confusion_matrix.png`, each atomically.

        Files of an earlier evaluation are replaced; see `refuse_foreign_files`.
        """
        target = Path(folder)
        # The JSON first: with it the other two are known for an evaluation's.
        _write_text(target / RESULT_FILE, json.dumps(self.as_json(), indent=1))
        _write_text(target / TABLE_FILE, self.text())
        save_confusion_picture(
            target / PICTURE_FILE,
            self.class_names,
            self.counts.confusion.counts,
            f"{self.dataset}: mIoU {_percent(self.results['mIoU'])} %",
        )
        logger.info("wrote %s, %s and %s to %s", RESULT_FILE, TABLE_FILE, PICTURE_FILE, target)

    def _class_table(self) -> str:
        columns = {
            "IoU": self.pixels.iou,
            "precision": self.pixels.precision,
            "recall": self.pixels.recall,
        }
        if self.boundaries is not None:
            columns["BF"] = self.boundaries.f_score
        columns["pixels"] = self.pixels.truth_share
        values = np.stack(list(columns.values()), axis=1)
        rows = [
            [name, *(_percent(100 * float(value)) for value in row)]
            for name, row in zip(self.class_names, values, strict=True)
        ]
        return _table(["class", *columns], rows, ["left", *["right"] * len(columns)])

    def _means_table(self) -> str:
        means = {name: value for name, value in self.results.items() if "-" not in name}
        row = [_percent(value) for value in means.values()]
        return _table([*means], [row], ["right"] * len(means))

    def _footnote(self) -> str:
        parts = [f"In percent; {ABSENT_CLASSES}; mACC is the mean recall"]
        if self.counts.boundary is not None:
            parts.append(f"BF: boundary F-score at {self.counts.boundary.tolerance} pixels")
        return "; ".join(parts) + "."


def metric_names(class_names: Sequence[str]) -> list[str]:
    """Give the names of `EvaluationReport.results`, boundaries included, for K class names."""
    return [*MEANS, *(f"{metric}-{name}" for metric in BY_CLASS for name in class_names)]


def refuse_foreign_files(
    folder: str | os.PathLike[str],
    names: Sequence[str] = (RESULT_FILE, TABLE_FILE, PICTURE_FILE, PER_IMAGE_FILE),
    keys: Collection[str] = ("sem_seg", "protocol", "dataset"),
) -> None:
    """Refuse a folder that holds files of a report's names which no evaluation wrote.

    Args:
        folder: it need not exist.
        names: files of the report, its JSON first.
        keys: what an evaluation's JSON holds.

    Raises:
        InputError: names the first such file.
    """
    target = Path(folder)
    found = [name for name in names if (target / name).exists()]
    if found and not _is_result(target / names[0], keys):
        raise InputError(
            f"{target / found[0]} was not written by an evaluation and would be overwritten: move "
            "it away or choose another folder"
        )


def _is_result(path: Path, keys: Collection[str]) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, Mapping) and set(keys) <= set(content)


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _table(headers: list[str], rows: list[list[str]], alignment: list[str]) -> str:
    # Numbers come as text with their decimals; tabulate would take those off again.
    return tabulate(rows, headers, tablefmt="pipe", colalign=alignment, disable_numparse=True)


def _percent(value: float) -> str:
    return UNDEFINED if math.isnan(value) else f"{value:.2f}"
