"""The parsing evaluator: streaming counts over a split, at original resolution."""

from __future__ import annotations

import logging
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

from schnet.data.catalog import load_registered
from schnet.data.label_maps import check_same_size, read_label
from schnet.errors import InputError
from schnet.evaluation.argmax import NaNScoreError, predicted_labels
from schnet.evaluation.boundary import DEFAULT_TOLERANCE
from schnet.evaluation.counts import ParsingCounts
from schnet.evaluation.per_image import (
    ImageScore,
    gather_scores,
    score_image,
    sort_scores,
    write_scores,
)
from schnet.evaluation.predictions import ARCHIVE_FOLDERS, PredictionFiles
from schnet.evaluation.protocol import PROTOCOLS
from schnet.evaluation.reduction import sum_over_processes
from schnet.evaluation.report import EvaluationReport, refuse_foreign_files
from schnet.evaluation.test_time import describe_protocol

logger = logging.getLogger(__name__)


class ParsingEvaluator(DatasetEvaluator):
    """Compares predicted label maps with the true ones over a split.

    Memory does not grow with the number of images, but for two numbers and the name of each. Every
    process counts its own share of the split; `evaluate` adds the counts up, so any division of
    the images gives the same numbers.

    Attributes:
        protocol: one line that says how predictions got to original size.
        counts: the counts of this process.
    """

    def __init__(
        self,
        dataset_name: str,
        num_classes: int,
        class_names: Sequence[str],
        ignore_label: int = 255,
        output_dir: str | os.PathLike[str] | None = None,
        distributed: bool = True,
        protocol: str = PROTOCOLS["upsample_logits"],
        boundary_tolerance: int | None = DEFAULT_TOLERANCE,
        predictions: PredictionFiles | None = None,
        refuse_colors: bool = False,
    ) -> None:
        """Take what is to be evaluated.

        Args:
            dataset_name: registered name, for the log and the result file.
            num_classes: K.
            class_names: K names, in label order.
            ignore_label: true label whose pixels do not count.
            output_dir: folder that `evaluate` writes the report to; None writes none.
            distributed: add up the counts of all processes; False where only one process
                evaluates.
            protocol: one line, printed with the numbers: how predictions got to original size.
            boundary_tolerance: in pixels, for the boundary F-score; None leaves it out.
            predictions: where to write the label maps; None writes none. With it, a split
                without any label map can be predicted, though not measured.
            refuse_colors: refuse true label maps whose three channels differ.

        Raises:
            ValueError: there are not K names.
        """
        if len(class_names) != num_classes:
            raise ValueError(f"{len(class_names)} class names for {num_classes} classes")
        self.dataset_name = dataset_name
        self.class_names = list(class_names)
        self.protocol = protocol
        self._output_dir = output_dir
        self._distributed = distributed
        self._num_classes = num_classes
        self._ignore_label = ignore_label
        self._boundary_tolerance = boundary_tolerance
        self._predictions = predictions
        self._refuse_colors = refuse_colors
        self.reset()

    def reset(self) -> None:
        """Forget all counts; called before each pass over the split."""
        self._scores: list[ImageScore] = []
        self.counts = ParsingCounts(self._num_classes, self._ignore_label, self._boundary_tolerance)

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, torch.Tensor]]
    ) -> None:
        """Count a batch, and write its label maps where they are wanted.

        Args:
            inputs: dataset dicts with `file_name`, `image_id`, and `sem_seg_file_name` where there
                is a label map.
            outputs: for each, at the size of the label file, `labels` (H, W), uint8, or else
                `sem_seg` (K, H, W), logits or probabilities.

        Raises:
            InputError: a prediction is not a number, an image has no label file, or the file is
                unreadable, of another size, or holds a label out of range.
        """
        for dataset_dict, output in zip(inputs, outputs, strict=True):
            try:
                labels = predicted_labels(output)
            except NaNScoreError:
                raise NaNScoreError(dataset_dict["file_name"]) from None
            if self._predictions is not None:
                self._predictions.write(dataset_dict["image_id"], labels)
            self.add_labels(dataset_dict, labels)

    def add_labels(
        self, dataset_dict: Mapping[str, Any], prediction: npt.NDArray[np.uint8]
    ) -> None:
        """Count one predicted label map (H, W) of values in 0..K-1; raises as `process` does."""
        label_path = dataset_dict.get("sem_seg_file_name")
        if not label_path:
            if self._predictions is None:
                raise InputError(
                    f"{dataset_dict['file_name']} has no label map, so {self.dataset_name} cannot "
                    "be evaluated: take a split with labels, or set TEST.SAVE_PREDICTIONS True to "
                    "predict it without"
                )
            self.counts.unlabelled_images += 1
            return
        truth = read_label(
            label_path,
            self._num_classes,
            self._ignore_label,
            refuse_colors=self._refuse_colors,
        )
        check_same_size(prediction.shape, truth, dataset_dict["file_name"], label_path)
        own = self.counts.update(truth, prediction)
        self._scores.append(
            score_image(str(dataset_dict.get("image_id", "")), str(dataset_dict["file_name"]), own)
        )

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Compute the metrics of the whole split, log them and write the files.

        Returns:
            On the main process, `sem_seg` with the metrics of `EvaluationReport.results`, in
            percent, or nothing where the split has no labels. None on the other processes.

        Raises:
            InputError: on every process, no labelled pixel was seen, or only some of the images
                have labels; on the main one, the zip is wanted and a prediction is missing.
        """
        counts = self._total()
        scores = gather_scores(self._scores) if self._distributed else sort_scores(self._scores)
        self._refuse_unusable(counts)
        if self._distributed and not comm.is_main_process():
            return None
        self._finish_predictions(counts)
        if counts.unlabelled_images:
            return OrderedDict()
        report = EvaluationReport(self.dataset_name, self.protocol, self.class_names, counts)
        logger.info("%s", report.text())
        if self._output_dir is not None:
            report.write(self._output_dir)
            write_scores(self._output_dir, scores)
        return OrderedDict(sem_seg=dict(report.results))

    def _total(self) -> ParsingCounts:
        """Add up the counts of all processes; one collective call."""
        total = ParsingCounts(self._num_classes, self._ignore_label, self._boundary_tolerance)
        own = self.counts.as_vector()
        total.replace(sum_over_processes(own) if self._distributed else own)
        return total

    def _refuse_unusable(self, counts: ParsingCounts) -> None:
        labelled, unlabelled = counts.labelled_images, counts.unlabelled_images
        if labelled and unlabelled:
            raise InputError(
                f"{unlabelled} of the {labelled + unlabelled} images of {self.dataset_name} have "
                "no label map: give all of them one, or none"
            )
        if not unlabelled and not counts.confusion.counts.any():
            raise InputError(
                f"no labelled pixel was found in the {labelled} images of {self.dataset_name}: "
                "check its index and its label maps"
            )

    def _finish_predictions(self, counts: ParsingCounts) -> None:
        """Tell of the PNGs and zip them; on the main process, when all processes wrote theirs."""
        if self._predictions is None:
            return
        written = counts.labelled_images + counts.unlabelled_images
        logger.info(
            "wrote the predictions of %d images of %s to %s",
            written,
            self.dataset_name,
            self._predictions.folder,
        )
        if counts.unlabelled_images:
            logger.info(
                "%s has no label maps: its predictions were written, and no metric was computed",
                self.dataset_name,
            )
        if self._predictions.archive is not None:
            if written != len(self._predictions):
                raise InputError(
                    f"{written} of the {len(self._predictions)} images of {self.dataset_name} were "
                    f"predicted, too few for {self._predictions.archive}: evaluate all of them"
                )
            # The counts were added up after every process had written its last PNG.
            logger.info("wrote %s", self._predictions.write_archive())


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_dir: str | os.PathLike[str] | None = None
) -> ParsingEvaluator:
    """Make the evaluator of a registered data set.

    Args:
        cfg: config; its number of classes, `OUTPUT_DIR`, TEST and the test box are read.
        dataset_name: registered name.
        output_dir: folder of the report and the predictions; None takes
            `OUTPUT_DIR/inference/<dataset_name>`.

    Raises:
        InputError: the folder holds files of the report's names which no evaluation wrote; or
            predictions are to be written and two photos share a name, or some of the images have
            labels and others none.
    """
    metadata = MetadataCatalog.get(dataset_name)
    if output_dir is None:
        output_dir = Path(cfg.OUTPUT_DIR) / "inference" / dataset_name
    refuse_foreign_files(output_dir)
    predictions = None
    if cfg.TEST.SAVE_PREDICTIONS or cfg.TEST.SUBMISSION_ZIP:
        dataset_dicts = load_registered([dataset_name])
        _refuse_some_unlabelled(dataset_dicts, dataset_name)
        predictions = PredictionFiles(
            output_dir,
            dataset_dicts,
            metadata.stuff_colors,
            archive=cfg.TEST.SUBMISSION_ZIP,
            archive_folder=ARCHIVE_FOLDERS.get(metadata.get("spec_name", ""), ""),
        )
    return ParsingEvaluator(
        dataset_name,
        num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        class_names=metadata.stuff_classes,
        ignore_label=metadata.ignore_label,
        output_dir=output_dir,
        protocol=describe_protocol(cfg),
        boundary_tolerance=cfg.TEST.BOUNDARY_TOLERANCE,
        predictions=predictions,
        refuse_colors=metadata.get("refuse_colors", False),
    )


def _refuse_some_unlabelled(dataset_dicts: Sequence[Mapping[str, Any]], name: str) -> None:
    unlabelled = [d["file_name"] for d in dataset_dicts if not d.get("sem_seg_file_name")]
    if unlabelled and len(unlabelled) < len(dataset_dicts):
        raise InputError(
            f"{len(unlabelled)} of the {len(dataset_dicts)} images of {name} have no label map, "
            f"the first is {unlabelled[0]}: give all of them one, or none"
        )
