"""The model of a config without its memory: fake tensors that have shapes and no values."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import torch
from detectron2.config import CfgNode
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY, build_backbone
from torch._subclasses.fake_tensor import FakeTensorMode

from schnet.errors import InputError
from schnet.modeling.clip import CLIP_VARIANTS, ClipEncoder, build_tower
from schnet.modeling.frozen import count_parameters
from schnet.modeling.meta_arch import SCHNet


@dataclass(frozen=True)
class PlannedModel:
    """A model of fake tensors, in training mode.

    Attributes:
        model: as a training run would build it, its text features without values.
        mode: the fake mode that its tensors belong to; computations with it run inside.
        num_classes: K, its labels.
        trained: elements of the parameters that train.
        frozen: elements of those that do not.
    """

    model: SCHNet
    mode: FakeTensorMode
    num_classes: int
    trained: int
    frozen: int

    @property
    def weight_bytes(self) -> int:
        """Bytes of all parameters and buffers."""
        tensors = chain(self.model.parameters(), self.model.buffers())
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @property
    def trained_bytes(self) -> int:
        """Bytes of the trained parameters, and so of their gradients."""
        return sum(p.numel() * p.element_size() for p in self.model.parameters() if p.requires_grad)


def build_planned_model(cfg: CfgNode) -> PlannedModel:
    """Build a config's model without weight files, memory or a GPU; ViT-H takes a second.

    Args:
        cfg: reads MODEL; DATASETS and their metadata are not looked at.

    Raises:
        InputError: the backbone is not SAM's.
    """
    if cfg.MODEL.BACKBONE.NAME != "SamBackbone":
        raise InputError(
            f"config key MODEL.BACKBONE.NAME is {cfg.MODEL.BACKBONE.NAME!r}: only SamBackbone can "
            "be planned"
        )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.SAM.WEIGHTS = "random"
    mode = FakeTensorMode()
    with mode:
        backbone = build_backbone(cfg)
        needs_clip = cfg.MODEL.SRM.ENABLED or cfg.MODEL.SEM_SEG_HEAD.CLASSIFIER == "text"
        clip = _build_clip(cfg) if needs_clip else None
        head = SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.SEM_SEG_HEAD.NAME)(
            cfg,
            backbone.output_shape(),
            clip_channels=clip.map_channels if clip else (),
            embed_dim=clip.embed_dim if clip else 0,
        )
        model = SCHNet(
            backbone=backbone,
            clip=clip,
            sem_seg_head=head,
            pixel_mean=tuple(cfg.MODEL.PIXEL_MEAN),
            pixel_std=tuple(cfg.MODEL.PIXEL_STD),
        )
    trained, frozen = count_parameters(model)
    classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    return PlannedModel(model.train(), mode, classes, trained, frozen)


def _build_clip(cfg: CfgNode) -> ClipEncoder:
    # Not build_clip_encoder: encoding the prompts looks at values, which fake tensors have none of.
    variant = CLIP_VARIANTS[cfg.MODEL.CLIP.VARIANT]
    return ClipEncoder(
        tower=build_tower(variant.build().visual),
        text_features=torch.empty(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, variant.embed_dim),
        logit_scale=torch.empty(()),
        input_scale=cfg.MODEL.CLIP.INPUT_SCALE,
    )
