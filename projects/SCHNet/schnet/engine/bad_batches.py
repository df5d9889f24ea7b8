"""Steps whose numbers are not finite: counted, told with their images, kept for inspection."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils import comm

from schnet.data.files import atomic_path
from schnet.errors import InputError
from schnet.visualization import ByteArray, SheetRow, contact_sheet, save_png

logger = logging.getLogger(__name__)

FOLDER = "bad_batches"


@dataclass(frozen=True)
class BadStep:
    """What one process knows about a step that is not finite.

    Attributes:
        iteration: of the step, from 0.
        learning_rate: of the optimizer's first group.
        losses: this process's mean losses by name.
        told: what is not finite, for the message.
        batch: the images of this process that may be why, as the model takes them; none where
            another process has the bad ones.
    """

    iteration: int
    learning_rate: float
    losses: Mapping[str, float]
    told: str
    batch: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class LabelColours:
    """How the labels of the pictures are drawn: K names, K colours (r, g, b), the ignore label."""

    names: Sequence[str]
    palette: Sequence[Sequence[int]]
    ignore_label: int


class BadSteps:
    """Lets a number of bad steps of a run pass, and stops it at the next one."""

    def __init__(self, folder: Path, allowed: int, colours: LabelColours) -> None:
        """Start counting.

        Args:
            folder: gets the batches; made with the first one. A process writes one batch a bad
                step, so at most `allowed` + 1 of them.
            allowed: bad steps of the run that are skipped.
            colours: of the labels.
        """
        self.count = 0
        self._folder = folder
        self._allowed = allowed
        self._colours = colours

    def record(self, step: BadStep) -> None:
        """Count a bad step and keep its images; every process of the run calls it.

        Raises:
            InputError: it is one more than are allowed; on every process, with the same message.
        """
        self.count += 1
        report = self._report(step) if step.batch else ""
        told = "; ".join(report for report in comm.all_gather(report) if report)
        told = (
            f"training left the finite numbers at iteration {step.iteration} (learning rate "
            f"{step.learning_rate:g}): {told}"
        )
        if self.count > self._allowed:
            raise InputError(
                f"{told}; lower SOLVER.BASE_LR or check these files, and continue with --resume, "
                f"or allow more than SOLVER.MAX_BAD_STEPS {self._allowed}"
            )
        logger.warning("%s; step skipped, %d of at most %d", told, self.count, self._allowed)

    def _report(self, step: BadStep) -> str:
        images = ", ".join(str(entry.get("file_name", "without a name")) for entry in step.batch)
        return f"{step.told} on the images {images} ({self._keep(step)})"

    def _keep(self, step: BadStep) -> str:
        """Write the batch and its picture; say where, or why not."""
        path = self._folder / f"iteration_{step.iteration:07d}_rank{comm.get_rank()}.pth"
        try:
            with atomic_path(path) as temporary:
                torch.save(_content(step), temporary)
            save_png(path.with_suffix(".png"), _picture(step.batch, self._colours))
        except (OSError, RuntimeError) as error:
            # torch reports a full disk as a RuntimeError. What is told matters more than the file.
            return f"not kept in {path}: {' '.join(str(error).split())}"
        return f"kept in {path}"


def build_bad_steps(cfg: CfgNode) -> BadSteps:
    """Read OUTPUT_DIR, SOLVER.MAX_BAD_STEPS and the training set's colours."""
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    names = metadata.stuff_classes
    colours = LabelColours(names, metadata.stuff_colors, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE)
    return BadSteps(Path(cfg.OUTPUT_DIR) / FOLDER, cfg.SOLVER.MAX_BAD_STEPS, colours)


def _content(step: BadStep) -> dict[str, Any]:
    """Plain types and tensors, which `torch.load(weights_only=True)` takes."""
    return {
        "iteration": step.iteration,
        "learning_rate": step.learning_rate,
        "losses": dict(step.losses),
        "file_names": [str(entry.get("file_name", "")) for entry in step.batch],
        "images": [entry["image"].cpu() for entry in step.batch],
        "sem_seg": [entry["sem_seg"].cpu() for entry in step.batch],
    }


def _picture(batch: Sequence[Mapping[str, Any]], colours: LabelColours) -> ByteArray:
    """Images beside their labels, as the model saw them."""
    rows = []
    for entry in batch:
        photo = entry["image"].cpu().float().nan_to_num().clamp(0, 255).permute(1, 2, 0)
        rows.append(SheetRow(_bytes(photo), _bytes(entry["sem_seg"].cpu()), None))
    return contact_sheet(rows, colours.names, colours.palette, ignore_label=colours.ignore_label)


def _bytes(values: torch.Tensor) -> ByteArray:
    return np.ascontiguousarray(values.numpy().astype(np.uint8))
