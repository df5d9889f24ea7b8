"""SRMHead: SRM at five points of SAM, and from their maps to logits at stride 4."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn

from schnet.modeling.context import without_autocast
from schnet.modeling.decoder import BoundaryDecoder
from schnet.modeling.losses import SegmentationLoss
from schnet.modeling.srm import SRM, SimModule

INITIAL_COSINE_SCALE = 1 / 0.07
MAX_COSINE_SCALE = 100.0


class LinearClassifier(nn.Module):
    """A 1x1 convolution to one channel a class."""

    def __init__(self, dim: int, num_classes: int) -> None:
        """Take the features' channels and the number of classes."""
        super().__init__()
        self.predict = nn.Conv2d(dim, num_classes, kernel_size=1)

    def forward(self, features: torch.Tensor, text: torch.Tensor | None) -> torch.Tensor:
        """Features (B, D, h, w) to logits (B, K, h, w); the text features are not used."""
        return self.predict(features)


class TextClassifier(nn.Module):
    """Cosine to CLIP's text features times a learned scale: any label list, the same weights."""

    def __init__(self, dim: int, embed_dim: int) -> None:
        """Take the features' channels and the width of CLIP's embeddings."""
        super().__init__()
        self.project = nn.Conv2d(dim, embed_dim, kernel_size=1)
        self.log_scale = nn.Parameter(torch.tensor(math.log(INITIAL_COSINE_SCALE)))

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the optimizer must not shrink."""
        return {"log_scale"}

    def forward(self, features: torch.Tensor, text: torch.Tensor | None) -> torch.Tensor:
        """Features (B, D, h, w) and text features (K, E) to logits (B, K, h, w), in fp32."""
        if text is None:
            raise ValueError("the text classifier needs CLIP's text features")
        embeddings = self.project(features)
        with without_autocast(features.device.type):
            unit = F.normalize(embeddings.float(), dim=1)
            scale = self.log_scale.exp().clamp(max=MAX_COSINE_SCALE)
            return scale * torch.einsum("behw,ke->bkhw", unit, text.float())


@SEM_SEG_HEADS_REGISTRY.register()
class SRMHead(nn.Module):
    """Everything between CLIP's and SAM's features and the logits."""

    @configurable
    def __init__(
        self,
        *,
        srm: Sequence[SRM] | None,
        clip_stages: Sequence[int],
        feedback: bool,
        decoder: BoundaryDecoder,
        classifier: LinearClassifier | TextClassifier,
        loss: SegmentationLoss,
    ) -> None:
        """Take the parts.

        Args:
            srm: one SRM for each of SAM's five points, or None to leave SAM's maps as they are.
            clip_stages: the CLIP stage (1..4) of each point.
            feedback: whether strengthened maps go on into SAM, or only to the decoder.
            decoder: from maps and image to features at stride 4.
            classifier: from those features to logits.
            loss: the losses of a batch of logits at the images' resolution.
        """
        super().__init__()
        self.similarity = SimModule()
        self.srm = None if srm is None else nn.ModuleList(srm)
        self.clip_stages = tuple(clip_stages)
        self.feedback = feedback
        self.decoder = decoder
        self.classifier = classifier
        self.loss = loss

    @classmethod
    def from_config(
        cls,
        cfg: CfgNode,
        input_shape: dict[str, ShapeSpec],
        clip_channels: Sequence[int] = (),
        embed_dim: int = 0,
        class_frequencies: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        """Build the parts from MODEL.SEM_SEG_HEAD, MODEL.SRM and MODEL.LOSS.

        Args:
            cfg: the config.
            input_shape: the backbone's maps.
            clip_channels: channels of CLIP's four maps; SRM needs them.
            embed_dim: width of CLIP's embeddings; SRM and the text classifier need it.
            class_frequencies: shares of the training pixels, for the loss's class weights; a model
                that is not trained does without.
        """
        head, srm = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.SRM
        shapes = [input_shape[name] for name in head.IN_FEATURES]
        modules = None
        if srm.ENABLED:
            modules = [
                SRM(
                    dim=shape.channels,
                    clip_dim=clip_channels[stage - 1],
                    embed_dim=embed_dim,
                    bottleneck_dim=max(1, int(shape.channels * srm.BOTTLENECK_RATIO)),
                )
                for shape, stage in zip(shapes, srm.CLIP_STAGES, strict=True)
            ]
        decoder = BoundaryDecoder(
            in_features=tuple(head.IN_FEATURES),
            in_channels=[shape.channels for shape in shapes],
            fuse_dim=head.FUSE_DIM,
            fuse_blocks=head.FUSE_BLOCKS,
            stem_dims=head.STEM_DIMS,
            stem_blocks=head.STEM_BLOCKS,
        )
        return {
            "srm": modules,
            "clip_stages": srm.CLIP_STAGES,
            "feedback": srm.FEEDBACK,
            "decoder": decoder,
            "classifier": (
                TextClassifier(decoder.out_channels, embed_dim)
                if head.CLASSIFIER == "text"
                else LinearClassifier(decoder.out_channels, head.NUM_CLASSES)
            ),
            "loss": SegmentationLoss(cfg, class_frequencies=class_frequencies),
        }

    def refiner(
        self,
        clip_maps: Sequence[torch.Tensor],
        clip_cls: torch.Tensor,
        text: torch.Tensor,
        logit_scale: torch.Tensor,
    ) -> Callable[[int, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        """What SAM's stage loop calls at each of its five points, over one batch's CLIP features.

        Args:
            clip_maps: f_cv 1..4, each (B, D_i, h_i, w_i).
            clip_cls: f_cls, (B, E).
            text: f_txt, (K, E).
            logit_scale: CLIP's scale of cosines.

        Returns:
            A function of (point, f_sv (B, h, w, C)) that returns what goes on into the next stage
            and what the head sees.
        """
        if self.srm is None:
            raise ValueError("SRM is switched off: there is nothing to refine with")
        modules, sim = self.srm, self.similarity(clip_cls, text, logit_scale)

        def refine(point: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            strengthened = modules[point](x, clip_maps[self.clip_stages[point] - 1], sim)
            return (strengthened if self.feedback else x), strengthened

        return refine

    def forward(
        self,
        features: dict[str, torch.Tensor],
        images: torch.Tensor,
        text: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Predict logits at stride 4.

        Args:
            features: the backbone's maps, strengthened already, each (B, C, h, w).
            images: normalised and padded to multiples of 16, shape (B, 3, H, W).
            text: f_txt, (K, E), for the text classifier.

        Returns:
            Shape (B, K, H/4, W/4).
        """
        return self.classifier(self.decoder(features, images), text)
