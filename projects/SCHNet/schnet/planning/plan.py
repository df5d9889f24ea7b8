"""The plan of a run: for each SAM variant and crop what it takes, with and without recomputing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode

from schnet.errors import InputError
from schnet.modeling.sam_encoder import SAM_VARIANTS
from schnet.planning.gpus import Gpu, training_hours
from schnet.planning.memory import HeldMemory, PeakModel, held_memory
from schnet.planning.model import PlannedModel, build_planned_model
from schnet.planning.step import StepTrace, trace_step
from schnet.scaling import scale_to_processes

Size = tuple[int, int]

CHECKPOINTING = ("off", "mlp", "layer")
"""Without activation checkpointing, and what it recomputes (MODEL.SAM.RECOMPUTED)."""

# Images of the second, larger trace that the slope comes from, relative to the first.
_LARGER = 4


@dataclass(frozen=True)
class Run:
    """How a run spreads its images.

    Attributes:
        gpus: number of GPUs.
        images_per_gpu: of one iteration.
        images_at_once: of them, those that go through the model together.
        iterations: of the whole run.
        amp_dtype: SOLVER.AMP.DTYPE, or None where training is not autocast.
        has_ema: whether a moving average of the weights is kept.
    """

    gpus: int
    images_per_gpu: int
    images_at_once: int
    iterations: int
    amp_dtype: str | None
    has_ema: bool

    @classmethod
    def from_config(cls, cfg: CfgNode, gpus: int) -> Run:
        """Read SOLVER, scaled to the number of GPUs where REFERENCE_WORLD_SIZE is set.

        Raises:
            InputError: the images cannot be spread evenly.
        """
        reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
        _require_multiple(cfg.SOLVER.IMS_PER_BATCH, reference or 1, "SOLVER.REFERENCE_WORLD_SIZE")
        solver = scale_to_processes(cfg, gpus).SOLVER
        _require_multiple(solver.IMS_PER_BATCH, gpus, "--gpus")
        per_gpu = solver.IMS_PER_BATCH // gpus
        parts = solver.ACCUMULATE_STEPS
        _require_multiple(per_gpu, parts, "SOLVER.ACCUMULATE_STEPS, on each GPU,")
        dtype = solver.AMP.DTYPE if solver.AMP.ENABLED else None
        ema = solver.EMA.ENABLED
        return cls(gpus, per_gpu, per_gpu // parts, solver.MAX_ITER, dtype, ema)

    @property
    def accumulate_steps(self) -> int:
        """Parts that a GPU's images of one iteration go through the model in."""
        return self.images_per_gpu // self.images_at_once


def _require_multiple(images: int, divisor: int, name: str) -> None:
    if images % divisor or images < divisor:
        raise InputError(
            f"config key SOLVER.IMS_PER_BATCH gives {images} images, which is no multiple of "
            f"{divisor} ({name}): change one of them"
        )


@dataclass(frozen=True)
class PlanRow:
    """The needs of one variant at one crop.

    Attributes:
        variant: MODEL.SAM.VARIANT.
        crop: height and width of a training image in pixels.
        checkpointing: one of `CHECKPOINTING`.
        trained: trained parameters.
        frozen: frozen parameters.
        forward_flops: of one image.
        step_flops: forward and backward of one image, with what is recomputed.
        activation_bytes: what an image adds to the peak.
        held: what a GPU holds all the time.
        peak_bytes: of a GPU, all included.
        fits: whether the peak fits the GPU.
        largest_batch: the most images at once that fit a GPU.
        hours: of the whole run, arithmetic alone; None where no rate is known.
        checkpoint_bytes: of a file to resume from: trained weights, moments, average.
    """

    variant: str
    crop: Size
    checkpointing: str
    trained: int
    frozen: int
    forward_flops: float
    step_flops: float
    activation_bytes: float
    held: HeldMemory
    peak_bytes: float
    fits: bool
    largest_batch: int
    hours: float | None
    checkpoint_bytes: float


@dataclass(frozen=True)
class PlanJob:
    """One model to plan, in a process of its own if need be.

    Attributes:
        cfg: its config; MODEL and SOLVER count.
        crops: sizes of the images.
        run: how the images are spread.
        gpu: what it runs on.
        capacity: bytes of a GPU.
        efficiency: share of the GPU's rate that training reaches.
    """

    cfg: CfgNode
    crops: tuple[Size, ...]
    run: Run
    gpu: Gpu
    capacity: float
    efficiency: float

    @property
    def weight(self) -> int:
        """How long planning takes beside others: layers, and as many again that are recomputed."""
        sam = self.cfg.MODEL.SAM
        return SAM_VARIANTS[sam.VARIANT].depth * (2 if sam.ACTIVATION_CHECKPOINTING else 1)


def with_model(cfg: CfgNode, variant: str, checkpointing: str) -> CfgNode:
    """A copy of a config with another size of SAM, and one of `CHECKPOINTING`."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.SAM.VARIANT = variant
    cfg.MODEL.SAM.ACTIVATION_CHECKPOINTING = checkpointing != "off"
    if checkpointing != "off":
        cfg.MODEL.SAM.RECOMPUTED = checkpointing
    cfg.freeze()
    return cfg


def plan_model(job: PlanJob) -> list[PlanRow]:
    """Plan one model, at each of the crops.

    Raises:
        InputError: the model cannot be planned, or the GPU has no rate for the run's type.
    """
    planned = build_planned_model(job.cfg)
    held = held_memory(
        planned.weight_bytes,
        planned.trained_bytes,
        gpus=job.run.gpus,
        accumulate_steps=job.run.accumulate_steps,
        has_ema=job.run.has_ema,
    )
    return [_plan_crop(job, planned, held, crop) for crop in job.crops]


def _plan_crop(job: PlanJob, planned: PlannedModel, held: HeldMemory, crop: Size) -> PlanRow:
    run, sam = job.run, job.cfg.MODEL.SAM
    traces = _trace_twice(planned, crop, run)
    peaks = PeakModel.through(traces)
    peak = peaks.peak(held, run.images_at_once)
    flops = (traces[0].forward_flops + traces[0].backward_flops) / traces[0].batch
    return PlanRow(
        variant=sam.VARIANT,
        crop=crop,
        checkpointing=sam.RECOMPUTED if sam.ACTIVATION_CHECKPOINTING else "off",
        trained=planned.trained,
        frozen=planned.frozen,
        forward_flops=traces[0].forward_flops / traces[0].batch,
        step_flops=flops,
        activation_bytes=peaks.per_image,
        held=held,
        peak_bytes=peak,
        fits=peak <= job.capacity,
        largest_batch=peaks.largest_batch(held, job.capacity),
        hours=training_hours(
            flops * run.images_per_gpu, run.iterations, job.gpu, job.efficiency, run.amp_dtype
        ),
        checkpoint_bytes=planned.trained_bytes + held.optimizer + held.average,
    )


def _trace_twice(planned: PlannedModel, crop: Size, run: Run) -> Sequence[StepTrace]:
    # Both 16-bit types take the same memory, and the CPU's autocast of older torch has this one.
    dtype = None if run.amp_dtype is None else torch.bfloat16
    return [
        trace_step(
            planned,
            crop,
            images,
            autocast_dtype=dtype,
            gradients_exist=run.accumulate_steps > 1,
        )
        for images in (run.images_at_once, _LARGER * run.images_at_once)
    ]
