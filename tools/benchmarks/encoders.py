"""SAM's encoder from segment_anything and from us, with the same random weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from benchmarks.options import Shape
from segment_anything.modeling import ImageEncoderViT
from torch import nn

from schnet.modeling.ftm import FTM
from schnet.modeling.sam import SamBackbone
from schnet.modeling.sam_encoder import PATCH_SIZE, SAM_VARIANTS, SamEncoder, SamVariant

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# segment_anything starts all positions at zero, where leaving them out would not be noticed.
# About the spread that gives attention scores of the order of one.
_POSITION_SCALE = 0.2
_SEED = 0
SMALLEST = Shape(PATCH_SIZE * 2, PATCH_SIZE * 2)


class ReferenceEncoder(nn.Module):
    """segment_anything's encoder without its neck, at any size."""

    def __init__(self, variant: SamVariant) -> None:
        """Build it with random weights, positions included."""
        super().__init__()
        self.encoder = ImageEncoderViT(
            img_size=variant.image_size,
            embed_dim=variant.dim,
            depth=variant.depth,
            num_heads=variant.num_heads,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=variant.window_size,
            global_attn_indexes=variant.global_layers,
        )
        self.encoder.neck = nn.Identity()
        for name, parameter in self.encoder.named_parameters():
            if "rel_pos" in name or name == "pos_embed":
                nn.init.normal_(parameter, std=_POSITION_SCALE)
        self._positions: dict[tuple[int, int], torch.Tensor] = {}

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Turn normalised images (B, 3, H, W) into tokens (B, H/16, W/16, C) with positions."""
        tokens = self.encoder.patch_embed(images)
        return tokens + self._resized_positions((tokens.shape[1], tokens.shape[2]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (B, 3, H, W) to tokens (B, H/16, W/16, C)."""
        tokens = self.embed(images)
        for block in self.encoder.blocks:
            tokens = block(tokens)
        return tokens

    def _resized_positions(self, grid: tuple[int, int]) -> torch.Tensor:
        # Frozen, and so resized once: in the reference's favour. Full fine-tuning trains them.
        table = self.encoder.pos_embed
        if table.requires_grad:
            return _resize(table, grid)
        known = self._positions.get(grid)
        if known is None or known.dtype != table.dtype:
            known = self._positions[grid] = _resize(table, grid)
        return known


@dataclass(frozen=True)
class EncoderPair:
    """The two encoders with the same weights, frozen.

    Attributes:
        reference: segment_anything's.
        ours: ours, without adapters.
        variant: their size.
    """

    reference: ReferenceEncoder
    ours: SamBackbone
    variant: SamVariant


def build_reference(variant: SamVariant) -> ReferenceEncoder:
    """Build segment_anything's encoder, frozen, always with the same weights."""
    with _seeded():
        reference = ReferenceEncoder(variant)
    return reference.requires_grad_(False).eval()


def build_pair(name: str) -> EncoderPair:
    """Build both encoders; the name is a key of `SAM_VARIANTS`."""
    variant = SAM_VARIANTS[name]
    reference = build_reference(variant)
    return EncoderPair(reference, build_ours(reference, variant), variant)


def build_ours(
    reference: ReferenceEncoder,
    variant: SamVariant,
    *,
    fast: bool = True,
    ftm: FTM | None = None,
    recomputed: str | None = None,
) -> SamBackbone:
    """Build our backbone, frozen, with the reference's weights.

    Args:
        reference: whose weights it takes.
        variant: its size.
        fast: as MODEL.SAM.FAST.
        ftm: adapters, or None.
        recomputed: what activation checkpointing recomputes, as MODEL.SAM.RECOMPUTED, or None.
    """
    encoder = SamEncoder(variant, fast=fast)
    encoder.load_state_dict(reference.encoder.state_dict())
    encoder.freeze()
    backbone = SamBackbone(
        encoder=encoder,
        ftm=ftm,
        variant=variant,
        activation_checkpointing=recomputed is not None,
        recomputed=recomputed or "layer",
    )
    return backbone.eval()


def build_adapters(variant: SamVariant, rho: float = 0.1) -> FTM:
    """Build FTM as the default config has it, but for rho: large enough to be seen in fp32."""
    with _seeded():
        return FTM(
            num_layers=variant.depth, dim=variant.dim, num_tokens=100, hidden_dim=128, rho_init=rho
        )


def random_images(shape: Shape) -> torch.Tensor:
    """Normalised images (B, 3, H, W), always the same for a shape."""
    generator = torch.Generator().manual_seed(_SEED)
    return torch.randn(shape.batch, 3, shape.height, shape.width, generator=generator)


def autocast(dtype: str) -> contextlib.AbstractContextManager[Any]:
    """Compute in a key of `DTYPES` for a while."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16")


@torch.inference_mode()
def encode(encoder: nn.Module, images: torch.Tensor, dtype: str = "fp32") -> torch.Tensor:
    """Run one of the encoders in inference.

    Returns:
        Tokens after the last layer, (B, h, w, C).
    """
    with autocast(dtype):
        result: torch.Tensor | Mapping[str, torch.Tensor] = encoder(images)
    return result if isinstance(result, torch.Tensor) else result["stage4"].permute(0, 2, 3, 1)


def relative_error(found: torch.Tensor, truth: torch.Tensor) -> float:
    """L2 distance of two tensors relative to the second's length, computed in fp64."""
    found, truth = found.double(), truth.double()
    return float((found - truth).norm() / truth.norm())


def needed_flops(variant: SamVariant, shape: Shape) -> int:
    """Operations of an encoder's matrix products, a multiplication and an addition as two.

    Every token goes through the linear layers once and looks at all keys of its window, padded
    ones included since they change the result; no work is counted for padded tokens themselves.
    """
    height, width = shape.height // PATCH_SIZE, shape.width // PATCH_SIZE
    tokens, dim = height * width, variant.dim
    linear = 2 * tokens * 12 * dim * dim  # queries, keys, values 3, projection 1, MLP 4 + 4
    total = 2 * tokens * 3 * PATCH_SIZE**2 * dim
    for layer in range(variant.depth):
        is_global = layer in variant.global_layers
        rows, columns = (height, width) if is_global else (variant.window_size,) * 2
        attention = 2 * tokens * rows * columns * dim * 2  # scores, and their values' mean
        positions = 2 * tokens * (rows + columns) * dim
        total += linear + attention + positions
    return total * shape.batch


def _resize(table: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    resized = F.interpolate(table.permute(0, 3, 1, 2), size=grid, mode="bilinear")
    return resized.permute(0, 2, 3, 1)


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_SEED)
        yield
