"""SCHNet: images in, label logits out; SAM, CLIP and the head put together (Figure 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    Backbone,
    build_backbone,
)
from torch import nn

from schnet.errors import InputError
from schnet.modeling.clip import ClipEncoder, build_clip_encoder
from schnet.modeling.head import SRMHead
from schnet.modeling.sam import pad_to_multiple
from schnet.score_maps import HeldScores, ScoreMap, cropped, resized

SIDE_MULTIPLE = 16
LOGIT_STRIDE = 4


@META_ARCH_REGISTRY.register()
class SCHNet(nn.Module):
    """SAM marries CLIP: frozen SAM tuned by FTM, strengthened at five points by SRM, a head."""

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        clip: ClipEncoder | None,
        sem_seg_head: SRMHead,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
    ) -> None:
        """Take the parts.

        Args:
            backbone: SamBackbone, or another backbone for a baseline.
            clip: the frozen CLIP of the label list, or None where neither SRM nor the text
                classifier is on.
            sem_seg_head: SRM, decoder, classifier and losses.
            pixel_mean: mean of the backbone's normalisation, RGB, 0..255.
            pixel_std: standard deviation, likewise.
        """
        super().__init__()
        self.backbone = backbone
        self.clip = clip
        self.sem_seg_head = sem_seg_head
        mean = torch.tensor(pixel_mean).view(3, 1, 1)
        self.register_buffer("pixel_mean", mean, persistent=False)
        std = torch.tensor(pixel_std).view(3, 1, 1)
        self.register_buffer("pixel_std", std, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Build the parts; the part prompts and class frequencies come from the metadata.

        Raises:
            InputError: the data set is not registered, or weights are not to be had.
        """
        metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
        backbone = build_backbone(cfg)
        clip = None
        if cfg.MODEL.SRM.ENABLED or cfg.MODEL.SEM_SEG_HEAD.CLASSIFIER == "text":
            prompts = metadata.get("prompts", None)
            if prompts is None:
                raise InputError(
                    f"data set {cfg.DATASETS.TRAIN[0]!r} has no prompts for CLIP: register it "
                    "with schnet.data.register_datasets, or correct DATASETS.TRAIN"
                )
            clip = build_clip_encoder(cfg, prompts)
        head = SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.SEM_SEG_HEAD.NAME)(
            cfg,
            backbone.output_shape(),
            clip_channels=clip.map_channels if clip else (),
            embed_dim=clip.embed_dim if clip else 0,
            class_frequencies=metadata.get("class_frequencies", None),
        )
        return {
            "backbone": backbone,
            "clip": clip,
            "sem_seg_head": head,
            "pixel_mean": tuple(cfg.MODEL.PIXEL_MEAN),
            "pixel_std": tuple(cfg.MODEL.PIXEL_STD),
        }

    @property
    def device(self) -> torch.device:
        """Device of the model's parameters."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Train on, or parse, a batch.

        Images of different sizes are run apart, so that none sees another's padding.

        Args:
            batched_inputs: one dict an image: `image` (3, H, W), RGB, 0..255; in training
                `sem_seg` (H, W), of any integer type; otherwise `height` and `width` of the result
                in pixels, the image's own where they are missing.

        Returns:
            In training the losses, fp32 scalars by name. Otherwise one dict an image, in order,
            with `sem_seg`: logits (K, height, width), fp32. Where only the labels are wanted, or
            the result is large: `score_maps`.
        """
        if self.training:
            return self.losses(batched_inputs)
        return [{"sem_seg": scores.whole()} for scores in self.score_maps(batched_inputs)]

    def score_maps(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[ScoreMap]:
        """Parse a batch without making logits of a photo's size; in the model's mode.

        Args:
            batched_inputs: one dict an image, as `forward` takes them for parsing.

        Returns:
            One map an image, in order: logits (K, height, width), fp32, which are held at stride 4
            and brought to the size of the input and of the result band by band.
        """
        found: dict[int, ScoreMap] = {}
        for members in _of_one_size(batched_inputs):
            part = [batched_inputs[number] for number in members]
            for number, entry, own in zip(
                members, part, self.predict(self._stack(part)), strict=True
            ):
                found[number] = _at_result_size(own, entry)
        return [found[number] for number in range(len(batched_inputs))]

    def losses(self, batched_inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Losses of a batch in the model's mode, whichever it is: evaluation mode validates.

        Args:
            batched_inputs: one dict an image, at least one: `image` and `sem_seg` as `forward`
                takes them in training.

        Returns:
            The losses, fp32 scalars by name, each the mean over the images.
        """
        losses: dict[str, torch.Tensor] = {}
        for members in _of_one_size(batched_inputs):
            part = [batched_inputs[number] for number in members]
            labels = torch.stack([entry["sem_seg"].to(self.device) for entry in part]).long()
            images = self._stack(part)
            given = self.sem_seg_head.loss(self.predict(images), labels, _padded_size(images))
            for name, value in given.items():
                losses[name] = losses.get(name, 0) + value * (len(part) / len(batched_inputs))
        return losses

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of images of one size.

        Args:
            images: RGB, 0..255, shape (B, 3, H, W), floating type, any H and W.

        Returns:
            Shape (B, K, ceil(H/16)*4, ceil(W/16)*4): stride 4 of the padded images.
        """
        # Padding after normalisation is padding with the mean before it; done once here, SAM,
        # CLIP and the stem look at the same picture and stay aligned.
        x = pad_to_multiple(images - self.pixel_mean, SIDE_MULTIPLE)
        padded, x = x + self.pixel_mean, x / self.pixel_std
        if self.clip is None or self.sem_seg_head.srm is None:
            features = self.backbone(x)
        else:
            seen = self.clip(padded)
            refine = self.sem_seg_head.refiner(
                seen.maps, seen.cls, self.clip.text_features, self.clip.logit_scale
            )
            features = self.backbone(x, refine)
        text = None if self.clip is None else self.clip.text_features
        return self.sem_seg_head(features, x, text)

    def _stack(self, part: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        return torch.stack([entry["image"].to(self.device) for entry in part]).float()


def _at_result_size(logits: torch.Tensor, entry: Mapping[str, Any]) -> ScoreMap:
    """Bring logits (K, h, w) of a padded image to the image's size, and then to the result's."""
    height, width = entry["image"].shape[-2:]
    padded = (LOGIT_STRIDE * logits.shape[-2], LOGIT_STRIDE * logits.shape[-1])
    own = cropped(resized(HeldScores(logits.float()), padded), 0, 0, (height, width))
    return resized(own, (entry.get("height", height), entry.get("width", width)))


def _padded_size(images: torch.Tensor) -> tuple[int, int]:
    """Height and width of a batch of images after the padding of `SCHNet.predict`."""
    height, width = (-(-side // SIDE_MULTIPLE) * SIDE_MULTIPLE for side in images.shape[-2:])
    return height, width


def _of_one_size(batched_inputs: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Group the positions of a batch's images by the images' sizes, in order."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, entry in enumerate(batched_inputs):
        groups.setdefault(tuple(entry["image"].shape), []).append(number)
    return list(groups.values())
