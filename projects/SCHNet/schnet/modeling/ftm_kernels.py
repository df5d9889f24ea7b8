"""FTM's arithmetic at least cost: one matrix product on the features, few saved activations."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from schnet.modeling.context import is_exported


class FTMWeights(NamedTuple):
    """What one layer of FTM computes with: parameters or their values.

    Attributes:
        tokens: T, (m, C).
        rho: scalar.
        w1: first linear layer, (r, C).
        b1: its bias, (r,).
        w2: second linear layer, (C, r).
        b2: its bias, (C,).
    """

    tokens: torch.Tensor
    rho: torch.Tensor
    w1: torch.Tensor
    b1: torch.Tensor
    w2: torch.Tensor
    b2: torch.Tensor


class FoldedWeights(NamedTuple):
    """`FTMWeights` in the form and type of the products.

    With `A = softmax(f T^T / sqrt(C))` the first linear layer of `f + A T` is
    `f W1^T + A (T W1^T + b1)`: the rows of A add up to one. So `A T` is never formed.

    Attributes:
        first: `T / sqrt(C)` above `W1`, (m + r, C).
        mixed: `T W1^T + b1`, (m, r).
        w2: (C, r).
        b2: (C,).
    """

    first: torch.Tensor
    mixed: torch.Tensor
    w2: torch.Tensor
    b2: torch.Tensor


def fold(weights: FTMWeights, dtype: torch.dtype) -> FoldedWeights:
    """Fold a layer's weights in their own precision, and give the result a type."""
    tokens, w1 = weights.tokens, weights.w1
    first = torch.cat([tokens * tokens.shape[1] ** -0.5, w1]).to(dtype)
    mixed = torch.addmm(weights.b1, tokens, w1.t()).to(dtype)
    return FoldedWeights(first, mixed, weights.w2.to(dtype), weights.b2.to(dtype))


def _attend(features: torch.Tensor, folded: FoldedWeights) -> torch.Tensor:
    """Features (N, C) to (N, m + r): the attention A, and the MLP's hidden layer before GELU."""
    products = features.to(folded.first.dtype) @ folded.first.t()
    num_tokens = folded.mixed.shape[0]
    attention, hidden = products[:, :num_tokens], products[:, num_tokens:]
    if is_exported():  # operators that write into given memory are not plain
        attention = attention.softmax(dim=-1)
        return torch.cat([attention, torch.addmm(hidden, attention, folded.mixed)], dim=-1)
    # In 16 bits the softmax would lose the small weights.
    attention.copy_(attention.softmax(dim=-1, dtype=torch.float32))
    torch.addmm(hidden, attention, folded.mixed, out=hidden)
    return products


def tuned(features: torch.Tensor, rho: torch.Tensor, folded: FoldedWeights) -> torch.Tensor:
    """One layer of FTM where no gradient is wanted.

    Args:
        features: f, shape (B, h, w, C).
        rho: scalar.
        folded: the layer's weights; their type is that of the products.

    Returns:
        f", shape and type of f.
    """
    flat = features.reshape(-1, features.shape[-1])
    change = _change(_attend(flat, folded), folded)
    if is_exported():
        return torch.addcmul(flat, change.to(flat.dtype), rho.to(flat.dtype)).view(features.shape)
    result = change if change.dtype == flat.dtype else torch.empty_like(flat)
    torch.addcmul(flat, change.to(flat.dtype), rho.to(flat.dtype), out=result)
    return result.view(features.shape)


class TunedFeatures(torch.autograd.Function):
    """One layer of FTM with gradients, that keeps its result and (N, m + r) numbers.

    The result f" is kept by the next layer in any case; where f is wanted, it is f" less the
    change. Plain autograd keeps f, f', their 16-bit copies, A, and the hidden layer twice.
    """

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, dtype: torch.dtype, *w: Any) -> torch.Tensor:
        """Features (B, h, w, C), the type of the products and an `FTMWeights` to f"."""
        weights = FTMWeights(*w)
        with torch.autocast(features.device.type, enabled=False):
            folded = fold(weights, dtype)
            flat = features.reshape(-1, features.shape[-1])
            products = _attend(flat, folded)
            change = _change(products, folded)
            result = torch.addcmul(flat, change.to(flat.dtype), weights.rho.to(flat.dtype))
        result = result.view(features.shape)
        ctx.dtype = dtype
        ctx.save_for_backward(result, products, *weights)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradient of f" to those of f and of the weights."""
        result, products, *w = ctx.saved_tensors
        weights, shape = FTMWeights(*w), grad.shape
        grad, result = (t.reshape(-1, t.shape[-1]) for t in (grad, result))
        with torch.autocast(grad.device.type, enabled=False):
            folded = fold(weights, ctx.dtype)
            narrow = grad.to(ctx.dtype)
            # Of MLP's activations, before rho: rho's own gradient is their product.
            grad_activated = narrow @ folded.w2
            grad_products = _products_backward(grad_activated * weights.rho, products, folded)
            grad_features = None
            if ctx.needs_input_grad[0]:
                grad_features = (grad + grad_products @ folded.first).view(shape)
            if not any(ctx.needs_input_grad[2:]):
                return grad_features, None, *(None for _ in weights)
            activated = F.gelu(products[:, folded.mixed.shape[0] :])
            grad_b2 = grad.sum(dim=0, dtype=weights.b2.dtype)
            grad_rho = (grad_activated.float() * activated).sum() + grad_b2 @ weights.b2
            grad_w2 = narrow.t() @ (activated * weights.rho).to(ctx.dtype)
            # The product with f, without f: that with f" less that with rho * MLP(f').
            grad_first = (grad_products.t() @ result.to(ctx.dtype)).to(weights.w1.dtype)
            mixed = (grad_products.t() @ activated).to(weights.w1.dtype)
            mixed = torch.addmm(
                torch.outer(grad_products.sum(dim=0, dtype=weights.b2.dtype), weights.b2),
                mixed,
                weights.w2.t(),
            )
            grad_first.addcmul_(mixed, weights.rho, value=-1)
            first = _first_backward(grad_first, products, grad_products, weights)
        grad_tokens, grad_w1, grad_b1 = first
        grad_w2, grad_b2 = grad_w2.to(weights.w2.dtype), grad_b2 * weights.rho
        return grad_features, None, grad_tokens, grad_rho, grad_w1, grad_b1, grad_w2, grad_b2


def _change(products: torch.Tensor, folded: FoldedWeights) -> torch.Tensor:
    """What `_attend` gives to MLP(f'), (N, C)."""
    hidden = products[:, folded.mixed.shape[0] :]
    return F.linear(F.gelu(hidden), folded.w2, folded.b2)


def _products_backward(
    grad_activated: torch.Tensor, products: torch.Tensor, folded: FoldedWeights
) -> torch.Tensor:
    """Gradient (N, r) after GELU to that of the one product on the features, (N, m + r)."""
    num_tokens = folded.mixed.shape[0]
    attention, hidden = products[:, :num_tokens].float(), products[:, num_tokens:].float()
    density = (hidden.square() * -0.5).exp_().mul_(hidden * (2 * math.pi) ** -0.5)
    slope = torch.special.ndtr(hidden) + density
    result = torch.empty_like(products)
    grad_hidden = result[:, num_tokens:]
    grad_hidden.copy_(grad_activated * slope)
    grad_attention = (grad_hidden @ folded.mixed.t()).float()
    mean = torch.linalg.vecdot(attention, grad_attention)[:, None]
    result[:, :num_tokens].copy_(attention * (grad_attention - mean))
    return result


def _first_backward(
    grad_first: torch.Tensor,
    products: torch.Tensor,
    grad_products: torch.Tensor,
    weights: FTMWeights,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradient of `FoldedWeights.first` to those of the tokens and the first linear layer."""
    tokens, w1 = weights.tokens, weights.w1
    num_tokens, dim = tokens.shape
    attention, grad_hidden = products[:, :num_tokens], grad_products[:, num_tokens:]
    grad_mixed = (attention.t() @ grad_hidden).to(w1.dtype)
    grad_tokens = torch.addmm(grad_first[:num_tokens], grad_mixed, w1, beta=dim**-0.5)
    grad_w1 = torch.addmm(grad_first[num_tokens:], grad_mixed.t(), tokens)
    return grad_tokens, grad_w1, grad_hidden.sum(dim=0, dtype=w1.dtype)
