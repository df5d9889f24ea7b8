"""SamBackbone: SAM's stages with FTM after every layer, and the one place where CLIP comes in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch.utils.checkpoint import checkpoint

from schnet.modeling.ftm import FTM
from schnet.modeling.sam_encoder import (
    PATCH_SIZE,
    SAM_VARIANTS,
    SamEncoder,
    SamVariant,
    build_sam_encoder,
)

Refine = Callable[[int, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(point 0..4, tokens (B, h, w, C)) to (what goes on into the next stage, what the head sees)."""


def pad_to_multiple(images: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pad the right and the bottom of images (..., H, W) with zeros to multiples of a length."""
    height, width = images.shape[-2:]
    pad_h, pad_w = -height % multiple, -width % multiple
    return F.pad(images, (0, pad_w, 0, pad_h)) if pad_h or pad_w else images


@BACKBONE_REGISTRY.register()
class SamBackbone(Backbone):
    """SAM's image encoder, tuned by FTM, seen at five points (Figure 2: f_sv 0..4).

    `stage0` is the patch embedding with positions; `stage1`..`stage4` end at SAM's layers of
    global attention. All are maps at stride 16. It works alone; with `refine` it is SCHNet's.
    Without a graph a layer's tokens within a stage are written over by the next layer's: a hook
    that keeps them must clone them.
    """

    @configurable
    def __init__(
        self,
        *,
        encoder: SamEncoder,
        ftm: FTM | None,
        variant: SamVariant,
        activation_checkpointing: bool = False,
        recomputed: str = "layer",
    ) -> None:
        """Take the parts.

        Args:
            encoder: SAM's layers, with weights, frozen or not.
            ftm: the adapters, or None for plain SAM.
            variant: the encoder's size.
            activation_checkpointing: run parts of the layers again in the backward pass of
                training instead of keeping their activations.
            recomputed: which parts: `layer`, all of a layer, whose input alone is kept; `mlp`, its
                MLP.
        """
        super().__init__()
        self.encoder = encoder
        self.ftm = ftm
        self.activation_checkpointing = activation_checkpointing
        self.recomputed = recomputed
        ends = [layer + 1 for layer in variant.global_layers]
        starts = [0, *ends[:-1]]
        self.stages = ((), *(tuple(range(a, b)) for a, b in zip(starts, ends, strict=True)))
        self._dim = variant.dim

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec | None = None) -> dict[str, Any]:
        """Build encoder and adapters from MODEL.SAM and MODEL.FTM."""
        sam, ftm = cfg.MODEL.SAM, cfg.MODEL.FTM
        variant = SAM_VARIANTS[sam.VARIANT]
        encoder = build_sam_encoder(
            sam.VARIANT, sam.WEIGHTS, lr_factor=sam.LR_FACTOR, fast=sam.FAST
        )
        if sam.FREEZE:
            encoder.freeze()
        adapters = None
        if ftm.ENABLED:
            adapters = FTM(
                num_layers=variant.depth,
                dim=variant.dim,
                num_tokens=ftm.NUM_TOKENS,
                hidden_dim=ftm.HIDDEN_DIM,
                rho_init=ftm.RHO_INIT,
            )
        return {
            "encoder": encoder,
            "ftm": adapters,
            "variant": variant,
            "activation_checkpointing": sam.ACTIVATION_CHECKPOINTING,
            "recomputed": sam.RECOMPUTED,
        }

    @property
    def size_divisibility(self) -> int:
        """Sides are padded to multiples of this."""
        return PATCH_SIZE

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each of the five maps."""
        spec = ShapeSpec(channels=self._dim, stride=PATCH_SIZE)
        return {f"stage{i}": spec for i in range(len(self.stages))}

    def forward(
        self, images: torch.Tensor, refine: Refine | None = None
    ) -> dict[str, torch.Tensor]:
        """Run the stages.

        Args:
            images: normalised RGB, shape (B, 3, H, W); sides that are no multiples of 16 are
                padded with zeros.
            refine: what strengthens the map at each point; None leaves SAM's maps as they are.

        Returns:
            `stage0`..`stage4`, each (B, C, ceil(H/16), ceil(W/16)).
        """
        x = self.encoder.embed(pad_to_multiple(images, PATCH_SIZE))
        recomputed = self.recomputed if self.activation_checkpointing and self.training else None
        self.encoder.keep_casts(recomputed != "layer")
        self.encoder.recompute_mlps(recomputed == "mlp")
        maps = {}
        for stage, layers in enumerate(self.stages):
            for layer in layers:
                if recomputed == "layer":
                    # SRM stays outside: its maps are kept for the head in any case.
                    x = checkpoint(self._tuned_layer, layer, x, use_reentrant=False)
                else:
                    # What a stage starts from is a map that the caller gets.
                    x = self._tuned_layer(layer, x, overwrite=layer != layers[0])
            seen = x
            if refine is not None:
                x, seen = refine(stage, x)
            maps[f"stage{stage}"] = seen.permute(0, 3, 1, 2)
        return maps

    def _tuned_layer(self, layer: int, x: torch.Tensor, overwrite: bool = False) -> torch.Tensor:
        """One of SAM's layers and its FTM: tokens (B, h, w, C) to the next layer's."""
        x = self.encoder.layer(layer, x, overwrite=overwrite)
        return x if self.ftm is None else self.ftm(layer, x)
