"""Image in, parsing out: the trained model behind one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog

from schnet.data.mapper import TestMapper
from schnet.errors import InputError
from schnet.evaluation.argmax import predicted_labels
from schnet.evaluation.test_time import build_label_model
from schnet.exported import build_trained_model

ByteArray = npt.NDArray[np.uint8]
Color = tuple[int, int, int]
SegmentationModel = Callable[[Sequence[Mapping[str, Any]]], Sequence[Mapping[str, torch.Tensor]]]


class ArrayMapper(Protocol):
    """What a `Parser` needs of a mapper; `TestMapper` is one."""

    def from_array(self, image: ByteArray) -> dict[str, Any]:
        """Map an image (H, W, 3), uint8 RGB, to the model's input dict."""
        ...


@dataclass(frozen=True)
class Parsing:
    """The parts of one image.

    Attributes:
        labels: (H, W) uint8 at the size of the input image, values in 0..K-1.
        classes: K names; their position is their label.
        palette: K colours (r, g, b) in 0..255.
    """

    labels: ByteArray
    classes: tuple[str, ...]
    palette: tuple[Color, ...]


class Parser:
    """Parses images with a model.

    Attributes:
        classes: K names, in label order.
        palette: K colours (r, g, b) in 0..255.
    """

    def __init__(self, model: SegmentationModel, mapper: ArrayMapper, metadata: Metadata) -> None:
        """Take the parts.

        Args:
            model: maps a list of input dicts to a list of dicts with `labels` (H, W) or `sem_seg`
                (K, H, W), in evaluation mode.
            mapper: prepares an image for the model.
            metadata: the data set's, with `stuff_classes` and `stuff_colors`.
        """
        self._model = model
        self._mapper = mapper
        self.classes = tuple(metadata.stuff_classes)
        self.palette: tuple[Color, ...] = tuple(
            (int(r), int(g), int(b)) for r, g, b in metadata.stuff_colors
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Parser:
        """Build the model, load `MODEL.WEIGHTS`, and take the names of `DATASETS.TEST[0]`.

        Images are parsed as in an evaluation: by TEST.PROTOCOL, AUG and SLIDING_WINDOW.

        Args:
            cfg: checked config; its data sets must be registered. That of an export is
                `schnet.exported.exported_config`.

        Raises:
            InputError: `MODEL.WEIGHTS` is empty, missing, or of another model, or
                `build_label_model` refuses.
        """
        if not cfg.MODEL.WEIGHTS:
            raise InputError(
                "MODEL.WEIGHTS is empty: give the checkpoint of a trained model, with --weights "
                "or MODEL.WEIGHTS path/to/model_best.pth"
            )
        test_model = build_label_model(cfg, build_trained_model(cfg)).eval()
        return cls(test_model, TestMapper(cfg), MetadataCatalog.get(cfg.DATASETS.TEST[0]))

    def __call__(self, image: ByteArray) -> Parsing:
        """Parse one image.

        Args:
            image: (H, W, 3) uint8, RGB.

        Returns:
            The parsing, with labels (H, W).

        Raises:
            ValueError: the array is no such image.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(
                f"an image must be (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}"
            )
        with torch.inference_mode():
            labels = predicted_labels(self._model([self._mapper.from_array(image)])[0])
        return Parsing(labels, self.classes, self.palette)
