"""Image in, parsing out: the trained model behind one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from torch import nn

from schnet.data.mapper import TestMapper
from schnet.errors import InputError
from schnet.evaluation.argmax import argmax_labels, predicted_labels
from schnet.evaluation.test_time import build_label_model
from schnet.evaluation.warp_labels import WarpLabels
from schnet.evaluation.wrapper import score_maps
from schnet.exported import build_trained_model
from schnet.modeling.meta_arch import LOGIT_STRIDE
from schnet.parsing import ByteArray, FloatArray, Parsing
from schnet.photo_parser import PhotoParser
from schnet.trained import trained_config
from schnet.words import build_word_model, read_words

SegmentationModel = Callable[[Sequence[Mapping[str, Any]]], Sequence[Mapping[str, torch.Tensor]]]

GPU_BATCH = 8
"""Photos that are run together on a GPU. On a CPU, where one photo uses all cores, it is 1."""


class ArrayMapper(Protocol):
    """What a `Parser` needs of a mapper; `TestMapper` is one."""

    def from_array(self, image: ByteArray) -> dict[str, Any]:
        """Map an image (H, W, 3), uint8 RGB, to the model's input dict."""
        ...


class Parser(PhotoParser):
    """Parses photos with a model of torch; see `schnet.photo_parser.PhotoParser`."""

    def __init__(
        self,
        model: SegmentationModel,
        mapper: ArrayMapper,
        metadata: Metadata,
        *,
        score_model: nn.Module | None = None,
        batch_size: int = 1,
    ) -> None:
        """Take the parts.

        Args:
            model: maps a list of input dicts to a list of dicts with `labels` (H, W) or `sem_seg`
                (K, H, W), in evaluation mode.
            mapper: prepares an image for the model.
            metadata: the data set's, with `stuff_classes` and `stuff_colors`.
            score_model: what probabilities are made by: gives score maps, see
                `schnet.evaluation.wrapper.score_maps`; None has none.
            batch_size: photos that are run together.
        """
        super().__init__(metadata.stuff_classes, metadata.stuff_colors, batch_size)
        self._model = model
        self._mapper = mapper
        self._score_model = score_model

    @classmethod
    def load(
        cls,
        weights: str | os.PathLike[str],
        *,
        device: str = "auto",
        dtype: str = "auto",
        config_files: Sequence[str | os.PathLike[str]] = (),
        opts: Sequence[str] = (),
        classes: str | Sequence[str] | None = None,
        clip_weights: str | os.PathLike[str] | None = None,
        hold_f_sim: bool = True,
    ) -> Parser:
        """Load a trained model.

        Args:
            weights: a run's output folder, whose best checkpoint is taken, or else its newest; a
                checkpoint, with its `config.yaml` beside it; or a `.safetensors` file of
                `tools/export_weights.py`, which needs no other file.
            device: `auto` (CUDA, else Apple's MPS, else the CPU), or a name of torch.
            dtype: `auto` (bfloat16 where the device has units for it), `float32`, `bfloat16`.
            config_files: of a checkpoint, in place of the one beside it; later ones on top.
            opts: config overrides, alternating keys and values, such as TEST.AUG.ENABLED True.
            classes: names to parse by in place of the training labels, such as `["background",
                "hat=hat|cap", "left sleeve"]`; for a text classifier, see `schnet.words`.
            clip_weights: CLIP's file, where it lies elsewhere than in training; an export reads
                one for `classes` alone.
            hold_f_sim: with `classes`, see `schnet.words.build_word_model`.

        Raises:
            InputError: a file is missing or cannot be used, or the device is not there; or names
                are given that cannot be parsed by.
        """
        words = None if classes is None else read_words(classes)
        cfg = trained_config(
            weights,
            device,
            dtype,
            config_files=config_files,
            opts=opts,
            clip_weights=clip_weights,
        )
        if words is None:
            return cls.from_config(cfg)
        return cls._of_model(*build_word_model(cfg, words, hold_f_sim=hold_f_sim))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Parser:
        """Build the model, load `MODEL.WEIGHTS`, and take the names of `DATASETS.TEST[0]`.

        Images are parsed as in an evaluation: by TEST.PROTOCOL, AUG, SLIDING_WINDOW and DTYPE.

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
        return cls._of_model(cfg, build_trained_model(cfg))

    @classmethod
    def _of_model(cls, cfg: CfgNode, model: nn.Module) -> Parser:
        label_model = build_label_model(cfg, model).eval()
        return cls(
            label_model,
            TestMapper(cfg),
            MetadataCatalog.get(cfg.DATASETS.TEST[0]),
            score_model=label_model.model,
            batch_size=1 if cfg.MODEL.DEVICE == "cpu" else GPU_BATCH,
        )

    def parse_arrays(
        self, images: Sequence[ByteArray], probabilities: bool = False
    ) -> list[Parsing]:
        """See `PhotoParser.parse_arrays`."""
        if probabilities:
            # One by one: K planes of a photo's size are enough at a time.
            return [self._with_probabilities(image) for image in images]
        with torch.inference_mode():
            outputs = self._model([self._mapper.from_array(image) for image in images])
            found = [predicted_labels(output) for output in outputs]
        return [self._parsing(i, labels) for i, labels in zip(images, found, strict=True)]

    def _with_probabilities(self, image: ByteArray) -> Parsing:
        found = self.probabilities_of(image)
        if isinstance(self._model, WarpLabels):
            labels = self.parse_arrays([image])[0].labels
        else:
            labels = argmax_labels(torch.from_numpy(found))
        return self._parsing(image, labels, lambda: found)

    def probabilities_of(self, image: ByteArray) -> FloatArray:
        """Probabilities of one upright photo.

        Args:
            image: (H, W, 3), uint8, RGB.

        Returns:
            (K, H, W), fp32. Under TEST.PROTOCOL `warp_labels` these are the scores brought to the
            photo's size, and their argmax may differ from the label map at the parts' edges.

        Raises:
            InputError: the parser was built without a model of scores.
        """
        return self._probabilities(self._mapper.from_array(image))

    def _probabilities(self, entry: Mapping[str, Any]) -> FloatArray:
        if self._score_model is None:
            raise InputError("this parser's model gives labels only: there are no probabilities")
        with torch.inference_mode():
            (scores,) = score_maps(self._score_model, [entry])
            values = scores.whole()
            return (values if scores.normalized else values.softmax(dim=0)).cpu().numpy()

    def coarse_probabilities(self, image: ByteArray, max_side: int) -> FloatArray:
        """Probabilities of one upright photo, about as fine as the model predicts them.

        Args:
            image: (H, W, 3), uint8, RGB.
            max_side: of h and w at most, in pixels.

        Returns:
            (K, h, w), fp32, h and w a quarter of what the model sees, or less.

        Raises:
            InputError: the parser was built without a model of scores.
        """
        entry = self._mapper.from_array(image)
        height, width = entry["image"].shape[-2:]
        scale = min(1 / LOGIT_STRIDE, max_side / max(height, width))
        height, width = (max(1, round(side * scale)) for side in (height, width))
        return self._probabilities({**entry, "height": height, "width": width})

    def _parsing(
        self, image: ByteArray, labels: ByteArray, scores: Callable[[], FloatArray] | None = None
    ) -> Parsing:
        again = partial(self.probabilities_of, image)
        return Parsing(labels, self.classes, self.palette, image, scores or again)
