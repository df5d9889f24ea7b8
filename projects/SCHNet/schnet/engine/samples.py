"""Predictions of a few test images, drawn after every evaluation, for those who watch a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from torch import nn

from schnet.data.catalog import load_registered
from schnet.data.mapper import DatasetDict, TestMapper, open_as_labelled, read_truth
from schnet.engine.after_evaluation import AfterEvaluationHook
from schnet.engine.hooks import EvaluationHook
from schnet.engine.modes import evaluation_mode
from schnet.evaluation.test_time import build_label_model
from schnet.inference import Parser
from schnet.visualization import ByteArray, SheetRow, evenly_spaced, picture_strip

MAX_SIDE = 320
"""Pixels of the longer side of each picture: every evaluation of a run adds its own to the log."""


@dataclass(frozen=True)
class SampleImages:
    """Fixed images of a test set, and what parses and draws them.

    Attributes:
        dicts: the images, as `load_split` gives them.
        model: the model that is trained, with what an evaluation puts around it.
        parser: parses with `model`.
        metadata: of the test set.
    """

    dicts: Sequence[DatasetDict]
    model: nn.Module
    parser: Parser
    metadata: Metadata

    def draw(self, number: int) -> ByteArray:
        """Parse an image and draw photo, truth and prediction beside each other.

        Args:
            number: the image's position in `dicts`.

        Returns:
            (height, width, 3) uint8 RGB.

        Raises:
            InputError: a file cannot be used.
        """
        entry = self.dicts[number]
        photo = open_as_labelled(entry).decode()
        row = SheetRow(photo, read_truth(entry, self.metadata), self.parser(photo).labels)
        return picture_strip(row, self.parser.palette, MAX_SIDE, self.metadata.ignore_label)


class SampleImagesHook(AfterEvaluationHook):
    """Puts pictures of sample predictions among the run's events; on the main process.

    The writers that can show pictures (TensorBoard, Weights & Biases) take them from there.
    """

    def __init__(
        self,
        evaluation: EvaluationHook,
        samples: SampleImages,
        weights: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Take what is drawn.

        Args:
            evaluation: the hook that runs before this one.
            samples: the images and the model.
            weights: puts the weights that are evaluated into the model while it is open.
        """
        super().__init__(evaluation)
        self._samples = samples
        self._weights = weights

    def after_evaluation(self, iteration: int) -> None:
        """Parse and draw the images with the model as it was evaluated."""
        storage = self.trainer.storage
        current, storage.iter = storage.iter, iteration
        with self._weights(), evaluation_mode(self._samples.model):
            for number, entry in enumerate(self._samples.dicts):
                # Channels first, as Detectron2's writers take them.
                picture = np.ascontiguousarray(self._samples.draw(number).transpose(2, 0, 1))
                storage.put_image(f"samples/{entry['image_id']}", picture)
        storage.iter = current


def build_sample_images(cfg: CfgNode, model: nn.Module) -> SampleImages:
    """Choose the images, spread over the first test set.

    Args:
        cfg: TEST and DATASETS.TEST count; TEST.SAMPLE_IMAGES may be 0.
        model: the model itself, in any mode.
    """
    name = cfg.DATASETS.TEST[0]
    metadata = MetadataCatalog.get(name)
    dicts = load_registered([name])
    test_model = build_label_model(cfg, model)
    return SampleImages(
        [dicts[index] for index in evenly_spaced(len(dicts), cfg.TEST.SAMPLE_IMAGES)],
        test_model,
        Parser(test_model, TestMapper(cfg), metadata),
        metadata,
    )
