"""SAM's windowed attention with decomposed positions: the plain formula, and which kernel runs it.

All ways take queries, keys and values of the real tokens only. SAM pads a grid to whole windows
after its norm, with zeros, so that a padded token's queries, keys and values are the bias of the
layer that makes them: nothing has to be computed for it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from schnet.modeling.positions import Positions
from schnet.modeling.tiled_attention import TiledAttention
from schnet.modeling.windows import crop_from_windows, pad_to_windows

MAX_FLASH_DIM = 256
"""Widest head that flash attention takes."""
FLASH_MULTIPLE = 8
"""What a head's width has to be a multiple of for it."""

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Positions], torch.Tensor]


def attend(
    qkv: torch.Tensor, padding: torch.Tensor, positions: Positions, num_heads: int, way: str
) -> torch.Tensor:
    """Attend within each window.

    Args:
        qkv: queries, keys and values of the real tokens, (B, h, w, 3C).
        padding: those of a padded token, (3C,).
        positions: of the window's size; a window as large as the grid is global attention.
        num_heads: heads.
        way: a key of `WAYS`, or `tiled`.

    Returns:
        Shape (B, h, w, C).
    """
    if way == "tiled":
        return TiledAttention.apply(qkv, padding, positions.height, positions.width, num_heads)
    windows = pad_to_windows(qkv, padding, positions.window)
    # To (3, windows, heads, H * W, d).
    q, k, v = windows.flatten(1, 2).unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
    attended = WAYS[way](q, k, v, positions)
    windows = attended.transpose(1, 2).flatten(2).unflatten(1, positions.window)
    return crop_from_windows(windows, len(qkv), (qkv.shape[1], qkv.shape[2]))


def choose_way(device_type: str, qkv: torch.Tensor, positions: Positions, num_heads: int) -> str:
    """Which way is the fastest on a device: the one place that decides.

    `tiled` on CPUs. On CUDA in 16 bits `folded`, while the longer heads fit flash attention;
    otherwise `masked`, which fused kernels take as well, but whose bias fills memory.
    """
    if device_type == "cpu":
        return "tiled"
    dim = qkv.shape[-1] // (3 * num_heads) + sum(positions.window)
    half = qkv.dtype in (torch.float16, torch.bfloat16)
    return "folded" if device_type == "cuda" and half and dim <= MAX_FLASH_DIM else "masked"


def attend_plain(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, positions: Positions
) -> torch.Tensor:
    """The formula: `softmax(q k^T / sqrt(d) + q·height + q·width) v`.

    Args:
        q: shape (n, heads, H * W, d).
        k: likewise.
        v: likewise.
        positions: of the window (H, W).
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + _bias(q, positions)
    return scores.softmax(dim=-1) @ v


def attend_masked(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, positions: Positions
) -> torch.Tensor:
    """PyTorch's fused attention with the positions as its bias; see `attend_plain`."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=_bias(q, positions))


def attend_folded(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, positions: Positions
) -> torch.Tensor:
    """PyTorch's fused attention with the positions inside longer queries and keys.

    `[q / sqrt(d), q·height, q·width] [k, onehot(row), onehot(column)]^T` is the score with its
    bias, so that flash attention needs none: no (H * W)^2 numbers are written anywhere. Values are
    padded with zeros to the same width. See `attend_plain`.
    """
    dim = q.shape[-1]
    by_row, by_column = _by_axis(q, positions)
    queries = torch.cat([q * dim**-0.5, by_row.flatten(2, 3), by_column.flatten(2, 3)], dim=-1)
    keys = torch.cat([k, positions.one_hot().expand(*k.shape[:3], -1)], dim=-1)
    extra = -queries.shape[-1] % FLASH_MULTIPLE
    queries, keys = F.pad(queries, (0, extra)), F.pad(keys, (0, extra))
    values = F.pad(v, (0, keys.shape[-1] - dim))
    return F.scaled_dot_product_attention(queries, keys, values, scale=1.0)[..., :dim]


WAYS: dict[str, Attend] = {
    "plain": attend_plain,
    "masked": attend_masked,
    "folded": attend_folded,
}
"""Ways that take whole windows (n, heads, H * W, d)."""


def _by_axis(q: torch.Tensor, positions: Positions) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, heads, H, W, H) and (n, heads, H, W, W): what a key's row and column add."""
    grid = q.unflatten(2, positions.window)
    return (
        torch.einsum("nhrcd,rkd->nhrck", grid, positions.height),
        torch.einsum("nhrcd,ckd->nhrck", grid, positions.width),
    )


def _bias(q: torch.Tensor, positions: Positions) -> torch.Tensor:
    by_row, by_column = _by_axis(q, positions)
    return (by_row[..., :, None] + by_column[..., None, :]).flatten(4).flatten(2, 3)
