"""The exponential moving average of a run's trained weights, which evaluation then takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from schnet.modeling.frozen import FreezableModule


class ModelEma:
    """Averages, in fp32, what a run changes: trained parameters and their modules' buffers.

    Update n (from 0) keeps `min(decay, (1 + n) / (10 + n))` of the average, the usual warm-up,
    which lets the average leave the first weights behind; update 0 keeps nothing, so that the
    average starts from the weights after the first step, and before it equals the model's.

    Frozen bases are neither averaged nor copied. Every process of a distributed run computes the
    same average from the same weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Choose what is averaged; weights may be loaded until the first update.

        Args:
            model: the model itself, not wrapped for distributed training, on its device.
            decay: share of the average that an update keeps, in [0, 1).
        """
        self.decay = decay
        self.updates = 0
        self._model = model
        self._tracked = _changing_tensors(model)
        self._average: list[torch.Tensor] = []

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's weights of now into the average; call it after a step that counted."""
        weights = [tensor.detach() for tensor in self._tracked.values()]
        if self.updates == 0:
            self._average = [weight.float().clone() for weight in weights]
        else:
            kept = min(self.decay, (1 + self.updates) / (10 + self.updates))
            torch._foreach_lerp_(self._average, [w.float() for w in weights], 1 - kept)
        self.updates += 1

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the model, and its own weights back, to the bit, at the end.

        They also come back where the block raises. What is trained meanwhile is lost.
        """
        if self.updates == 0:
            yield
            return
        own = [tensor.detach().clone() for tensor in self._tracked.values()]
        self._copy_to_model(self._average)
        try:
            yield
        finally:
            self._copy_to_model(own)

    def state_dict(self) -> dict[str, Any]:
        """The average and how it is kept.

        Returns:
            `decay`, `updates`, and `model`: the average of each tensor by its name in the model's
            state dict, fp32. They are no copies.
        """
        average = self._average or [t.detach().float() for t in self._tracked.values()]
        return {
            "decay": self.decay,
            "updates": self.updates,
            "model": dict(zip(self._tracked, average, strict=True)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved average; the decay stays the one given to the constructor.

        Raises:
            ValueError: the average is of other tensors than this model trains.
        """
        saved = state["model"]
        differing = sorted(saved.keys() ^ self._tracked.keys()) or [
            name for name, own in self._tracked.items() if saved[name].shape != own.shape
        ]
        if differing:
            raise ValueError(
                f"the average and the trained weights differ in {len(differing)} tensors, first "
                f"{differing[0]}"
            )
        self.updates = int(state["updates"])
        self._average = []
        if self.updates:
            self._average = [
                saved[name].detach().to(own.device, torch.float32, copy=True)
                for name, own in self._tracked.items()
            ]

    @torch.no_grad()
    def _copy_to_model(self, values: list[torch.Tensor]) -> None:
        for tensor, value in zip(self._tracked.values(), values, strict=True):
            tensor.copy_(value)


def _changing_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Trained parameters, and floating buffers of the state that no frozen base owns, by name."""
    tensors: dict[str, torch.Tensor] = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    frozen = {
        buffer
        for module in model.modules()
        if isinstance(module, FreezableModule) and module.is_frozen
        for buffer in module.buffers()
    }
    in_state = model.state_dict().keys()
    for name, buffer in model.named_buffers():
        if name in in_state and buffer.is_floating_point() and buffer not in frozen:
            tensors[name] = buffer
    return tensors
