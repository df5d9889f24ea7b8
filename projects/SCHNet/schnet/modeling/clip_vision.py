"""CLIP's image towers at any input size: four stage maps and the pooled class embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from clip.model import ModifiedResNet, VisionTransformer
from torch import nn

from schnet.modeling.context import is_exported
from schnet.modeling.resample import CUBIC, resample

StageMaps = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def resize_positions(table: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Resize the positions of a square grid behind one class token to another grid.

    Args:
        table: shape (1 + s * s, C); row 0 belongs to the class token and stays as it is.
        grid: height and width wanted, in tokens.

    Returns:
        Shape (1 + h * w, C); the table itself where it fits already.
    """
    side = round((table.shape[0] - 1) ** 0.5)
    if not is_exported() and grid == (side, side):
        return table
    square = table[1:].float().t().reshape(1, -1, side, side)
    if is_exported():
        resized = resample(square, grid, CUBIC)
    else:
        resized = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([table[:1], resized.flatten(2)[0].t().to(table.dtype)])


class ResNetTower(nn.Module):
    """CLIP's ModifiedResNet: maps after its four groups at strides 4, 8, 16 and 32."""

    def __init__(self, visual: ModifiedResNet) -> None:
        """Wrap a tower.

        Args:
            visual: the tower of the `clip` package, with weights.
        """
        super().__init__()
        self.visual = visual
        self.stride = 32
        width = visual.conv3.out_channels
        self.map_channels = (width * 4, width * 8, width * 16, width * 32)

    def forward(self, images: torch.Tensor) -> tuple[StageMaps, torch.Tensor]:
        """Normalised images (B, 3, h, w), sides multiples of 32, to (four maps, f_cls (B, E))."""
        net = self.visual
        x = net.relu1(net.bn1(net.conv1(images)))
        x = net.relu2(net.bn2(net.conv2(x)))
        x = net.avgpool(net.relu3(net.bn3(net.conv3(x))))
        map1 = net.layer1(x)
        map2 = net.layer2(map1)
        map3 = net.layer3(map2)
        map4 = net.layer4(map3)
        return (map1, map2, map3, map4), self._pool(map4)

    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        # CLIP's AttentionPool2d for a grid of any height and width: one query, the mean.
        pool = self.visual.attnpool
        positions = resize_positions(pool.positional_embedding, (x.shape[-2], x.shape[-1]))
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
        tokens = tokens + positions.to(tokens.dtype)

        def heads(projected: torch.Tensor) -> torch.Tensor:
            return projected.unflatten(2, (pool.num_heads, -1)).transpose(1, 2)

        pooled = F.scaled_dot_product_attention(
            heads(pool.q_proj(tokens[:, :1])),
            heads(pool.k_proj(tokens)),
            heads(pool.v_proj(tokens)),
        )
        return pool.c_proj(pooled.transpose(1, 2).flatten(2)[:, 0])


class TransformerTower(nn.Module):
    """CLIP's VisionTransformer: maps after the quarters of its layers, at the patch's stride.

    CLIP's transformers have no stages; taking the quarters for them is our reading.
    """

    def __init__(self, visual: VisionTransformer) -> None:
        """Wrap a tower.

        Args:
            visual: the tower of the `clip` package, with weights.
        """
        super().__init__()
        self.visual = visual
        self.stride = visual.conv1.kernel_size[0]
        self.map_channels = (visual.conv1.out_channels,) * 4
        layers = visual.transformer.layers
        self.stage_ends = tuple(layers * quarter // 4 for quarter in (1, 2, 3, 4))

    def forward(self, images: torch.Tensor) -> tuple[StageMaps, torch.Tensor]:
        """Normalised images (B, 3, h, w), sides multiples of the patch, to (maps, f_cls (B, E))."""
        net = self.visual
        patches = net.conv1(images)
        grid = (patches.shape[-2], patches.shape[-1])
        tokens = patches.flatten(2).transpose(1, 2)
        # Not len, which would fix the number of images where the tower is recorded.
        first = net.class_embedding.to(tokens.dtype).expand(tokens.shape[0], 1, -1)
        tokens = torch.cat([first, tokens], dim=1)
        tokens = tokens + resize_positions(net.positional_embedding, grid).to(tokens.dtype)
        tokens = net.ln_pre(tokens).transpose(0, 1)
        maps = []
        for number, block in enumerate(net.transformer.resblocks, start=1):
            tokens = block(tokens)
            if number in self.stage_ends:
                maps.append(tokens[1:].permute(1, 2, 0).unflatten(2, grid))
        return (maps[0], maps[1], maps[2], maps[3]), net.ln_post(tokens[0]) @ net.proj
