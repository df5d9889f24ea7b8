"""FTM, the fine-tuning module of Figure 4: learnable tokens and one MLP for all SAM layers."""

from __future__ import annotations

import math

import torch
from torch import nn

from schnet.modeling.context import product_dtype, without_autocast
from schnet.modeling.derived import Derived
from schnet.modeling.ftm_kernels import FTMWeights, TunedFeatures, fold, tuned

PATCH_SIZE = 16


class FTM(nn.Module):
    """Adapters after every transformer layer of SAM (Figure 4).

    For layer i with tokens T_i (m, C): `f' = f + softmax(f T_i^T / sqrt(C)) T_i` (part a) and
    `f" = f + rho_i * MLP(f')` (part b). The MLP's two linear layers serve all SAM layers; the
    tokens and rho are each layer's own. With rho = 0 the output is f itself, to the bit.

    Our reading: the scale 1/sqrt(C), GELU between the linear layers, m, r and rho's start.
    """

    def __init__(
        self, *, num_layers: int, dim: int, num_tokens: int, hidden_dim: int, rho_init: float
    ) -> None:
        """Build the layers.

        Args:
            num_layers: transformer layers of SAM.
            dim: C, SAM's width.
            num_tokens: m, tokens per layer.
            hidden_dim: r, width of the shared MLP.
            rho_init: value that every rho starts from.
        """
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(num_layers, num_tokens, dim))
        self.rho = nn.Parameter(torch.full((num_layers,), float(rho_init)))
        self.mlp = nn.Sequential(nn.Linear(dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, dim))
        self._derived = Derived()
        bound = math.sqrt(6.0 / (3 * PATCH_SIZE**2 + dim))
        nn.init.uniform_(self.tokens, -bound, bound)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the optimizer must not shrink."""
        return {"tokens", "rho"}

    def forward(self, layer: int, features: torch.Tensor) -> torch.Tensor:
        """Fine-tune the output of one SAM layer.

        Args:
            layer: index of the SAM layer, from 0.
            features: f, shape (B, h, w, C).

        Returns:
            f", shape (B, h, w, C), the input of the next layer.
        """
        weights = FTMWeights(
            self.tokens[layer],
            self.rho[layer],
            *self.mlp[0].parameters(),
            *self.mlp[2].parameters(),
        )
        dtype = product_dtype(features)
        if torch.is_grad_enabled() and any(t.requires_grad for t in (features, *weights)):
            self._derived.clear()
            return TunedFeatures.apply(features, dtype, *weights)
        parameters = (self.tokens, *self.mlp.parameters())
        with without_autocast(features.device.type):
            folded = self._derived.get((layer, dtype), parameters, lambda: fold(weights, dtype))
            return tuned(features, weights.rho, folded)
