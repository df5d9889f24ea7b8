"""What a trace on fake CPU tensors computes instead: static shapes, and the choices of CUDA."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

# Elements: the fused kernel wants the rows of its bias to begin at multiples of 16 (torch's own
# padding of such a bias).
BIAS_ALIGNMENT = 16

_FP32_ON_CUDA = (F.layer_norm, F.group_norm, F.softmax, torch.softmax, torch.Tensor.softmax)


class StaticShapes(TorchFunctionMode):
    """Lets the losses run on tensors without values, as on the costliest labels.

    They index by masks and by the classes that an image shows. Here every pixel is labelled and
    every image shows all classes.
    """

    def __init__(self, num_classes: int) -> None:
        """Take the number of classes."""
        super().__init__()
        self._num_classes = num_classes

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function, or what stands in for it."""
        if func is torch.Tensor.unique:
            return torch.arange(self._num_classes)
        if func is torch.Tensor.any:
            return torch.tensor(True)
        if func is torch.Tensor.__getitem__:
            tensor, index = args
            parts = index if isinstance(index, tuple) else (index,)
            return func(tensor, tuple(map(_all_of_mask, parts)))
        return func(*args, **(kwargs or {}))


def _all_of_mask(part: Any) -> Any:
    # A mask becomes a list of positions inside torch as well, so that the memory is the same.
    if isinstance(part, torch.Tensor) and part.dtype == torch.bool:
        return torch.arange(part.numel())
    return part


class CudaChoices(TorchFunctionMode):
    """Takes, on CPU tensors, the kernels and types that PyTorch takes on CUDA.

    Attention is the memory-efficient fused kernel, the one that takes a bias with a gradient: it
    keeps queries, keys, values, output, one number a row, and the bias (N x N a head) where there
    is one, padded where its rows are no multiple of 16, but no scores. Norms and softmax are fp32
    under autocast, which the CPU's are not.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function as CUDA would."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _fused_attention(*args, **kwargs)
        if func in _FP32_ON_CUDA and torch.is_autocast_enabled("cpu"):
            return func(args[0].float(), *args[1:], **kwargs)
        return func(*args, **kwargs)


def _fused_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> torch.Tensor:
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else q.dtype
    bias = None if attn_mask is None else attn_mask.to(dtype)
    if bias is not None and bias.shape[-1] % BIAS_ALIGNMENT:
        padding = -bias.shape[-1] % BIAS_ALIGNMENT
        bias = F.pad(bias, (0, padding))[..., : bias.shape[-1]]
    output = torch.ops.aten._scaled_dot_product_efficient_attention(
        *(q.to(dtype), k.to(dtype), v.to(dtype), bias, torch.is_grad_enabled()),
        *(dropout_p, is_causal),
        scale=scale,
    )
    return output[0]
