"""One training step on fake tensors: its FLOPs and its memory from moment to moment."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch

from schnet.planning.model import PlannedModel
from schnet.planning.substitutes import CudaChoices, StaticShapes
from schnet.planning.trace import OperationTrace


@dataclass(frozen=True)
class StepTrace:
    """What one forward and backward pass takes, beside weights and optimizer.

    Attributes:
        batch: images.
        forward_flops: operations of the forward pass, of all images.
        backward_flops: of the backward pass; with activation checkpointing the recomputed forward
            passes are among them.
        kept_bytes: bytes alive between the two passes: inputs and what autograd keeps, with
            autocast's copies of the weights.
        peak_bytes: the most bytes alive at a moment, new gradients among them.
    """

    batch: int
    forward_flops: int
    backward_flops: int
    kept_bytes: int
    peak_bytes: int


def trace_step(
    planned: PlannedModel,
    size: tuple[int, int],
    batch: int,
    *,
    autocast_dtype: torch.dtype | None,
    as_cuda: bool = True,
    gradients_exist: bool = False,
) -> StepTrace:
    """Follow a step as `schnet.engine.step` takes it, up to the gradients.

    Args:
        planned: the model.
        size: height and width of the images in pixels, multiples of 16.
        batch: images that go through the model at once.
        autocast_dtype: type of the autocast; None is without.
        as_cuda: whether kernels and types are those of CUDA or of this CPU.
        gradients_exist: whether gradients are added to those of an earlier part of the batch.
    """
    model = planned.model
    choices = CudaChoices() if as_cuda else contextlib.nullcontext()
    model.backbone.encoder.run_as_on("cuda" if as_cuda else None)
    with planned.mode:
        for parameter in model.parameters():
            is_kept = gradients_exist and parameter.requires_grad
            parameter.grad = torch.zeros_like(parameter) if is_kept else None
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        trace = OperationTrace([*model.parameters(), *model.buffers(), *gradients])
        with StaticShapes(planned.num_classes), choices, trace:
            losses = _forward(model, _fake_batch(size, batch), autocast_dtype)
            forward_flops, kept_bytes = trace.flops, trace.live_bytes
            _backward(losses)
    for parameter in model.parameters():
        parameter.grad = None
    casts = _casts_of_recomputed_mlps(model, autocast_dtype) if as_cuda else 0
    return StepTrace(
        batch,
        forward_flops,
        trace.flops - forward_flops,
        kept_bytes + casts,
        trace.peak_bytes + casts,
    )


def _casts_of_recomputed_mlps(model: Any, dtype: torch.dtype | None) -> int:
    """Bytes of weights in autocast's type that the fast layers keep and a trace does not see.

    Nothing is remembered on tensors without values, and what is recomputed keeps no weight.
    """
    backbone = model.backbone
    encoder = backbone.encoder
    recomputes = backbone.activation_checkpointing and backbone.recomputed == "mlp"
    if dtype is None or not (recomputes and encoder.fast and encoder.is_frozen):
        return 0
    mlps = (block.mlp.parameters() for block in encoder.blocks)
    return sum(weight.numel() for weights in mlps for weight in weights) * dtype.itemsize


def _fake_batch(size: tuple[int, int], batch: int) -> list[dict[str, Any]]:
    return [
        {
            "image": torch.zeros(3, *size, dtype=torch.uint8),
            "sem_seg": torch.zeros(size, dtype=torch.uint8),
        }
        for _ in range(batch)
    ]


def _forward(
    model: torch.nn.Module, batch: list[dict[str, Any]], autocast_dtype: torch.dtype | None
) -> torch.Tensor:
    enabled = autocast_dtype is not None
    with torch.autocast("cpu", dtype=autocast_dtype, enabled=enabled):
        return torch.stack(list(model(batch).values())).sum()


def _backward(loss: torch.Tensor) -> None:
    # Not loss.backward(): a function mode sees that call and is switched off inside it, and what
    # activation checkpointing recomputes there would not be substituted.
    torch.autograd.Variable._execution_engine.run_backward(
        (loss,), (torch.ones(()),), False, False, (), allow_unreachable=True, accumulate_grad=True
    )
