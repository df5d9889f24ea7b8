"""The frozen CLIP: image features for SRM, text features of the part names, or a backbone alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from clip.model import CLIP, ModifiedResNet
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import nn

from schnet.checkpoint import read_state_dict
from schnet.fingerprints import BaseSource, fingerprint
from schnet.modeling.clip_fast import FastResNetTower
from schnet.modeling.clip_text import encode_prompts
from schnet.modeling.clip_vision import ResNetTower, StageMaps, TransformerTower
from schnet.modeling.context import is_exported
from schnet.modeling.frozen import FreezableModule, fixed_initialisation, load_base
from schnet.modeling.resample import SMOOTH_CUBIC, resample

# CLIP's own normalisation, RGB 0..1 (clip.py of the package, _transform).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# Sides are rounded to this, or to the patch size of a tower that it is no multiple of.
SIDE_MULTIPLE = 32


@dataclass(frozen=True)
class ClipVariant:
    """Arguments of the `clip` package's CLIP class for one of its models, named as there."""

    embed_dim: int
    image_resolution: int
    vision_layers: int | tuple[int, int, int, int]
    vision_width: int
    vision_patch_size: int
    transformer_width: int
    transformer_layers: int = 12
    context_length: int = 77
    vocab_size: int = 49408

    def build(self) -> CLIP:
        """A CLIP model of this size with random weights."""
        arguments = dict(vars(self))
        arguments["transformer_heads"] = max(1, self.transformer_width // 64)
        return CLIP(**arguments)


CLIP_VARIANTS = {
    "RN50": ClipVariant(1024, 224, (3, 4, 6, 3), 64, 32, 512),
    "RN101": ClipVariant(512, 224, (3, 4, 23, 3), 64, 32, 512),
    "RN50x4": ClipVariant(640, 288, (4, 6, 10, 6), 80, 32, 640),
    "ViT-B/32": ClipVariant(512, 224, 12, 768, 32, 512),
    "ViT-B/16": ClipVariant(512, 224, 12, 768, 16, 512),
    "ViT-L/14": ClipVariant(768, 224, 24, 1024, 14, 768),
    # Ours, for two CPU cores and for tests.
    "tiny": ClipVariant(64, 224, (1, 1, 1, 1), 16, 32, 64, transformer_layers=2),
}


@dataclass(frozen=True)
class ClipFeatures:
    """What CLIP says of a batch of images.

    Attributes:
        maps: f_cv 1..4, the stage maps, each (B, D_i, h_i, w_i).
        cls: f_cls, the pooled class embedding, (B, E).
    """

    maps: StageMaps
    cls: torch.Tensor


class ClipEncoder(FreezableModule):
    """CLIP's image tower and the text features of one label list, frozen."""

    text_features: torch.Tensor
    logit_scale: torch.Tensor
    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    def __init__(
        self,
        *,
        tower: ResNetTower | TransformerTower,
        text_features: torch.Tensor,
        logit_scale: torch.Tensor,
        input_scale: float,
        source: BaseSource | None = None,
    ) -> None:
        """Take the parts.

        Args:
            tower: the image tower.
            text_features: f_txt, (K, E), unit length.
            logit_scale: CLIP's scale of cosines, after its exponential.
            input_scale: side of CLIP's input relative to the image's.
            source: the file that all of them came from, or None.
        """
        super().__init__()
        self.source = source
        self.derived = ("text_features", "logit_scale") if len(text_features) else ()
        self.tower = tower
        self.input_scale = input_scale
        # Not in the state: they follow from the CLIP file and the label list.
        self.register_buffer("text_features", text_features, persistent=False)
        self.register_buffer("logit_scale", logit_scale, persistent=False)
        mean = 255 * torch.tensor(CLIP_MEAN).view(3, 1, 1)
        std = 255 * torch.tensor(CLIP_STD).view(3, 1, 1)
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)
        self.freeze()

    @property
    def map_channels(self) -> tuple[int, int, int, int]:
        """Channels of f_cv 1..4."""
        return self.tower.map_channels

    @property
    def embed_dim(self) -> int:
        """E, width of f_cls and f_txt."""
        return self.text_features.shape[1]

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> ClipFeatures:
        """Encode images, without a graph.

        Args:
            images: RGB, 0..255, shape (B, 3, H, W), any size; resized and normalised here.
        """
        resized = resize_for_clip(images, self.input_scale, self.tower.stride)
        return self.encode((resized - self.pixel_mean) / self.pixel_std)

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> ClipFeatures:
        """Encode images that are resized and normalised already, without a graph."""
        maps, cls = self.tower(images)
        return ClipFeatures(maps=maps, cls=cls)


def resize_for_clip(images: torch.Tensor, scale: float, stride: int) -> torch.Tensor:
    """Resize images (B, 3, H, W) by a factor, each side rounded to a multiple CLIP can take.

    Height and width are rounded apart, at least one multiple each.
    """
    multiple = SIDE_MULTIPLE if SIDE_MULTIPLE % stride == 0 else stride
    if is_exported():
        rows, columns = (_exported_side(side, scale, multiple) for side in images.shape[-2:])
        return resample(images, (rows, columns), SMOOTH_CUBIC)
    height, width = (
        multiple * max(1, int(side * scale / multiple + 0.5)) for side in images.shape[-2:]
    )
    if (height, width) == tuple(images.shape[-2:]):
        return images
    return F.interpolate(
        images, size=(height, width), mode="bicubic", align_corners=False, antialias=True
    )


def _exported_side(side: int, scale: float, multiple: int) -> int:
    """As in `resize_for_clip`, in whole numbers, which stay symbolic where the side is."""
    up, down = (scale / multiple).as_integer_ratio()
    times = (2 * side * up + down) // (2 * down)
    return multiple * (times + 1 // (times + 1))  # 1 instead of 0


def build_tower(visual: nn.Module, *, fast: bool = False) -> ResNetTower | TransformerTower:
    """Wrap an image tower of the `clip` package, whichever of its two kinds it is.

    Args:
        visual: the tower, with weights.
        fast: run a residual network by weights derived for inference; transformers have none.
    """
    if isinstance(visual, ModifiedResNet):
        return FastResNetTower(visual) if fast else ResNetTower(visual)
    return TransformerTower(visual)


def build_clip_model(variant: str, weights: str) -> CLIP:
    """Build a CLIP model of the `clip` package, in fp32 and eval mode, and give it its weights.

    Args:
        variant: a key of `CLIP_VARIANTS`.
        weights: path, URL or official name of CLIP's weights, or `random`.

    Raises:
        InputError: the weights are not to be had, or are not this variant's.
    """
    with fixed_initialisation():
        model = CLIP_VARIANTS[variant].build()
        _open_residual_branches(model)
    if weights != "random":
        state = read_state_dict(weights, "MODEL.CLIP.WEIGHTS")
        # The official archives carry these three numbers beside the weights.
        for number in ("input_resolution", "context_length", "vocab_size"):
            state.pop(number, None)
        expected = model.state_dict()
        # BatchNorm's step counter is in no old file and in no computation.
        state.update({k: v for k, v in expected.items() if k.endswith("num_batches_tracked")})
        load_base(
            model,
            state,
            key="MODEL.CLIP.WEIGHTS",
            weights=weights,
            kind=f"CLIP {variant}",
            found=recognise_clip(state),
        )
    return model.float().eval()


def recognise_clip(state: dict[str, torch.Tensor]) -> str:
    """Which of CLIP's models a state dict seems to be of, by its image tower.

    Returns:
        Such as `CLIP RN101`; its sizes where it is none of ours; "" where it is no CLIP model.
    """
    is_resnet = "visual.attnpool.positional_embedding" in state
    prefix = "visual.attnpool." if is_resnet else "visual."
    first = state.get("visual.layer1.0.conv1.weight" if is_resnet else "visual.conv1.weight")
    positions = state.get(f"{prefix}positional_embedding")
    if first is None or positions is None or first.ndim != 4:
        return ""
    stride = 32 if is_resnet else first.shape[-1]
    layers: int | tuple[int, ...] = _count_numbers(state, "visual.transformer.resblocks.")
    if is_resnet:
        layers = tuple(_count_numbers(state, f"visual.layer{i}.") for i in (1, 2, 3, 4))
    side = stride * round((positions.shape[0] - 1) ** 0.5)
    for name, variant in CLIP_VARIANTS.items():
        sizes = (variant.vision_layers, variant.vision_width, variant.image_resolution)
        if (layers, first.shape[0], side) == sizes and stride == variant.vision_patch_size:
            return f"CLIP {name}"
    kind = "residual network" if is_resnet else f"transformer with patches of {stride}"
    return f"a CLIP {kind}, width {first.shape[0]}, layers {layers}, for images of {side}"


def _count_numbers(state: dict[str, torch.Tensor], prefix: str) -> int:
    """How many different numbers follow a prefix of names."""
    return len({n.removeprefix(prefix).split(".")[0] for n in state if n.startswith(prefix)})


def clip_source(model: CLIP, variant: str, weights: str) -> BaseSource | None:
    """Where a model of `build_clip_model` came from, text tower included; None for `random`."""
    if weights == "random":
        return None
    return BaseSource(
        "MODEL.CLIP.WEIGHTS", weights, f"CLIP {variant}", fingerprint(model.state_dict())
    )


def _open_residual_branches(model: CLIP) -> None:
    # The package starts each residual branch of a ResNet at zero, for training; a random tower
    # that stays frozen would then be four linear layers.
    for name, parameter in model.visual.named_parameters():
        if name.endswith("bn3.weight"):
            nn.init.ones_(parameter)


def build_clip_encoder(cfg: CfgNode, prompts: Sequence[Sequence[str]]) -> ClipEncoder:
    """Build the frozen CLIP of a config for one label list; its text tower is dropped again.

    Args:
        cfg: reads MODEL.CLIP.
        prompts: for each part one or more phrases.
    """
    node = cfg.MODEL.CLIP
    model = build_clip_model(node.VARIANT, node.WEIGHTS)
    return ClipEncoder(
        tower=build_tower(model.visual, fast=node.FAST),
        text_features=encode_prompts(model, prompts, node.PROMPT_TEMPLATES),
        logit_scale=model.logit_scale.detach().exp(),
        input_scale=node.INPUT_SCALE,
        source=clip_source(model, node.VARIANT, node.WEIGHTS),
    )


@BACKBONE_REGISTRY.register()
class ClipBackbone(Backbone):
    """CLIP's four stage maps as a backbone of its own: Figure 1's CLIP-only baseline."""

    @configurable
    def __init__(
        self,
        *,
        tower: ResNetTower | TransformerTower,
        input_scale: float,
        source: BaseSource | None = None,
    ) -> None:
        """Take the parts.

        Args:
            tower: the image tower; frozen here.
            input_scale: side of CLIP's input relative to the image's.
            source: the file that the tower came from, or None.
        """
        super().__init__()
        text = torch.zeros(0, 0)
        self.clip = ClipEncoder(
            tower=tower,
            text_features=text,
            logit_scale=torch.ones(()),
            input_scale=input_scale,
            source=source,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec | None = None) -> dict[str, Any]:
        """Build the image tower from MODEL.CLIP."""
        node = cfg.MODEL.CLIP
        model = build_clip_model(node.VARIANT, node.WEIGHTS)
        return {
            "tower": build_tower(model.visual, fast=node.FAST),
            "input_scale": node.INPUT_SCALE,
            "source": clip_source(model, node.VARIANT, node.WEIGHTS),
        }

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride, relative to CLIP's input, of the four maps."""
        is_resnet = isinstance(self.clip.tower, ResNetTower)
        strides = (4, 8, 16, 32) if is_resnet else (self.clip.tower.stride,) * 4
        return {
            f"res{i + 2}": ShapeSpec(channels=channels, stride=stride)
            for i, (channels, stride) in enumerate(
                zip(self.clip.map_channels, strides, strict=True)
            )
        }

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images normalised with MODEL.PIXEL_MEAN and PIXEL_STD, which must be CLIP's, to maps.

        Args:
            images: shape (B, 3, H, W).

        Returns:
            `res2`..`res5`: f_cv 1..4.
        """
        resized = resize_for_clip(images, self.clip.input_scale, self.clip.tower.stride)
        maps = self.clip.encode(resized).maps
        return {f"res{i + 2}": stage_map for i, stage_map in enumerate(maps)}
