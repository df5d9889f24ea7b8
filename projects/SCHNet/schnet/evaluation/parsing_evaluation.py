"""The parsing evaluator: one streaming confusion matrix over a split, at original resolution."""

from __future__ import annotations

import json
import logging
import math
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from tabulate import tabulate

from schnet.data.files import atomic_path
from schnet.data.label_maps import check_same_size, read_label
from schnet.errors import InputError
from schnet.evaluation.confusion import ConfusionMatrix, SegmentationMetrics
from schnet.evaluation.test_time import describe_protocol, predicted_labels

# Which of the field's two habits a number follows is printed with it (DESIGN section 6).
PROTOCOL = "logits upsampled to the original size, then argmax"
RESULT_FILE = "evaluation.json"
UNDEFINED = "–"

logger = logging.getLogger(__name__)


class ParsingEvaluator(DatasetEvaluator):
    """Compares predicted label maps with the true ones over a split.

    Memory does not grow with the number of images. Every process counts its own share of the
    split; `evaluate` adds the matrices up, so any division of the images gives the same numbers.

    Attributes:
        protocol: one line that says how predictions got to original size.
        confusion: the counts of this process.
    """

    def __init__(
        self,
        dataset_name: str,
        num_classes: int,
        class_names: Sequence[str],
        ignore_label: int = 255,
        output_dir: str | os.PathLike[str] | None = None,
        distributed: bool = True,
        protocol: str = PROTOCOL,
    ) -> None:
        """Take what is to be evaluated.

        Args:
            dataset_name: registered name, for the log and the result file.
            num_classes: K.
            class_names: K names, in label order.
            ignore_label: true label whose pixels do not count.
            output_dir: folder that `evaluate` writes `evaluation.json` to; None writes nothing.
            distributed: add up the counts of all processes; False where only one process
                evaluates.
            protocol: one line, printed with the numbers: how predictions got to original size.

        Raises:
            ValueError: there are not K names.
        """
        if len(class_names) != num_classes:
            raise ValueError(f"{len(class_names)} class names for {num_classes} classes")
        self.dataset_name = dataset_name
        self.class_names = list(class_names)
        self.protocol = protocol
        self._output_dir = None if output_dir is None else Path(output_dir)
        self._distributed = distributed
        self._num_classes = num_classes
        self._ignore_label = ignore_label
        self.reset()

    def reset(self) -> None:
        """Forget all counts; called before each pass over the split."""
        self.confusion = ConfusionMatrix(self._num_classes, self._ignore_label)
        self._num_images = 0

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, torch.Tensor]]
    ) -> None:
        """Count a batch.

        Args:
            inputs: dataset dicts with `file_name` and `sem_seg_file_name`.
            outputs: for each, `labels` (H, W), or else `sem_seg` (K, H, W), logits or
                probabilities, at the size of the label file.

        Raises:
            InputError: an image has no label file, or the file is unreadable, of another size, or
                holds a label out of range.
        """
        for dataset_dict, output in zip(inputs, outputs, strict=True):
            self.add_labels(dataset_dict, predicted_labels(output))

    def add_labels(
        self, dataset_dict: Mapping[str, Any], prediction: npt.NDArray[np.uint8]
    ) -> None:
        """Count one predicted label map (H, W) of values in 0..K-1; raises as `process` does."""
        label_path = dataset_dict.get("sem_seg_file_name")
        if not label_path:
            raise InputError(
                f"{dataset_dict['file_name']} has no label map, so {self.dataset_name} cannot be "
                "evaluated: take a split with labels"
            )
        truth = read_label(label_path, self._num_classes, ignore_label=self._ignore_label)
        check_same_size(prediction.shape, truth, dataset_dict["file_name"], label_path)
        self.confusion.update(truth, prediction)
        self._num_images += 1

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Compute the metrics of the whole split, log them and write the result file.

        Returns:
            On the main process, `sem_seg` with `mIoU`, `pACC`, `mACC`, `fwIoU` and
            `IoU-<class>`, in percent; NaN where undefined (see `SegmentationMetrics`). None on
            the other processes.

        Raises:
            InputError: no labelled pixel was seen; on every process.
        """
        counts, num_images = self._gather()
        if not counts.any():
            raise InputError(
                f"no labelled pixel was found in the {num_images} images of {self.dataset_name}: "
                "check its index and its label maps"
            )
        if self._distributed and not comm.is_main_process():
            return None
        total = ConfusionMatrix(self._num_classes, self._ignore_label)
        total.counts = counts
        metrics = total.metrics()
        results = self._in_percent(metrics)
        logger.info(
            "%s, %d images, protocol: %s\n%s\n%s",
            self.dataset_name,
            num_images,
            self.protocol,
            per_class_table(self.class_names, metrics),
            summary_table(results),
        )
        if self._output_dir is not None:
            self._write(results, counts, num_images)
        return OrderedDict(sem_seg=results)

    def _gather(self) -> tuple[npt.NDArray[np.int64], int]:
        """Add up counts and numbers of images over the processes; one collective call."""
        mine = (self.confusion.counts, self._num_images)
        shares = comm.all_gather(mine) if self._distributed else [mine]
        return np.sum([counts for counts, _ in shares], axis=0), sum(n for _, n in shares)

    def _in_percent(self, metrics: SegmentationMetrics) -> dict[str, float]:
        results = {
            "mIoU": 100 * metrics.mean_iou,
            "pACC": 100 * metrics.pixel_accuracy,
            "mACC": 100 * metrics.mean_accuracy,
            "fwIoU": 100 * metrics.frequency_weighted_iou,
        }
        for name, iou in zip(self.class_names, metrics.iou, strict=True):
            results[f"IoU-{name}"] = 100 * float(iou)
        return results

    def _write(
        self, results: Mapping[str, float], counts: npt.NDArray[np.int64], num_images: int
    ) -> None:
        assert self._output_dir is not None
        content = {
            "dataset": self.dataset_name,
            "protocol": self.protocol,
            "images": num_images,
            # JSON has no NaN: an undefined metric is null.
            "sem_seg": {k: None if math.isnan(v) else v for k, v in results.items()},
            "classes": self.class_names,
            "confusion_matrix": {
                "rows": "truth",
                "columns": "prediction",
                "pixels": counts.tolist(),
            },
        }
        target = self._output_dir / RESULT_FILE
        with atomic_path(target) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        logger.info("wrote %s", target)


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_dir: str | os.PathLike[str] | None = None
) -> ParsingEvaluator:
    """Make the evaluator of a registered data set.

    Args:
        cfg: config; its number of classes, `OUTPUT_DIR`, TEST and the test box are read.
        dataset_name: registered name.
        output_dir: folder of the result file; None takes `OUTPUT_DIR/inference/<dataset_name>`.
    """
    metadata = MetadataCatalog.get(dataset_name)
    if output_dir is None:
        output_dir = Path(cfg.OUTPUT_DIR) / "inference" / dataset_name
    return ParsingEvaluator(
        dataset_name,
        num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        class_names=metadata.stuff_classes,
        ignore_label=metadata.ignore_label,
        output_dir=output_dir,
        protocol=describe_protocol(cfg),
    )


def per_class_table(class_names: Sequence[str], metrics: SegmentationMetrics) -> str:
    """Draw a text table: class, IoU, recall and share of the true pixels, in percent."""
    rows = [
        [name, *map(_percent, values)]
        for name, *values in zip(
            class_names, metrics.iou, metrics.recall, metrics.truth_share, strict=True
        )
    ]
    return _table(["class", "IoU", "recall", "pixels"], rows, ["left", *["right"] * 3])


def summary_table(results: Mapping[str, float]) -> str:
    """Draw a text table of the four means, from results in percent."""
    names = ["mIoU", "pACC", "mACC", "fwIoU"]
    values = [_percent(results[name] / 100) for name in names]
    return _table(names, [values], ["right"] * len(names))


def _table(headers: list[str], rows: list[list[str]], alignment: list[str]) -> str:
    # Numbers come as text with their decimals; tabulate would take those off again.
    return tabulate(rows, headers, tablefmt="pipe", colalign=alignment, disable_numparse=True)


def _percent(ratio: float) -> str:
    return UNDEFINED if math.isnan(ratio) else f"{100 * ratio:.2f}"
