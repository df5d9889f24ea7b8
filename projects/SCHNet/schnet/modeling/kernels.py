"""Linear layers of frozen parts on the CPU: oneDNN's kernels, and their inputs' gradient.

No gradient of a weight is computed here: SAM is frozen. Its attention is `tiled_attention.py`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F


def linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *, gelu: bool = False
) -> torch.Tensor:
    """`x W^T + b`, then GELU where wanted, without a graph.

    oneDNN's kernel where it can be had: PyTorch's `F.linear` takes MKL in fp32, which is slow on
    other makers' CPUs, and cannot fuse the GELU. The operator is the one torch.compile emits.

    Args:
        x: shape (..., in), contiguous.
        weight: (out, in), of x's type, any strides, or what `pack` made of it.
        bias: (out,) or None.
        gelu: apply the exact GELU.
    """
    if onednn_takes(x):
        return torch.ops.mkldnn._linear_pointwise(
            x, weight, bias, "gelu" if gelu else "none", [], "none"
        )
    y = F.linear(x, weight, bias)
    return F.gelu(y) if gelu else y


def pack(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """A weight (out, in) in the order that oneDNN's GEMM reads it in, for `linear` alone.

    Args:
        weight: of a type that `onednn_takes`.
        rows: how many rows of input to expect.
    """
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)


def onednn_takes(x: torch.Tensor) -> bool:
    """Whether `linear` runs this input by oneDNN's kernel."""
    return onednn_computes(x) and x.numel() > 0 and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def onednn_computes(x: torch.Tensor) -> bool:
    """Whether oneDNN is there, not switched off, and computes in a tensor's type on its device."""
    # Tensors without values (FakeTensor) are left out: a plan counts plain operators' FLOPs.
    if x.device.type != "cpu" or type(x) is not torch.Tensor:
        return False
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    if x.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return x.dtype == torch.float32


class FrozenLinear(torch.autograd.Function):
    """`linear` with the gradient of its input alone; keeps no activation."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        transposed: torch.Tensor,
    ) -> torch.Tensor:
        """See `linear`; `transposed` is the weight (in, out) for the way back, of any type."""
        # No saved tensor: a packed one has no memory that autograd's hooks could look at.
        ctx.transposed = transposed
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradient of x."""
        weight = ctx.transposed
        if weight.dtype != grad.dtype:
            weight = weight.to(grad.dtype)
        return linear(grad.contiguous(), weight, None), None, None, None
