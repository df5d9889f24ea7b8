"""The memory of a training process: what it holds all the time, and the peak of a step on top."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from schnet.planning.step import StepTrace

OVERHEAD_BYTES = 1.5e9
"""CUDA context, cuBLAS and cuDNN workspaces and NCCL's buffers together; an assumption."""
FRAGMENTATION = 1.05
"""What PyTorch's allocator reserves for each byte of a step's tensors; an assumption."""


@dataclass(frozen=True)
class HeldMemory:
    """Bytes that a process holds from the first step to the last.

    Attributes:
        weights: parameters, trained and frozen, and buffers.
        optimizer: AdamW's two moments of the trained parameters.
        average: the moving average of the trained weights, where it is on.
        buckets: DistributedDataParallel's copy of the gradients, where there are several GPUs.
        gradients: gradients that stay between the parts of a batch; otherwise a step's own memory
            has them.
        overhead: what no tensor accounts for.
    """

    weights: float
    optimizer: float
    average: float
    buckets: float
    gradients: float
    overhead: float = OVERHEAD_BYTES

    @property
    def total(self) -> float:
        """All of it, in bytes."""
        parts = (self.weights, self.optimizer, self.average, self.buckets, self.gradients)
        return sum(parts) + self.overhead


def held_memory(
    weight_bytes: float, trained_bytes: float, *, gpus: int, accumulate_steps: int, has_ema: bool
) -> HeldMemory:
    """Add up what a process holds all the time.

    Args:
        weight_bytes: of all parameters and buffers.
        trained_bytes: of the trained parameters.
        gpus: processes of the run.
        accumulate_steps: parts that a batch goes through the model in.
        has_ema: whether the run keeps a moving average of the trained weights.
    """
    return HeldMemory(
        weights=weight_bytes,
        optimizer=2 * trained_bytes,
        average=trained_bytes if has_ema else 0,
        buckets=trained_bytes if gpus > 1 else 0,
        gradients=trained_bytes if accumulate_steps > 1 else 0,
    )


@dataclass(frozen=True)
class PeakModel:
    """Peak bytes of a step as a line over the images that go through the model at once.

    Every tensor's size is linear in the images or constant, so the peak is the maximum of lines:
    between two traced batches this line lies on it or above it, and beyond the larger one on it
    or, where another moment of the step becomes the largest, below it.

    Attributes:
        constant: bytes whatever the images, such as autocast's copies of the weights.
        per_image: bytes for each image.
    """

    constant: float
    per_image: float

    @classmethod
    def through(cls, traces: Sequence[StepTrace]) -> PeakModel:
        """The line through two traces of different batches."""
        first, second = traces
        slope = (second.peak_bytes - first.peak_bytes) / (second.batch - first.batch)
        return cls(first.peak_bytes - slope * first.batch, slope)

    def peak(self, held: HeldMemory, images: int) -> float:
        """Bytes of a process at the peak of a step, all included."""
        return held.total + FRAGMENTATION * (self.constant + self.per_image * images)

    def largest_batch(self, held: HeldMemory, capacity: float) -> int:
        """The most images at once that fit into a GPU of so many bytes; 0 where not one fits."""
        room = (capacity - held.total) / FRAGMENTATION - self.constant
        return max(0, math.floor(room / self.per_image))
