"""From SAM's stride-16 maps and the image itself to features at stride 4 that keep boundaries."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from schnet.modeling.resize import resize_map

GROUP_WIDTH = 8
MAX_GROUPS = 32
FUSE_STRIDE = 16


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(MAX_GROUPS, channels // GROUP_WIDTH), channels)


def _conv_norm(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        _norm(out_channels),
        nn.GELU(),
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a skip connection; starts as identity."""

    def __init__(self, channels: int) -> None:
        """Take the number of channels, the same in and out."""
        super().__init__()
        last = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        nn.init.zeros_(last.weight)
        self.body = nn.Sequential(
            _norm(channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            _norm(channels),
            nn.GELU(),
            last,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (B, C, h, w) in and out."""
        return x + self.body(x)


def _blocks(channels: int, number: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(number)))


class ImageStem(nn.Module):
    """A light convolutional stem: what a ViT's stride of 16 cannot hold of the image."""

    def __init__(self, dims: Sequence[int], blocks: int) -> None:
        """Build the layers.

        Args:
            dims: channels at strides 2, 4 and 8.
            blocks: residual blocks at each of the strides 4 and 8.
        """
        super().__init__()
        self.to_stride4 = nn.Sequential(
            _conv_norm(3, dims[0], stride=2),
            _conv_norm(dims[0], dims[1], stride=2),
            _blocks(dims[1], blocks),
        )
        self.to_stride8 = nn.Sequential(
            _conv_norm(dims[1], dims[2], stride=2), _blocks(dims[2], blocks)
        )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images (B, 3, H, W) to maps at strides 4 and 8."""
        stride4 = self.to_stride4(images)
        return stride4, self.to_stride8(stride4)


class Upsample2x(nn.Module):
    """A learned 2x step that takes in a finer map on the way."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int) -> None:
        """Build the layers.

        Args:
            in_channels: channels of the coarse map.
            out_channels: channels of the finer map and of the result.
            blocks: residual blocks after joining the two.
        """
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.join = _conv_norm(2 * out_channels, out_channels)
        self.blocks = _blocks(out_channels, blocks)

    def forward(self, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        """Maps (B, D, h, w) and (B, D', 2h, 2w) to (B, D', 2h, 2w)."""
        return self.blocks(self.join(torch.cat([self.up(coarse), fine], dim=1)))


class BoundaryDecoder(nn.Module):
    """Project all maps, fuse them at stride 16, upsample to stride 4 beside the image's stem."""

    def __init__(
        self,
        *,
        in_features: Sequence[str],
        in_channels: Sequence[int],
        fuse_dim: int,
        fuse_blocks: int,
        stem_dims: Sequence[int],
        stem_blocks: int,
    ) -> None:
        """Build the layers.

        Args:
            in_features: names of the backbone's maps.
            in_channels: their channels.
            fuse_dim: channels of the fused map.
            fuse_blocks: residual blocks at stride 16.
            stem_dims: channels of stem and decoder at strides 2, 4 and 8.
            stem_blocks: residual blocks at each stride of stem and decoder.
        """
        super().__init__()
        self.in_features = tuple(in_features)
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, fuse_dim, 1, bias=False), _norm(fuse_dim))
            for channels in in_channels
        )
        self.stem = ImageStem(stem_dims, stem_blocks)
        # The stem's own way down: where the image shows what a ViT's patches blur together, the
        # fused map should know of it as well, not only the steps up.
        self.stem_to_stride16 = nn.Sequential(
            nn.Conv2d(stem_dims[2], fuse_dim, 3, stride=2, padding=1, bias=False), _norm(fuse_dim)
        )
        self.fuse = nn.Sequential(
            nn.GELU(), _conv_norm(fuse_dim, fuse_dim), _blocks(fuse_dim, fuse_blocks)
        )
        self.up8 = Upsample2x(fuse_dim, stem_dims[2], stem_blocks)
        self.up4 = Upsample2x(stem_dims[2], stem_dims[1], stem_blocks)
        self.out_channels = stem_dims[1]

    def forward(self, features: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        """Decode.

        Args:
            features: the backbone's maps, each (B, C, h, w); resized to stride 16 where they are
                not at it.
            images: normalised, shape (B, 3, H, W), H and W multiples of 16.

        Returns:
            Shape (B, stem_dims[1], H/4, W/4).
        """
        grid = (images.shape[-2] // FUSE_STRIDE, images.shape[-1] // FUSE_STRIDE)
        # The backbone's maps come channels-last; so is all that follows from images that are, and
        # convolutions of few channels run up to twice as fast.
        images = images.contiguous(memory_format=torch.channels_last)
        stride4, stride8 = self.stem(images)
        fused = self.stem_to_stride16(stride8)
        for name, project in zip(self.in_features, self.project, strict=True):
            fused = fused + resize_map(project(features[name]), grid)
        return self.up4(self.up8(self.fuse(fused), stride8), stride4)
