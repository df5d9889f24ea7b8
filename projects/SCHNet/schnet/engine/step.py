"""One training step: forward, backward, clipped gradients, update, and its metrics."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import nn

from schnet.errors import InputError


class StepTrainer(SimpleTrainer):
    """Detectron2's step with autocast to bfloat16, clipping of the whole gradient, and its norm."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        clip_norm: float | None,
        autocast_dtype: torch.dtype | None,
    ) -> None:
        """Set the model to training.

        Args:
            model: gives a dict of losses for a batch; wrapped for distributed training or not.
            optimizer: over the trained parameters.
            clip_norm: largest norm of all gradients together; None does not clip.
            autocast_dtype: type that the forward pass is autocast to; None keeps the weights'.
        """
        super().__init__(model, (), optimizer)
        self._clip_norm = math.inf if clip_norm is None else clip_norm
        self._autocast_dtype = autocast_dtype
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._device_type = self._parameters[0].device.type

    def use_loader(self, data_loader: Iterable[list[dict[str, Any]]]) -> None:
        """Take batches from here; separate from construction, as a resumed run starts late."""
        self.data_loader = data_loader
        self._batches = iter(data_loader)

    def run_step(self) -> None:
        """Train on the next batch.

        Raises:
            InputError: the batch has bad input, or its loss or gradient is not finite; the
                weights are those before the step.
        """
        start = time.perf_counter()
        batch = next(self._batches)
        data_time = time.perf_counter() - start
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(
            self._device_type,
            dtype=self._autocast_dtype,
            enabled=self._autocast_dtype is not None,
        ):
            losses = self.model(batch)
        total = torch.stack(list(losses.values())).sum()
        if not math.isfinite(float(total.detach())):
            raise self._not_finite(_describe(losses), batch)
        total.backward()
        norm = float(nn.utils.clip_grad_norm_(self._parameters, self._clip_norm))
        if not math.isfinite(norm):
            raise self._not_finite(f"the gradient's norm is {norm}, {_describe(losses)}", batch)
        self._write_metrics(losses, data_time)
        if comm.is_main_process():
            get_event_storage().put_scalar("grad_norm", norm)
        self.optimizer.step()

    def _not_finite(self, values: str, batch: list[dict[str, Any]]) -> InputError:
        images = ", ".join(str(entry.get("file_name", "without a name")) for entry in batch)
        rate = self.optimizer.param_groups[0]["lr"]
        return InputError(
            f"training left the finite numbers at iteration {self.iter} ({values}; learning rate "
            f"{rate:g}) on the images {images}: lower SOLVER.BASE_LR or check these files, and "
            "continue with --resume"
        )


def _describe(losses: Mapping[str, torch.Tensor]) -> str:
    return ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in losses.items())
