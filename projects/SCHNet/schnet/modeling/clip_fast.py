"""CLIP's ResNet tower for inference: batch norms folded, channels-last, fused convolutions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from clip.model import AttentionPool2d, Bottleneck, ModifiedResNet
from torch import nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from schnet.modeling.clip_vision import ResNetTower, StageMaps, resize_positions
from schnet.modeling.context import is_traced, product_dtype
from schnet.modeling.derived import Derived
from schnet.modeling.kernels import onednn_computes

# Packing a weight for one input size costs about as much as three to five calls gain by it.
REPEATS_TO_PACK = 4


class FastResNetTower(ResNetTower):
    """`ResNetTower` by derived weights: the same result but for rounding, in less time.

    It takes over where the tower is in eval mode and no graph is recorded; anywhere else, and
    under any kind of tracing, the layers run as `ResNetTower` runs them. The derived weights are
    no part of the state, of copies or of pickles. They are made again after a change of the
    tower's own weights, but for one that autograd does not see either, in place through `.data`.
    """

    def __init__(self, visual: ModifiedResNet) -> None:
        """Wrap a tower.

        Args:
            visual: the tower of the `clip` package, with weights.
        """
        super().__init__(visual)
        self._derived = Derived()

    def forward(self, images: torch.Tensor) -> tuple[StageMaps, torch.Tensor]:
        """As `ResNetTower.forward`; the maps are channels-last, of autocast's type inside it."""
        if not _is_plain_inference(self.visual, images):
            return super().forward(images)
        dtype = product_dtype(images)
        # The derived weights have the type already.
        with torch.autocast(images.device.type, enabled=False):
            return self._network(dtype)(images)

    def _network(self, dtype: torch.dtype) -> FoldedResNet:
        visual = self.visual
        sources = tuple(chain(visual.parameters(), visual.buffers()))
        return self._derived.get(dtype, sources, lambda: FoldedResNet(visual, dtype))

    def _apply(
        self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True
    ) -> FastResNetTower:
        # A move to another device must give the memory on the old one back.
        self._derived.clear()
        super()._apply(fn, recurse)
        return self


def _is_plain_inference(visual: ModifiedResNet, images: torch.Tensor) -> bool:
    """Whether the derived weights may stand in for the layers, in this call."""
    weight = visual.conv1.weight
    return (
        not is_traced()
        # Counters of FLOPs and memory know the layers' operations only.
        and not is_in_torch_dispatch_mode()
        # A subclass may be anything.
        and type(images) is torch.Tensor
        and images.device.type in ("cpu", "cuda")
        and images.device == weight.device
        and weight.dtype == torch.float32
        and images.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not visual.training
        # Such a tensor does not count its changes.
        and not weight.is_inference()
    )


class FoldedConv:
    """A convolution with the batch norm behind it, then optionally a sum and a ReLU."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype) -> None:
        """Fold.

        Args:
            conv: without bias, groups and dilation.
            norm: in eval mode.
            dtype: type to compute in; the folding is in fp32.
        """
        mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        scale = norm.weight * (variance + norm.eps).rsqrt()
        weight = conv.weight.detach() * scale[:, None, None, None]
        bias = norm.bias - mean * scale
        self.weight = weight.to(dtype, memory_format=torch.channels_last)
        self.bias = bias.detach().to(dtype)
        self.stride, self.padding = conv.stride, conv.padding
        self._is_fused = _has_fused_convolution(self.bias)
        self._packed: torch.Tensor | None = None
        self._packed_size: torch.Size | None = None
        self._last_size: torch.Size | None = None
        self._repeats = 0

    def __call__(
        self, x: torch.Tensor, *, add: torch.Tensor | None = None, relu: bool = True
    ) -> torch.Tensor:
        """Convolve.

        Args:
            x: shape (B, C, h, w), channels-last.
            add: what is added to the result before the ReLU, of its shape; overwritten.
            relu: whether a ReLU follows; it does where there is a sum.
        """
        if not self._is_fused:
            out = F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
            if add is not None:
                out += add
            return out.relu_() if relu else out
        operands = (x, self._weight_for(x), self.bias)
        geometry = (self.padding, self.stride, (1, 1), 1)
        ops: Any = torch.ops.mkldnn
        if add is None:
            then = "relu" if relu else "none"
            return ops._convolution_pointwise(*operands, *geometry, then, [], "")
        return ops._convolution_pointwise_.binary(
            add, *operands, *geometry, "add", 1.0, "relu", [], ""
        )

    def _weight_for(self, x: torch.Tensor) -> torch.Tensor:
        # oneDNN brings a plain weight into the order that the input's size wants at each call; a
        # packed one spares that at its size, but is very slow at sizes that want another order.
        if self._packed is not None and x.shape == self._packed_size:
            self._repeats = 0
            return self._packed
        self._repeats = self._repeats + 1 if x.shape == self._last_size else 1
        self._last_size = x.shape
        if self._repeats < REPEATS_TO_PACK:
            return self.weight
        pack: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
        opaque = self.weight.to_mkldnn()
        self._packed = pack(opaque, self.padding, self.stride, (1, 1), 1, list(x.shape))
        self._packed_size = x.shape
        return self._packed


def _has_fused_convolution(like: torch.Tensor) -> bool:
    """Whether oneDNN's fused convolution, which torch keeps private, is there for such tensors."""
    return (
        onednn_computes(like)
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
        and hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
    )


class FoldedBottleneck:
    """CLIP's residual block with its batch norms folded."""

    def __init__(self, block: Bottleneck, dtype: torch.dtype) -> None:
        """Fold its convolutions; see `FoldedConv`."""
        self.conv1 = FoldedConv(block.conv1, block.bn1, dtype)
        self.conv2 = FoldedConv(block.conv2, block.bn2, dtype)
        self.conv3 = FoldedConv(block.conv3, block.bn3, dtype)
        self.stride = block.stride
        self.shortcut: FoldedConv | None = None
        if block.downsample is not None:
            _, conv, norm = block.downsample
            self.shortcut = FoldedConv(conv, norm, dtype)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Run the block on (B, C, h, w); without a shortcut convolution `x` is overwritten."""
        out = self._pool(self.conv2(self.conv1(x)))
        if self.shortcut is not None:
            x = self.shortcut(self._pool(x), relu=False)
        return self.conv3(out, add=x)

    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, self.stride) if self.stride > 1 else x


class FoldedPool:
    """CLIP's attention pool, one query a head, without keys and values in C channels.

    A score `q · (W_k t + b_k)` is `(W_k^T q) · t` plus what is the same for all tokens t, which
    softmax drops; the sum of values `W_v t + b_v` is `W_v` times the sum of tokens, plus `b_v`.
    """

    def __init__(self, pool: AttentionPool2d, dtype: torch.dtype) -> None:
        """Take the weights in a type; those that have it already are shared."""
        self._table = pool.positional_embedding.detach()
        self._positions: tuple[tuple[int, int], torch.Tensor] | None = None
        self._dtype = dtype
        layers = (pool.q_proj, pool.v_proj, pool.c_proj)
        self._query, self._value, self._out = (
            (self._cast(p.weight), self._cast(p.bias)) for p in layers
        )
        self._key_weight = self._cast(pool.k_proj.weight)
        self._heads = pool.num_heads

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Pool a map (B, C, h, w) to (B, E)."""
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
        tokens = tokens + self._positions_of((x.shape[-2], x.shape[-1]))
        heads = (self._heads, -1)
        query = F.linear(tokens[:, 0], *self._query).unflatten(1, heads).transpose(0, 1)
        keys = torch.bmm(query, self._key_weight.unflatten(0, heads)).transpose(0, 1)
        scores = torch.bmm(keys, tokens.transpose(1, 2)).float() * query.shape[2] ** -0.5
        mixed = torch.bmm(scores.softmax(dim=-1).to(self._dtype), tokens).transpose(0, 1)
        weight, bias = self._value
        values = torch.bmm(mixed, weight.unflatten(0, heads).transpose(1, 2))
        return F.linear(values.transpose(0, 1).flatten(1) + bias, *self._out)

    def _positions_of(self, grid: tuple[int, int]) -> torch.Tensor:
        if self._positions is None or self._positions[0] != grid:
            self._positions = (grid, self._cast(resize_positions(self._table, grid)))
        return self._positions[1]

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to(self._dtype)


class FoldedResNet:
    """CLIP's ModifiedResNet in eval mode with its batch norms folded, in one floating type."""

    def __init__(self, visual: ModifiedResNet, dtype: torch.dtype) -> None:
        """Fold.

        Args:
            visual: the tower, in fp32 and eval mode.
            dtype: type to compute in.
        """
        self._dtype = dtype
        pairs = ((visual.conv1, visual.bn1), (visual.conv2, visual.bn2), (visual.conv3, visual.bn3))
        self._stem = [FoldedConv(conv, norm, dtype) for conv, norm in pairs]
        groups = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
        self._stages = [[FoldedBottleneck(block, dtype) for block in group] for group in groups]
        self._pool = FoldedPool(visual.attnpool, dtype)

    def __call__(self, images: torch.Tensor) -> tuple[StageMaps, torch.Tensor]:
        """Normalised images (B, 3, h, w), sides multiples of 32, to (four maps, f_cls (B, E))."""
        x = images.to(self._dtype, memory_format=torch.channels_last)
        for conv in self._stem:
            x = conv(x)
        x = F.avg_pool2d(x, 2)
        maps = []
        for stage in self._stages:
            # A stage widens, so its first block has a shortcut convolution and leaves the map of
            # the stage before as it is.
            for block in stage:
                x = block(x)
            maps.append(x)
        return (maps[0], maps[1], maps[2], maps[3]), self._pool(x)
