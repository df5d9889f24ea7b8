"""SAM's image encoder without its neck, from segment_anything's own classes, at any input size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from segment_anything.modeling.image_encoder import (
    Attention,
    Block,
    PatchEmbed,
    window_partition,
    window_unpartition,
)
from torch import nn
from torch.utils.checkpoint import checkpoint

from schnet.checkpoint import read_state_dict
from schnet.fingerprints import BaseSource, fingerprint
from schnet.modeling.attention import attend_masked
from schnet.modeling.context import is_exported, is_traced
from schnet.modeling.fast_layer import FastLayer
from schnet.modeling.frozen import FreezableModule, fixed_initialisation, load_base
from schnet.modeling.positions import Positions
from schnet.modeling.resample import LINEAR, resample
from schnet.modeling.windows import crop_from_windows, split_into_windows

PATCH_SIZE = 16
PREFIX = "image_encoder."
# What else an official file holds; some keep the normalisation too.
_UNUSED = ("prompt_encoder.", "mask_decoder.", "pixel_mean", "pixel_std")


@dataclass(frozen=True)
class SamVariant:
    """Size of one of SAM's image encoders.

    Attributes:
        dim: C, width of the tokens.
        depth: number of transformer layers.
        num_heads: attention heads.
        global_layers: layers with attention over the whole grid; each ends a stage.
        image_size: side in pixels that the position tables are for.
        window_size: side in tokens of the other layers' windows.
    """

    dim: int
    depth: int
    num_heads: int
    global_layers: tuple[int, ...]
    image_size: int = 1024
    window_size: int = 14


SAM_VARIANTS = {
    "vit_b": SamVariant(768, 12, 12, (2, 5, 8, 11)),
    "vit_l": SamVariant(1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": SamVariant(1280, 32, 16, (7, 15, 23, 31)),
    # Ours, for two CPU cores and for tests: every part of the real ones, in small.
    "tiny": SamVariant(96, 8, 3, (1, 3, 5, 7), image_size=256, window_size=8),
}


class SamAttention(Attention):
    """segment_anything's attention with its decomposed positions as the bias of fused attention."""

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the optimizer must not shrink."""
        return {"rel_pos_h", "rel_pos_w"}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend within each of B grids: (B, h, w, C) to (B, h, w, C)."""
        batch, height, width, dim = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        positions = Positions.gather(self.rel_pos_h, self.rel_pos_w, (height, width))
        attended = attend_masked(q, k, v, positions.to(q.dtype))
        return self.proj(attended.transpose(1, 2).reshape(batch, height, width, dim))


class SamBlock(Block):
    """segment_anything's layer, whose windows an exported graph cuts out of grids of any size.

    Attributes:
        recomputes_mlp: run the MLP again in the backward pass instead of keeping what is in it.
    """

    recomputes_mlp = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (B, h, w, C) to the next layer's, of the same shape."""
        x = x + self._attended(x)
        if self.recomputes_mlp:
            return x + checkpoint(self._transformed, x, use_reentrant=False)
        return x + self._transformed(x)

    def _attended(self, x: torch.Tensor) -> torch.Tensor:
        normed = self.norm1(x)
        if not self.window_size:
            return self.attn(normed)
        if is_exported():
            # window_partition asks in Python whether there is anything to pad.
            windows = split_into_windows(normed, self.window_size)
            return crop_from_windows(self.attn(windows), x.shape[0], (x.shape[1], x.shape[2]))
        windows, padded = window_partition(normed, self.window_size)
        size = (x.shape[1], x.shape[2])
        return window_unpartition(self.attn(windows), self.window_size, padded, size)

    def _transformed(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.norm2(x))


class SamEncoder(FreezableModule):
    """Patch embedding, positions and transformer layers; parameter names as in SAM's files."""

    def __init__(self, variant: SamVariant, *, lr_factor: float = 1.0, fast: bool = False) -> None:
        """Take the parts.

        Args:
            variant: the encoder's size.
            lr_factor: factor on the base learning rate for these weights, where they are trained.
            fast: run the layers by our kernels (`FastLayer`) wherever no weight needs a gradient.
        """
        super().__init__()
        self.lr_factor = lr_factor
        self.fast = fast
        grid = variant.image_size // PATCH_SIZE
        self.patch_embed = PatchEmbed(embed_dim=variant.dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, variant.dim))
        self.blocks = nn.ModuleList(
            _build_block(variant, grid, is_global=i in variant.global_layers)
            for i in range(variant.depth)
        )
        self._fast_layers = [FastLayer(block, variant.num_heads) for block in self.blocks]

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the optimizer must not shrink."""
        return {"pos_embed"}

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Turn images into tokens with positions.

        Args:
            images: normalised, shape (B, 3, H, W), H and W multiples of 16.

        Returns:
            Shape (B, H/16, W/16, C).
        """
        tokens = self.patch_embed(images)
        # The positions' fp32 makes the residual stream fp32 under autocast: in bfloat16 it would
        # round away what FTM adds at its start.
        return tokens + self._positions((tokens.shape[1], tokens.shape[2]))

    def run_as_on(self, device_type: str | None) -> None:
        """Choose the fast layers' kernels as on another type of device: for plans; None ends it."""
        for layer in self._fast_layers:
            layer.device_type = device_type

    def keep_casts(self, keep: bool) -> None:
        """Say whether the fast layers keep weights in 16 bits; see `FastLayer.keeps_casts`."""
        for layer in self._fast_layers:
            layer.keeps_casts = keep

    def recompute_mlps(self, recompute: bool) -> None:
        """Say whether the layers run their MLPs again in a backward pass."""
        for block, layer in zip(self.blocks, self._fast_layers, strict=True):
            cast(SamBlock, block).recomputes_mlp = recompute
            layer.recomputes_mlp = recompute

    def layer(self, index: int, tokens: torch.Tensor, *, overwrite: bool = False) -> torch.Tensor:
        """Run one transformer layer.

        Args:
            index: of the layer, from 0.
            tokens: the residual stream, shape (B, h, w, C).
            overwrite: they are needed no more: without a graph their memory may take the result.

        Returns:
            The same shape and type.
        """
        # The kernels have no gradients of weights; without gradients they serve any SAM.
        has_kernels = self.is_frozen or not torch.is_grad_enabled()
        if self.fast and has_kernels and not is_traced():
            return self._fast_layers[index](tokens, overwrite=overwrite)
        return self.blocks[index](tokens)

    def _positions(self, grid: tuple[int, int]) -> torch.Tensor:
        table = self.pos_embed.permute(0, 3, 1, 2)
        if is_exported():
            return resample(table, grid, LINEAR).permute(0, 2, 3, 1)
        if tuple(self.pos_embed.shape[1:3]) == grid:
            return self.pos_embed
        resized = F.interpolate(table, size=grid, mode="bilinear", align_corners=False)
        return resized.permute(0, 2, 3, 1)


def _build_block(variant: SamVariant, grid: int, *, is_global: bool) -> Block:
    window = 0 if is_global else variant.window_size
    block = SamBlock(
        dim=variant.dim,
        num_heads=variant.num_heads,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=window,
        input_size=(grid, grid),
    )
    side = window or grid
    block.attn = SamAttention(
        variant.dim, variant.num_heads, use_rel_pos=True, input_size=(side, side)
    )
    return block


def build_sam_encoder(
    variant: str, weights: str, *, lr_factor: float = 1.0, fast: bool = False
) -> SamEncoder:
    """Build an encoder and give it its weights.

    Args:
        variant: a key of `SAM_VARIANTS`.
        weights: path, URL or official name of SAM's weights, or `random`.
        lr_factor: see `SamEncoder`.
        fast: see `SamEncoder`.

    Raises:
        InputError: the weights are not to be had, or are not this variant's.
    """
    with fixed_initialisation():
        encoder = SamEncoder(SAM_VARIANTS[variant], lr_factor=lr_factor, fast=fast)
    if weights == "random":
        return encoder
    state = _encoder_state(read_state_dict(weights, "MODEL.SAM.WEIGHTS"))
    load_base(
        encoder,
        state,
        key="MODEL.SAM.WEIGHTS",
        weights=weights,
        kind=f"SAM {variant}",
        found=recognise_sam(state),
    )
    encoder.source = BaseSource(
        "MODEL.SAM.WEIGHTS", weights, f"SAM {variant}", fingerprint(encoder.state_dict())
    )
    return encoder


def recognise_sam(state: dict[str, torch.Tensor]) -> str:
    """Which of SAM's encoders a state dict seems to be of.

    Args:
        state: weights of an encoder by name, without `PREFIX`.

    Returns:
        Such as `SAM vit_b`; its width and depth where it is none of ours; "" where it is none.
    """
    patches = state.get("patch_embed.proj.weight")
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    if patches is None or patches.ndim != 4 or not depth:
        return ""
    width = patches.shape[0]
    for name, variant in SAM_VARIANTS.items():
        if (variant.dim, variant.depth) == (width, depth):
            return f"SAM {name}"
    return f"a SAM encoder of width {width} and depth {depth}"


def _encoder_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The encoder's weights out of those of all of SAM, or of its encoder alone, in fp32."""
    if any(name.startswith(PREFIX) for name in state):
        state = {n.removeprefix(PREFIX): t for n, t in state.items() if not n.startswith(_UNUSED)}
    # The neck serves the mask decoder, which is not built.
    return {n: t.float() for n, t in state.items() if not n.startswith("neck.")}
