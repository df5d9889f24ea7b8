"""SimModule and SRM of Figure 3: CLIP's semantics in, SAM's strengthened map out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from schnet.modeling.context import is_exported, without_autocast
from schnet.modeling.resize import resize_map


class SimModule(nn.Module):
    """Similarity feature of Figure 3 (a): `f_sim = softmax(scale * f_cls f_txt^T) f_txt`."""

    def forward(
        self, cls: torch.Tensor, text: torch.Tensor, logit_scale: torch.Tensor
    ) -> torch.Tensor:
        """Mix the parts' text features by how much the image looks like each.

        Args:
            cls: f_cls, CLIP's pooled image embedding, (B, E); normalised here.
            text: f_txt, text features of the K parts, (K, E), unit length.
            logit_scale: CLIP's own frozen scale, after its exponential; a scalar.

        Returns:
            f_sim, shape (B, E), in fp32.
        """
        with without_autocast(cls.device.type):
            text = text.float()
            cosine = F.normalize(cls.float(), dim=-1) @ text.t()
            return (logit_scale.float() * cosine).softmax(dim=-1) @ text


class SRM(nn.Module):
    """Semantic-refinement module of one of the five points of SAM, Figure 3 (b).

    `v = resize(conv1x1(f_cv))`, `z = f_sv + v * gate(f_sim)`,
    `f_sv" = f_sv + up(GELU(down(norm(z))))`. `up` starts at zero, so that SRM starts as identity.

    Our reading: where the gate sits, the norm, and the bottleneck's ratio (the figure's arrows).
    """

    def __init__(self, *, dim: int, clip_dim: int, embed_dim: int, bottleneck_dim: int) -> None:
        """Build the layers.

        Args:
            dim: C, SAM's width.
            clip_dim: channels of the CLIP map that this point takes.
            embed_dim: E, width of f_sim.
            bottleneck_dim: width between `down` and `up`.
        """
        super().__init__()
        self.project = nn.Conv2d(clip_dim, dim, kernel_size=1)
        self.gate = nn.Linear(embed_dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.down = nn.Linear(dim, bottleneck_dim)
        self.up = nn.Linear(bottleneck_dim, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, sam: torch.Tensor, clip: torch.Tensor, sim: torch.Tensor) -> torch.Tensor:
        """Strengthen SAM's map by CLIP's.

        Args:
            sam: f_sv, shape (B, h, w, C).
            clip: f_cv, shape (B, clip_dim, h', w'), any size; it covers the same picture.
            sim: f_sim, shape (B, E).

        Returns:
            f_sv", shape (B, h, w, C).
        """
        semantics = self._on_grid(clip, (sam.shape[1], sam.shape[2]))
        gate = self.gate(sim)[:, None, None, :].to(sam.dtype)
        gated = torch.addcmul(sam, semantics.to(sam.dtype), gate)
        return sam + self.up(F.gelu(self.down(self.norm(gated)))).to(sam.dtype)

    def _on_grid(self, clip: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        # Channels-last throughout, as SAM's map is: no copy when the two meet.
        clip = clip.contiguous(memory_format=torch.channels_last)
        # A bilinear resize and a 1x1 convolution commute exactly (the weights of the resize add
        # up to one, so the bias passes as well): do the cheap one on the smaller map.
        if self._resizes_first(clip, grid):
            projected = self.project(resize_map(clip, grid))
        else:
            projected = resize_map(self.project(clip), grid)
        return projected.permute(0, 2, 3, 1)

    def _resizes_first(self, clip: torch.Tensor, grid: tuple[int, int]) -> bool:
        if is_exported():  # with open sizes; the larger maps have the fewer channels
            return self.project.in_channels < self.project.out_channels
        return clip.shape[-2] * clip.shape[-1] > grid[0] * grid[1]
